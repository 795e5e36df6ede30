"""Choices of paper mode in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.paper.options import AUTHORS, PAPER, parse_paper_options


def test_options_in_words() -> None:
    assert (
        parse_paper_options(()) == parse_paper_options(("text",)) == PAPER and parse_paper_options(("code",)) == AUTHORS
    )
    assert parse_paper_options(("code", "kept=2", "constant=bias")) == replace(AUTHORS, kept=2, constant="bias")
    for word in ("kept", "kept=x", "constant=1", "relative_to=", "name=value", "="):
        with pytest.raises(InvalidInput, match="paper option"):
            parse_paper_options((word,))
