"""MemSR's Table 3, as we dealt its rows out: other ways to train a plain network, beside MemSR's."""

from __future__ import annotations

from collections.abc import Iterator

from paper import methods
from paper.settings import Settings
from paper.table import Table
from paper.training_table import ASSIGNED, lines, make_table

ROWS = lines(methods.HE, (methods.REPVGG,), (methods.REPVGG_BN_FREE,), methods.INITIALISED, methods.WHOLE)

WORDS = (
    "Other ways to train a plain network: branches beside every layer, folded at the end, with batch norm and without.",
    ASSIGNED,
)


def make(settings: Settings) -> Iterator[Table]:
    """Table 3, after each of its runs."""
    return make_table(3, "Table 3: other ways to train", ROWS, WORDS, settings)
