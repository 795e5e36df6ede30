"""Options from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memsr_compiler.errors import InvalidInput, MemsrError


def read_settings(path: Path, known: Mapping[str, str], command: str) -> dict[str, Any]:
    """A YAML file, `name: value`, as parameters' defaults.

    known     parameters by the names that may be used for them: warm_up and --warm-up are one
    command   whose parameters these are: "memsrc train"

    Raises InvalidInput for a file that is none, and names that no option has; MemsrError without PyYAML.
    """
    try:
        import yaml
    except ImportError:
        raise MemsrError("PyYAML is not installed; pip install 'memsr_compiler[train]'") from None
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
    found = {}
    for name, value in content.items():
        option = next(
            (known[n] for n in (str(name), f"--{name}", f"--{str(name).replace('_', '-')}") if n in known), None
        )
        if option is None:
            raise InvalidInput(f"{path}: no option of {command} is called {name}")
        found[option] = value
    return found
