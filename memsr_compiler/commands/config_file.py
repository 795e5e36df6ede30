"""Options from a YAML file, and those that a run began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from memsr_compiler.errors import InvalidInput, MemsrError, say_missing
from memsr_compiler.files import open_file

SOURCE = "memsr_compiler.config_file"  # where a context remembers the YAML file of its options
FORMER = {"optimizer": "adam", "ema": 0.0, "labels": "photographs"}
"""Choices of runs that began before there was one, and do not name them."""

_MOST_BYTES = 1 << 18  # PyYAML takes a second or two for them
_SHOWN = 60  # letters of a name that is wrong


def use_config_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make the options of a YAML file the defaults, before the others are read."""
    if path is not None:
        known = {option: p.name for p in context.command.params for option in (p.name, *p.opts) if option and p.name}
        values = read_settings(path, known, f"memsrc {context.info_name}")
        repeated = {p.name for p in context.command.params if getattr(p, "multiple", False)}
        values |= {n: [v] for n, v in values.items() if n in repeated and v is not None and not isinstance(v, list)}
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
        context.default_map = {**FORMER, **(context.default_map or {}), "out": str(folder)}
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
        with open_file(path, "the options") as file:
            text = file.read(_MOST_BYTES + 1)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error} Give the file, or the run, with the options.") from None
    if len(text) > _MOST_BYTES:
        raise InvalidInput(
            f"{path}: has more than {_MOST_BYTES:,} bytes, which no options have; give lines of name: value"
        )
    try:
        content = yaml.safe_load(text.decode())
    except Exception as error:  # PyYAML has errors of its own, and lets Python's through: of numbers, dates, nesting
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InvalidInput(f"{path}: is no YAML ({reason}); give lines of name: value") from None
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
            raise InvalidInput(f"{path}: no option of {command} is called {str(name)[:_SHOWN]}")
        if not (_is_word(value) or (isinstance(value, list) and all(map(_is_word, value)))):
            raise InvalidInput(f"{path}: {name}: want a word, a number or a list of them (a date in quotes)")
        values[option] = value
    return values


def _is_word(value: object) -> bool:
    """Whether it could be written on a command line; a list in a list may stand for billions of words."""
    if isinstance(value, str):
        return value.isprintable()
    return value is None or isinstance(value, (bool, int, float))
