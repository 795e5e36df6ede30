"""The command line as a function, and what it says when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]
"""What the fixture `run` gives: arguments -> exit status, standard output, standard error."""


def must_refuse(run: Run, folder: Path, command: tuple[object, ...], *words: str) -> str:
    """Require that the command says no in one line with these words, exits with 2 and writes nothing."""
    before = {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
    status, out, err = run(*command)
    assert status == 2, (out, err)
    assert out == "" or "input values" in out, out  # at most what it has read so far
    message = err.strip()
    assert message.startswith("memsrc: ") and "\n" not in message, message
    for word in words:
        assert word in message, message
    assert {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")} == before
    return message
