"""PSNR against optimizer steps, a line for each run: MemSR's Figure 6, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memsr_compiler.reports.axes import choose_whole_step
from memsr_compiler.reports.colours import GRID, INK, PAPER, SERIES
from memsr_compiler.reports.text import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, FLOOR = 800, 420, 52, 44, 520, 372
LINES = (*SERIES, "#1d1f21", "#d0559a", "#7a8b00", "#0a7f8c", "#a0522d", "#8f8f8f")
LINE = 15  # pixels from a name to the next


@dataclass(frozen=True)
class Curve:
    """A run: its name, and (step, dB) of each validation.

    dashed   whether it is drawn in the colour of the curve before it, dashed
    """

    name: str
    points: tuple[tuple[int, float], ...]
    dashed: bool = False


def draw_curves(curves: Sequence[Curve], title: str) -> str:
    """The chart of MemSR's Figure 6, as SVG; what is below the lowest end of a curve is cut off."""
    low = math.floor(min(curve.points[-1][1] for curve in curves))
    last = max(1, *(curve.points[-1][0] for curve in curves))
    high = max(math.ceil(max(psnr for curve in curves for _, psnr in curve.points)), low + 1)
    each = choose_whole_step(last)

    def x(at: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * at / last, 1)

    def y(psnr: float) -> float:
        return round(FLOOR - (FLOOR - TOP) * (psnr - low) / (high - low), 1)

    parts = [f'<clipPath id="plot"><path d="M{LEFT} {TOP}H{RIGHT}V{FLOOR}H{LEFT}z"/></clipPath>']
    rise = choose_whole_step(high - low)
    for level in range(-(-low // rise) * rise, high + 1, rise):
        parts.append(f'<path d="M{LEFT} {y(level)}H{RIGHT}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(level) + 4}" text-anchor="end">{level}</text>')
    for n in range(last // each + 1):
        parts.append(f'<text x="{x(n * each)}" y="{FLOOR + 16}" text-anchor="middle">{n * each:,.0f}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}" text-anchor="end">dB</text>')
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{FLOOR + 34}" text-anchor="middle">steps</text>')
    colours = choose_colours(curves)
    best_first = sorted(curves, key=lambda curve: -curve.points[-1][1])
    names = spread([y(curve.points[-1][1]) + 4 for curve in best_first])
    for curve, beside in zip(best_first, names, strict=True):
        colour = colours[curve.name]
        dashes = ' stroke-dasharray="4 3"' if curve.dashed else ""
        line = " ".join(f"{x(at)},{y(psnr)}" for at, psnr in curve.points)
        parts.append(
            f'<polyline clip-path="url(#plot)" points="{line}" fill="none" stroke="{colour}" '
            f'stroke-width="1.6"{dashes}/>'
        )
        words = f"{escape(curve.name)}: {curve.points[-1][1]:.2f}"
        parts.append(f'<text x="{RIGHT + 8}" y="{beside}" fill="{colour}">{words}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/><g fill="{INK}">'
        f'<text x="{LEFT}" y="20" font-size="13" font-weight="600">{escape(title)}</text>{"".join(parts)}</g></svg>\n'
    )


def choose_colours(curves: Sequence[Curve]) -> dict[str, str]:
    """The colour of each curve, by its name."""
    colours: dict[str, str] = {}
    solid = 0
    for curve in curves:
        solid += not curve.dashed
        colours[curve.name] = LINES[(solid - 1) % len(LINES)]
    return colours


def spread(places: Sequence[float]) -> list[float]:
    """Places from the top down, moved so that each is a line below the one above it, and none below the floor."""
    below: list[float] = []
    for place in places:
        below.append(max(place, below[-1] + LINE) if below else place)
    return [min(place, FLOOR - LINE * (len(below) - 1 - i)) for i, place in enumerate(below)]
