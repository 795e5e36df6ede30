"""Widths of a plain network's levels, as stacked bars of what their channels hold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from memsr_compiler.reports.axes import Frame, choose_pitch, choose_whole_step
from memsr_compiler.reports.drawing import Drawing
from memsr_compiler.reports.level_contents import HOLDS, Bar
from memsr_compiler.reports.text import escape


def draw_widths(bars: Sequence[Bar], *, label: str) -> Drawing:
    """Picture of a plain network's widths: stacked bars, one a level."""
    pitch = choose_pitch(len(bars))
    each = choose_whole_step(max(bar.width for bar in bars))
    highest = each * math.ceil(max(bar.width for bar in bars) / each)
    frame = Frame(42, 18, 42 + pitch * len(bars), 218, 0, 1, 0, highest)
    lines = [(n, str(n)) for n in range(0, highest + 1, each)]
    drawn = [frame.draw_grid(lines)]
    for i, bar in enumerate(bars):
        x, below = frame.left + i * pitch + 3, 0
        for kind, channels, tensors in bar.parts:
            top = frame.y(below + channels)
            title = escape(f"{bar.label}: {channels} channels, {kind}" + (f"\n{tensors}" if tensors else ""))
            place = f'x="{x}" y="{top}" width="{pitch - 6}" height="{round(frame.y(below) - top, 1)}"'
            drawn.append(f'<rect class="h{HOLDS.index(kind)}" {place}><title>{title}</title></rect>')
            below += channels
        middle = x + (pitch - 6) / 2
        drawn.append(f'<text x="{middle}" y="{frame.y(below) - 4}">{bar.width}</text>')
        name = bar.label.split()[-1]
        drawn.append(f'<text class="name" x="{middle}" y="{frame.floor + 15}">{escape(name)}</text>')
    return frame.enclose("widths", label, frame.right + 4, lines, drawn)
