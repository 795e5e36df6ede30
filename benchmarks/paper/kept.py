"""Results that take long, each kept in a file: what is done is not computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import atomic_write, file_digest


def keep(folder: Path, about: Mapping[str, object], compute: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The result of `compute`: what was kept under the same settings, else what it gives now, which is kept.

    about   all that the result depends on;   about and result   as JSON has them

    Raises InvalidInput for a damaged file.
    """
    key = json.dumps(about, sort_keys=True)
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if path.exists():
        return _read(path, key)
    result = compute()
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(json.dumps({"about": about, "result": result}, indent=1).encode())
    return result


def _read(path: Path, key: str) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if json.dumps(content["about"], sort_keys=True) != key or not isinstance(content["result"], dict):
            raise ValueError("it is of something else")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: is damaged ({error}); remove it, and it is made again") from None
    result: Mapping[str, Any] = content["result"]
    return result


def digest(path: Path | None) -> str:
    """The content of a file, or names and sizes of all files in a folder, as a short digest; empty for None."""
    if path is None:
        return ""
    if path.is_file():
        return file_digest(path)[:16]
    files = (entry for entry in path.rglob("*") if entry.is_file())
    listed = sorted((entry.relative_to(path).as_posix(), entry.stat().st_size) for entry in files)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]
