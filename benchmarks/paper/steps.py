"""Widths level by level as lines with steps, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from memsr_compiler.reports.axes import choose_whole_step
from memsr_compiler.reports.colours import GRID, INK, PAPER, SERIES
from memsr_compiler.reports.text import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, FLOOR = 800, 420, 52, 44, 560, 372
LINE = 18  # pixels from a name to the next


def draw_steps(widths: Mapping[str, Sequence[int]], title: str) -> str:
    """The widths of the levels of networks, the first of which is drawn as an area."""
    levels = max(len(row) for row in widths.values())
    each = choose_whole_step(max(max(row) for row in widths.values()))
    highest = each * math.ceil(max(max(row) for row in widths.values()) / each)

    def x(level: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * level / levels, 1)

    def y(width: float) -> float:
        return round(FLOOR - (FLOOR - TOP) * width / highest, 1)

    parts = []
    for width in range(0, highest + 1, each):
        parts.append(f'<path d="M{LEFT} {y(width)}H{RIGHT}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(width) + 4}" text-anchor="end">{width}</text>')
    every = choose_whole_step(levels)
    for level in range(every, levels + 1, every):
        parts.append(f'<text x="{x(level - 0.5)}" y="{FLOOR + 16}" text-anchor="middle">{level}</text>')
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{FLOOR + 34}" text-anchor="middle">layer</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}" text-anchor="end">channels</text>')
    for number, (name, row) in enumerate(widths.items()):
        line = "".join(f"V{y(width)}H{x(level + 1)}" for level, width in enumerate(row))
        name_y = TOP + 12 + LINE * number
        colour = INK if number == 0 else SERIES[(number - 1) % len(SERIES)]
        look = f'fill="{GRID}"' if number == 0 else f'fill="none" stroke="{colour}" stroke-width="1.8"'
        start = f"M{x(0)} {FLOOR}" if number == 0 else f"M{x(0)} {y(row[0])}"
        close = f"V{FLOOR}z" if number == 0 else ""
        parts.append(f'<path class="widths" d="{start}{line}{close}" {look}/>')
        parts.append(f'<text x="{RIGHT + 12}" y="{name_y}" fill="{colour}">{escape(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/><g fill="{INK}">'
        f'<text x="{LEFT}" y="20" font-size="13" font-weight="600">{escape(title)}</text>{"".join(parts)}</g></svg>\n'
    )
