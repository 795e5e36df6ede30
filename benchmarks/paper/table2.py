"""MemSR's Table 2, as we dealt its rows out: other ways to distil a plain network, beside MemSR's."""

from __future__ import annotations

from collections.abc import Iterator

from paper import methods
from paper.settings import Settings
from paper.table import Table
from paper.training_table import ASSIGNED, lines, make_table

ROWS = lines(methods.HE, methods.SRKD, methods.FAKD, methods.PISR, methods.HE_DISTILLED, methods.WHOLE)

WORDS = ("Other ways to distil: SRKD, FAKD and PISR from new weights (He), beside none and MemSR's.", ASSIGNED)


def make(settings: Settings) -> Iterator[Table]:
    """Table 2, after each of its runs."""
    return make_table(2, "Table 2: other ways to distil", ROWS, WORDS, settings)
