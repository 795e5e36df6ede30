"""MemSR's Table 10, as we dealt its rows out: lambda and epsilon of Eq. 14, and the maps M."""

from __future__ import annotations

from collections.abc import Iterator

from paper import methods
from paper.settings import Settings
from paper.table import Table
from paper.training_table import ASSIGNED, lines, make_table

ROWS = (
    *lines(methods.INITIALISED[:1], methods.WHOLE[:1], methods.MAPS_RANDOM[:1], methods.NO_SHIFT_DISTILLED[:1]),
    *lines(*((method,) for method in methods.WEIGHTED)),
)

WORDS = (
    "How much the features count: lambda and epsilon of Eq. 14, 0.3 and 1e-5 in the row of MemSR; and the maps M. As "
    "published.",
    ASSIGNED,
)


def make(settings: Settings) -> Iterator[Table]:
    """Table 10, after each of its runs."""
    return make_table(10, "Table 10: lambda, epsilon and M", ROWS, WORDS, settings)
