"""Options from a YAML file, and those that a run began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from memsr_compiler.errors import InvalidInput, MemsrError, say_missing

SOURCE = "memsr_compiler.config_file"  # where a context remembers the YAML file of its options


def use_config_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make the options of a YAML file the defaults, before the others are read."""
    if path is not None:
        known = {option: p.name for p in context.command.params for option in (p.name, *p.opts) if option and p.name}
        values = read_settings(path, known, f"memsrc {context.info_name}")
        context.default_map = {**(context.default_map or {}), **values}
        context.meta[SOURCE] = path
    return path


def resume_run(context: typer.Context, place: Path | None) -> Path | None:
    """Make the options that a run began with the defaults, its folder being where it is now."""
    if place is not None:
        if not place.exists():
            raise InvalidInput(f"{place}: there is no such run; give a run's folder, or one of its checkpoints")
        folder = place.parent if place.is_file() else place
        use_config_file(context, folder / "config.yaml")
        context.default_map = {**(context.default_map or {}), "out": str(folder)}
    return place


def read_settings(path: Path, known: Mapping[str, str], command: str) -> dict[str, Any]:
    """Read a YAML file, `name: value`, as parameters' defaults.

    known     parameters by the names that may be used for them: warm_up and --warm-up are one
    command   whose parameters these are: "memsrc train"

    Raises InvalidInput for a file that is none, and names that no option has; MemsrError without PyYAML.
    """
    try:
        import yaml
    except ImportError:
        raise MemsrError(say_missing("PyYAML", "reads the options' file", "train")) from None
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidInput(
            f"{path}: cannot be read ({error.strerror}); give the file, or the run, with the options"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: is no YAML ({' '.join(str(error).split())})") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise InvalidInput(f"{path}: want lines of name: value")
    values = {}
    for name, value in content.items():
        option = next(
            (known[n] for n in (str(name), f"--{name}", f"--{str(name).replace('_', '-')}") if n in known), None
        )
        if option is None:
            raise InvalidInput(f"{path}: no option of {command} is called {name}")
        values[option] = value
    return values
