"""A picture for a page whose style sheet is report.css: SVG text, and what the page must know to place it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memsr_compiler.reports.text import escape

_BAR = 10  # pixels, height of a scale bar
SCALE_HEIGHT = 40  # pixels, from a scale bar's caption to below its numbers


@dataclass(frozen=True)
class Drawing:
    """A picture, its sizes in pixels.

    kind      its class in report.css
    label     what it shows, for those who do not see it
    content   ready SVG
    axis      the numbers on its left, in a strip of that width: they stay in view while the rest scrolls
    """

    kind: str
    label: str
    width: float
    height: float
    content: str
    axis: tuple[float, str] | None = None

    def svg(self) -> str:
        """The picture as one <svg>."""
        return (
            f'<svg class="{self.kind}" role="img" aria-label="{escape(self.label)}" width="{self.width:g}" '
            f'height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}">{self.content}</svg>\n'
        )

    def axis_svg(self) -> str:
        """The numbers on the left once more, to lie over the picture; '' if it has none."""
        if self.axis is None:
            return ""
        width, content = self.axis
        return (
            f'<svg class="{self.kind} axis" aria-hidden="true" width="{width:g}" height="{self.height:g}" '
            f'viewBox="0 0 {width:g} {self.height:g}">{content}</svg>\n'
        )


def draw_scale_bar(
    at: tuple[float, float], width: float, colours: Sequence[str], ticks: Sequence[tuple[float, str]], *, caption: str
) -> str:
    """What colours mean: a caption with the unit, a bar of the colours, and numbers under it.

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
