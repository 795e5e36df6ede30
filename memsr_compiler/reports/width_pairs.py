"""Widths of a student's layers in front of the teacher's, as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memsr_compiler.reports.axes import Frame, choose_pitch, choose_whole_step
from memsr_compiler.reports.drawing import Drawing
from memsr_compiler.reports.text import escape

HOLDS = ("teacher", "ReLUs of the teacher", "linear directions")


@dataclass(frozen=True)
class Pair:
    """The width of one layer in the teacher and in the student, whose channels are of two kinds."""

    label: str
    teacher: int
    relus: int
    carried: int

    @property
    def student(self) -> int:
        return self.relus + self.carried


def draw_pairs(pairs: Sequence[Pair], *, label: str) -> Drawing:
    """The student's widths in front of the teacher's, layer by layer: MemSR, Figure 7."""
    pitch = choose_pitch(len(pairs))
    each = choose_whole_step(max(max(p.teacher, p.student) for p in pairs))
    highest = each * math.ceil(max(max(p.teacher, p.student) for p in pairs) / each)
    frame = Frame(42, 18, 42 + pitch * len(pairs), 218, 0, 1, 0, highest)
    lines = [(n, str(n)) for n in range(0, highest + 1, each)]
    bars = (_draw_pair(frame, pair, frame.left + i * pitch + 3, pitch - 6) for i, pair in enumerate(pairs))
    return frame.enclose("pairs", label, frame.right + 4, lines, [frame.draw_grid(lines), *bars])


def _draw_pair(frame: Frame, pair: Pair, left: float, wide: float) -> str:
    """The bar of the teacher and, narrower, those of the student before it, with their numbers."""
    told = (
        f"layer {pair.label}: {pair.student} of {pair.teacher} channels\n"
        f"{pair.relus} ReLUs of the teacher, {pair.carried} linear directions"
    )
    stack = ((0, 0, pair.teacher), (1, 0, pair.relus), (2, pair.relus, pair.student))
    bars = "".join(
        f'<rect class="w{kind}" x="{left + 4 * (kind > 0)}" y="{frame.y(above)}" '
        f'width="{wide - 8 * (kind > 0)}" height="{round(frame.y(below) - frame.y(above), 1)}"/>'
        for kind, below, above in stack
        if above > below
    )
    middle = left + wide / 2
    top = frame.y(max(pair.teacher, pair.student))
    return (
        f"<g><title>{escape(told)}</title>{bars}"
        f'<text x="{middle}" y="{top - 4}">{pair.teacher}</text>'
        f'<text class="inside" x="{middle}" y="{_place_number(frame, pair.student)}">{pair.student}</text>'
        f'<text class="name" x="{middle}" y="{frame.floor + 15}">{escape(pair.label)}</text></g>'
    )


def _place_number(frame: Frame, width: int) -> float:
    """Height at which a bar's number stands: below its top, or on its foot if it is too low for that."""
    return min(frame.y(width) + 12, frame.floor - 3)
