"""Errors of other libraries, told in a line."""

from __future__ import annotations

import pytest

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
