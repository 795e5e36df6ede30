"""PSNR against cost of several networks: an SVG file that needs no style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memsr_compiler.reports.axes import Frame, choose_step, join_points
from memsr_compiler.reports.colours import GRID, INK, PAPER, SERIES, SOFT
from memsr_compiler.reports.text import escape

_LINE = 18  # pixels from a line of a table to the next


@dataclass(frozen=True)
class Point:
    """A network in a trade-off: what it is, multiply-adds, bytes of feature maps, PSNR in dB."""

    label: str
    macs: float
    memory: float
    psnr: float


def draw_tradeoff(
    students: Sequence[Point], others: Sequence[Point], levels: Sequence[tuple[str, float]], *, label: str
) -> str:
    """PSNR against multiply-adds, and against memory, and all numbers under it: an SVG file that needs no style sheet.

    others   networks to compare with, the teacher say;   levels   PSNR without a cost, bicubic say
    """
    every = [*students, *others]
    scores = [p.psnr for p in every] + [value for _, value in levels]
    finite = [value for value in scores if math.isfinite(value)] or [0.0]
    low, high = math.floor(min(finite) - 0.2), math.ceil(max(finite) + 0.2)
    panels = (
        ("multiply-adds, 10⁹", [p.macs / 1e9 for p in students], [p.macs / 1e9 for p in others]),
        ("feature maps, MiB", [p.memory / 2**20 for p in students], [p.memory / 2**20 for p in others]),
    )
    drawn = []
    for i, (name, here, there) in enumerate(panels):
        left = 56 + 430 * i
        most = max([*here, *there, 1e-6])
        each = choose_step(most)
        frame = Frame(left, 58, left + 350, 320, 0, each * math.ceil(most / each), low, high)
        drawn.append(_draw_panel(frame, name, each, students, here))
        known = ((x, p) for x, p in zip(there, others, strict=True) if math.isfinite(p.psnr))
        drawn += [_draw_mark(frame, x, p, SERIES[1]) for x, p in known]
        drawn += [_draw_level(frame, text, value) for text, value in levels if math.isfinite(value)]
    rows = [(p.label, f"{p.psnr:.2f}", f"{p.macs / 1e9:,.2f}", f"{p.memory / 2**20:,.1f}") for p in every]
    rows += [(text, f"{value:.2f}", "", "") for text, value in levels]
    told = [row for row, value in zip(rows, scores, strict=True) if math.isfinite(value)]
    drawn.append(_draw_table(("", "PSNR, dB", *(name for name, _, _ in panels)), told, top=392))
    height = 392 + _LINE * (len(told) + 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="880" height="{height}" viewBox="0 0 880 {height}" fill="none" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(label)}</title>'
        f'<rect width="880" height="{height}" fill="{PAPER}"/><g fill="{INK}">'
        f'<text x="56" y="22" font-size="13" font-weight="600">{escape(label)}</text>{"".join(drawn)}</g></svg>\n'
    )


def _draw_panel(frame: Frame, name: str, each: float, students: Sequence[Point], costs: Sequence[float]) -> str:
    """PSNR against one cost: grid, axes, and the students in a line."""
    drawn = []
    lines = choose_step(frame.y1 - frame.y0)
    for n in range(math.ceil(frame.y0 / lines), math.floor(frame.y1 / lines) + 1):
        y = frame.y(n * lines)
        drawn.append(f'<path d="M{frame.left} {y}H{frame.right}" stroke="{GRID}"/>')
        drawn.append(f'<text x="{frame.left - 6}" y="{y + 4}" text-anchor="end">{n * lines:.6g}</text>')
    for n in range(round(frame.x1 / each) + 1):
        x = frame.x(n * each)
        drawn.append(f'<text x="{x}" y="{frame.floor + 16}" text-anchor="middle">{n * each:.6g}</text>')
    middle = (frame.left + frame.right) / 2
    drawn.append(f'<text x="{middle}" y="{frame.floor + 34}" text-anchor="middle">{name}</text>')
    drawn.append(f'<text x="{frame.left - 6}" y="{frame.top - 12}" text-anchor="end">dB</text>')
    known = [(x, p) for x, p in zip(costs, students, strict=True) if math.isfinite(p.psnr)]
    along = sorted(known, key=lambda pair: pair[0])
    places = [(frame.x(x), frame.y(p.psnr)) for x, p in along]
    drawn.append(f'<polyline points="{join_points(places)}" stroke="{SERIES[0]}" stroke-width="1.5" fill="none"/>')
    drawn += [_draw_mark(frame, x, p, SERIES[0]) for x, p in along]
    return "".join(drawn)


def _draw_level(frame: Frame, name: str, psnr: float) -> str:
    """A dashed line at a PSNR that has no cost."""
    y = frame.y(psnr)
    return (
        f'<path d="M{frame.left} {y}H{frame.right}" stroke="{SOFT}" stroke-dasharray="4 3"/>'
        f'<text x="{frame.right}" y="{y - 4}" text-anchor="end">{escape(name)}</text>'
    )


def _draw_mark(frame: Frame, cost: float, point: Point, colour: str) -> str:
    """A dot with its name."""
    x, y = frame.x(cost), frame.y(point.psnr)
    end = x > frame.right - 60
    at = f'x="{x - 7}" y="{y + 14}" text-anchor="end"' if end else f'x="{x + 6}" y="{y + 14}"'
    return (
        f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"><title>{escape(point.label)}: {point.psnr:.2f} dB</title>'
        f"</circle><text {at}>{escape(point.label)}</text>"
    )


def _draw_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, top: float) -> str:
    """Lines of text under the panels: a name on the left, then numbers, right-aligned under their heads."""
    ends = (406, 540, 674)

    def line(cells: Sequence[str], y: float, colour: str) -> str:
        numbers = (
            f'<tspan x="{x}" text-anchor="end">{escape(text)}</tspan>'
            for x, text in zip(ends, cells[1:], strict=True)
            if text
        )
        name = f'<tspan x="56">{escape(cells[0])}</tspan>' if cells[0] else ""
        return f'<text y="{y}" fill="{colour}">{name}{"".join(numbers)}</text>'

    lines = [line(row, top + _LINE * i, INK) for i, row in enumerate(rows, 1)]
    return line(heads, top, SOFT) + "".join(lines)
