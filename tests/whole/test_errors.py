"""Errors of other libraries, told in a line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memsr_compiler import errors
from memsr_compiler.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("damaged"), "damaged"),
        (ValueError("\n  damaged \nin three ways"), "damaged"),
        (ValueError(), "ValueError"),
        (KeyError(""), "''"),
        (OSError("\n \n"), "OSError"),
    ],
)
def test_the_first_line_of_an_error_that_may_say_nothing(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_nobody_else_takes_a_first_line() -> None:
    """Of an empty message there is none, and `"".splitlines()[0]` is an IndexError."""
    package = Path(errors.__file__).parent
    taken = re.compile(r"splitlines\(\)\[0\]|split\([\"']\\n[\"'](, 1)?\)\[0\]|partition\([\"']\\n[\"']\)\[0\]")
    places = [path.name for path in package.rglob("*.py") if taken.search(path.read_text("utf-8"))]
    assert places == ["errors.py"]
