"""Two things that a picture is drawn on by the same strokes: SVG text, and pixels."""

from __future__ import annotations

import io
from typing import Literal, Protocol

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from memsr_compiler.reports.colours import GRID, INK, PAPER
from memsr_compiler.reports.text import escape

WIDTH, HEIGHT = 640, 420  # pixels
Anchor = Literal["start", "middle", "end"]


class Canvas(Protocol):
    """A sheet that a picture is drawn on; places in pixels from the upper left."""

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str = GRID) -> None: ...

    def dot(self, x: float, y: float, radius: float, colour: str, tooltip: str) -> None: ...

    def text(
        self, x: float, y: float, words: str, anchor: Anchor, colour: str = INK, *, title: bool = False
    ) -> None: ...


class SvgCanvas:
    """SVG text; finish() gives a file that needs no style sheet."""

    def __init__(self) -> None:
        self._drawn: list[str] = []

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str = GRID) -> None:
        self._drawn.append(f'<path d="M{x0:g} {y0:g}L{x1:g} {y1:g}" stroke="{colour}"/>')

    def dot(self, x: float, y: float, radius: float, colour: str, tooltip: str) -> None:
        self._drawn.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:.2f}" fill="{colour}" fill-opacity="0.55">'
            f"<title>{escape(tooltip)}</title></circle>"
        )

    def text(self, x: float, y: float, words: str, anchor: Anchor, colour: str = INK, *, title: bool = False) -> None:
        bold = ' font-size="13" font-weight="600"' if title else ""
        self._drawn.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{bold}>{escape(words)}</text>'
        )

    def finish(self, title: str) -> str:
        """The file."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="11">'
            f"<title>{escape(title)}</title>"
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>{"".join(self._drawn)}</svg>\n'
        )


class PngCanvas:
    """Pixels, drawn four times as large, as Pillow's circles have steps, and made half of that in the end."""

    _ZOOM = 4

    def __init__(self) -> None:
        self._image = Image.new("RGB", (WIDTH * self._ZOOM, HEIGHT * self._ZOOM), PAPER)
        self._pen = ImageDraw.Draw(self._image, "RGBA")

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str = GRID) -> None:
        zoom = self._ZOOM
        self._pen.line((x0 * zoom, y0 * zoom, x1 * zoom, y1 * zoom), colour, zoom)

    def dot(self, x: float, y: float, radius: float, colour: str, tooltip: str) -> None:
        zoom = self._ZOOM
        self._pen.ellipse(
            ((x - radius) * zoom, (y - radius) * zoom, (x + radius) * zoom, (y + radius) * zoom), f"{colour}8c"
        )

    def text(self, x: float, y: float, words: str, anchor: Anchor, colour: str = INK, *, title: bool = False) -> None:
        zoom = self._ZOOM
        font = ImageFont.load_default((13 if title else 11) * zoom)
        self._pen.text((x * zoom, y * zoom), words, colour, font, {"start": "ls", "middle": "ms", "end": "rs"}[anchor])

    def finish(self) -> bytes:
        """The file."""
        file = io.BytesIO()
        tool = PngInfo()
        tool.add_text("Software", "memsr_compiler")  # by which it may be known again, and replaced
        image = self._image.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.LANCZOS)
        image.save(file, "PNG", optimize=True, pnginfo=tool)
        return file.getvalue()
