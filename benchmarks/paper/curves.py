"""PSNR against optimizer steps, a line for each run: MemSR's Figure 6, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memsr_compiler.reports.axes import choose_step
from memsr_compiler.reports.colours import GRID, INK, PAPER, SERIES
from memsr_compiler.reports.text import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, FLOOR = 740, 420, 52, 44, 520, 372
LINES = (*SERIES, "#1d1f21", "#d0559a")
LINE = 15  # pixels from a name to the next


@dataclass(frozen=True)
class Curve:
    """A run: its name, and (step, dB) of each validation."""

    name: str
    points: tuple[tuple[int, float], ...]


def draw_curves(curves: Sequence[Curve], title: str, low: float = 28.0) -> str:
    """The chart of MemSR's Figure 6, as SVG.

    low   dB at the foot; what is below is cut off
    """
    last = max(curve.points[-1][0] for curve in curves)
    high = math.ceil(max(psnr for curve in curves for _, psnr in curve.points))
    each = choose_step(last)

    def x(at: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * at / last, 1)

    def y(psnr: float) -> float:
        return round(FLOOR - (FLOOR - TOP) * (psnr - low) / (high - low), 1)

    parts = [f'<clipPath id="plot"><path d="M{LEFT} {TOP}H{RIGHT}V{FLOOR}H{LEFT}z"/></clipPath>']
    for level in range(math.ceil(low), high + 1):
        parts.append(f'<path d="M{LEFT} {y(level)}H{RIGHT}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(level) + 4}" text-anchor="end">{level}</text>')
    for n in range(math.floor(last / each) + 1):
        parts.append(f'<text x="{x(n * each)}" y="{FLOOR + 16}" text-anchor="middle">{n * each:,.0f}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}" text-anchor="end">dB</text>')
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{FLOOR + 34}" text-anchor="middle">steps</text>')
    best_first = sorted(curves, key=lambda curve: -curve.points[-1][1])
    beneath = 0.0
    for curve in best_first:
        colour = LINES[curves.index(curve) % len(LINES)]
        line = " ".join(f"{x(at)},{y(psnr)}" for at, psnr in curve.points)
        parts.append(
            f'<polyline clip-path="url(#plot)" points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )
        end = curve.points[-1][1]
        beneath = max(min(y(end) + 4, FLOOR), beneath + LINE)
        parts.append(f'<text x="{RIGHT + 8}" y="{beneath}" fill="{colour}">{escape(curve.name)}: {end:.2f}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/><g fill="{INK}">'
        f'<text x="{LEFT}" y="20" font-size="13" font-weight="600">{escape(title)}</text>{"".join(parts)}</g></svg>\n'
    )
