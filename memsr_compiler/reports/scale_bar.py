"""Scale bars: what the colours of a drawing stand for."""

from __future__ import annotations

from collections.abc import Sequence

from memsr_compiler.reports.text import escape

_BAR = 10  # pixels, height of a scale bar
SCALE_HEIGHT = 40  # pixels, from a scale bar's caption to below its numbers


def draw_scale_bar(
    at: tuple[float, float], width: float, colours: Sequence[str], ticks: Sequence[tuple[float, str]], *, caption: str
) -> str:
    """Draw a scale bar: a caption with the unit, a bar of the colours, and numbers under it.

    at        left end and top, in pixels; it is SCALE_HEIGHT high
    colours   an attribute of <rect> each, from left to right
    ticks     (place from 0, the left end, to 1, its number)
    """
    left, top = at
    step = width / len(colours)
    bar = "".join(
        f'<rect {colour} x="{left + i * step:g}" y="{top + 15:g}" width="{step:g}" height="{_BAR}"/>'
        for i, colour in enumerate(colours)
    )
    numbers = "".join(
        f'<text x="{left + width * place:g}" y="{top + 16 + _BAR + 11:g}" text-anchor="middle">{escape(text)}</text>'
        for place, text in ticks
    )
    words = f'<text style="text-anchor: start" x="{left:g}" y="{top + 10:g}">{escape(caption)}</text>'
    frame = f'<path d="M{left:g} {top + 15:g}h{width:g}v{_BAR}h-{width:g}z" fill="none" stroke="#8a9199"/>'
    return f'<g aria-label="colour scale: {escape(caption)}">{words}{bar}{frame}{numbers}</g>'
