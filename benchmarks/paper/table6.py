"""In place of MemSR's Table 6, whose contents are not known to us: students by theta, the limit of Sec. 3.5."""

from __future__ import annotations

from collections.abc import Iterator

from paper.figure7 import WAYS
from paper.settings import Settings
from paper.table import Table
from paper.untrained import make_table

THETAS = ("0.02", "0.05", "0.1", "0.14", "0.2", "0.3")

STUDENTS = {
    f"theta {theta}, {words}": ("--theta", theta, *options) for words, options in WAYS.items() for theta in THETAS
}

WORDS = (
    "Here: theta, below which the relative error of each level's features is kept (Sec. 3.5, Eq. 15). MemSR names 0.05 "
    "and 0.14."
)


def make(settings: Settings) -> Iterator[Table]:
    """Table 6, after each of its students."""
    students = dict(list(STUDENTS.items())[:1]) if settings.smoke else STUDENTS
    return make_table(6, "Table 6, contents unknown: students by theta", WORDS, students, settings)
