"""In place of MemSR's Table 7, whose contents are not known to us: students by beta, the mean shift of Algorithm 1."""

from __future__ import annotations

from collections.abc import Iterator

from paper.pairs import find_pair
from paper.settings import Settings
from paper.table import Table
from paper.untrained import make_table

BETAS = ("0", "1", "2", "3", "4", "6", "10")

WORDS = (
    "Here: beta, by which students' features are shifted up before their ReLUs (Algorithm 1). MemSR's is 3; 0 is no "
    "mean shift. Ours needs none."
)


def make(settings: Settings) -> Iterator[Table]:
    """Table 7, after each of its students."""
    width = ("--width", str(find_pair(settings).width))
    students: dict[str, tuple[str, ...]] = {
        f"beta {beta}": (*width, "--init", "memsr", "--beta", beta) for beta in BETAS
    }
    students |= {
        "ours": (*width, "--image-skip", "none"),
        "ours, the image outside": (*width, "--image-skip", "nearest"),
    }
    chosen = dict(list(students.items())[:1]) if settings.smoke else students
    return make_table(7, "Table 7, contents unknown: students by mean shift", WORDS, chosen, settings)
