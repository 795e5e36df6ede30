"""MemSR's Table 1: what each part of the method buys, and ours beside it."""

from __future__ import annotations

from collections.abc import Iterator

from paper import methods
from paper.runs import SETS
from paper.settings import Settings
from paper.table import Table
from paper.training_table import Line, lines, make_table, ours


def _paper(numbers: str) -> dict[str, str]:
    return dict(zip(SETS, numbers.split(), strict=True))


ROWS = (
    Line(methods.HE[0], _paper("31.61 28.22 27.31 25.30")),
    *ours(methods.HE[1]),
    *lines(methods.XAVIER, methods.HE_DISTILLED, methods.NO_SHIFT),
    Line(methods.INITIALISED[0], _paper("32.09 28.54 27.53 25.97")),
    *ours(methods.INITIALISED[1]),
    *lines(methods.MAPS_RANDOM),
    Line(methods.WHOLE[0], _paper("32.10 28.57 27.55 25.99")),
    *ours(methods.WHOLE[1], methods.PAPER_OUR_WAY, *methods.OUR_START, methods.OUR_WAY),
)

WORDS = (
    "What each part of the method buys. The paper's rows that are known to us are new weights, initialised, and "
    "distilled too; the others are ours.",
)


def make(settings: Settings) -> Iterator[Table]:
    """Table 1, after each of its runs."""
    return make_table(1, "Table 1: the parts of the method", ROWS, WORDS, settings)
