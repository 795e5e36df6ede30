"""Files that a command is to write: what cannot be written, or would be overwritten, is found before the work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from memsr_compiler.errors import InvalidInput


def check_outputs(source: Path, outputs: Sequence[Path]) -> None:
    """Raises InvalidInput for a place that cannot be written, the file that is read, and one file named twice."""
    for i, path in enumerate(outputs):
        _check_writable(path)
        if path.resolve() == source.resolve():
            raise InvalidInput(f"{path}: is the network that is read; write somewhere else")
        if path.resolve() in (other.resolve() for other in outputs[:i]):
            raise InvalidInput(f"{path}: is to be written twice; give every file a name of its own")


def _check_writable(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise InvalidInput(f"{path}: the folder {folder} does not exist; make it first")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidInput(f"{path}: cannot be written; choose another place")
