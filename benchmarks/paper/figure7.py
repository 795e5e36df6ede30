"""MemSR's Figure 7: widths of Plain-X level by level, at the limits of Eq. 15 that the paper names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from memsr_compiler import compile_to_plain
from memsr_compiler.teachers.teacher import as_teacher
from paper.pairs import SCALE, find_pair
from paper.quality import derive
from paper.settings import Settings
from paper.steps import draw_steps
from paper.table import Cell, Numbers, Row, Table

THETAS = ("0.05", "0.14")
WAYS = {
    "the paper's way": ("--init", "memsr"),
    "ours": ("--image-skip", "none", "--refit", "0"),
}
STUDENTS = {
    f"Plain-X({theta}), {words}": ("--theta", theta, *options) for words, options in WAYS.items() for theta in THETAS
}
"""Options of `memsrc shrink`."""

NOTES = (
    "Plain-X(theta): each level as narrow as keeps the relative error of its features (Eq. 15) below theta. Ours "
    "counts the constant channel, if there is one, among the others, and rounds widths up to a multiple of 8; so "
    "does the paper's way here.",
    "The paper's widths stand in a picture, which is in no text that we could read.",
)


def make(settings: Settings) -> Iterator[Table]:
    """Figure 7, after each of its students."""
    pair = find_pair(settings)
    teacher = compile_to_plain(as_teacher(pair.teacher))
    widths: dict[str, Sequence[int]] = {"the teacher, made plain": teacher.widths[1:-1]}
    thousands = {"the teacher, made plain": sum(p.numel() for p in teacher.parameters()) / 1e3}
    for name, options in STUDENTS.items():
        net, _ = derive(settings, *options)
        widths[name] = net.widths[1:-1]
        thousands[name] = sum(p.numel() for p in net.parameters()) / 1e3
        yield _table(widths, thousands, pair.words, settings)


def _table(
    widths: Mapping[str, Sequence[int]], thousands: Mapping[str, float], words: str, settings: Settings
) -> Table:
    layers = max(len(row) for row in widths.values())
    title = "Figure 7: widths of Plain-X"
    return Table(
        name=f"figure7-{settings.pair}",
        title=title,
        columns=("", "parameters, K", *(f"{number}" for number in range(1, layers + 1))),
        rows=tuple(
            Row(name, (Numbers((thousands[name],), digits=0), *_cells(row, layers))) for name, row in widths.items()
        ),
        caption=(f"Channels of each layer but the last; the teacher: {words}, x{SCALE}.",),
        notes=NOTES,
        picture=draw_steps(widths, title),
    )


def _cells(row: Sequence[int], layers: int) -> tuple[Cell, ...]:
    return (*(Numbers((width,), digits=0) for width in row), *("" for _ in range(layers - len(row))))
