"""Names of films, and whether there is PyAV to read them; told without it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from memsr_compiler.errors import InvalidInput, say_missing

READ = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".wmv", ".flv",
    ".3gp", ".ogv", ".mxf", ".nut", ".y4m",
)  # fmt: skip
WRITTEN = {  # file name extensions, and what libavformat calls such files
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}


def is_film_name(path: str | Path) -> bool:
    """Whether people know it for a film by its name."""
    return Path(path).suffix.lower() in READ


def require_av() -> None:
    """Raises InvalidInput where PyAV is not installed."""
    if importlib.util.find_spec("av") is None:
        python = ", with Python 3.11 or later" if sys.version_info < (3, 11) else ""
        raise InvalidInput(say_missing("PyAV (av)", "reads and writes films", "video") + python)
