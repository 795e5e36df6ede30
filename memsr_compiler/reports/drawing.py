"""A picture for a page whose style sheet is report.css: SVG text, and what the page must know to place it."""

from __future__ import annotations

from dataclasses import dataclass

from memsr_compiler.reports.text import escape


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
