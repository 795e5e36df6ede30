"""MemSR's Table 5, as we dealt its rows out: the first weights of a plain network."""

from __future__ import annotations

from collections.abc import Iterator

from paper import methods
from paper.settings import Settings
from paper.table import Table
from paper.training_table import ASSIGNED, lines, make_table, ours

ROWS = (
    *lines(methods.HE, methods.HE_UNIFORM, methods.XAVIER, methods.XAVIER_UNIFORM),
    *ours(*methods.IDENTITY),
    *lines(methods.NO_SHIFT, methods.INITIALISED),
    *ours(*methods.OUR_START),
)

WORDS = (
    "First weights, all trained on photographs alone: new ones, ones that begin as the nearest-neighbour image "
    "(PNNH, beyond the paper), the paper's, and ours.",
    ASSIGNED,
)


def make(settings: Settings) -> Iterator[Table]:
    """Table 5, after each of its runs."""
    return make_table(5, "Table 5: first weights", ROWS, WORDS, settings)
