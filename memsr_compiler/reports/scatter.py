"""Quality, time and memory of networks in one picture, MemSR's Figure 1: as SVG text, or as PNG.

Both are drawn by the same strokes.  What has no finite PSNR has no place and is left out.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image, ImageDraw, ImageFont

from memsr_compiler.reports.charts import step
from memsr_compiler.reports.text import escape

WIDTH, HEIGHT = 640, 420
LEFT, TOP, RIGHT, FLOOR = 64, 52, 616, 366  # of the plot, in pixels
LARGEST, SMALLEST = 34.0, 3.0  # radius of a dot
LINE, LETTER = 14, 6  # pixels from a line of text to the next, and of a letter, about
GAP = 5  # pixels from a dot to its label
COLOURS = ("#1f5fa8", "#b8452f", "#2f7d4f", "#8a5aa8", "#a87b1f", "#3f7f8c")
INK, GRID, PAPER, SOFT = "#1d1f21", "#dcdedf", "#fdfdfc", "#5b6168"

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Dot:
    """A network: what to call it, seconds, PSNR in dB, bytes that are the dot's area (None: unknown, the least)."""

    label: str
    seconds: float
    psnr: float
    memory: int | None


class Canvas(Protocol):
    """What a picture is drawn on; places in pixels from the upper left."""

    def line(self, x0: float, y0: float, x1: float, y1: float) -> None: ...

    def dot(self, x: float, y: float, radius: float, colour: str, told: str) -> None: ...

    def text(
        self, x: float, y: float, words: str, anchor: Anchor, colour: str = INK, *, title: bool = False
    ) -> None: ...


def as_svg(dots: Sequence[Dot], title: str) -> str:
    """A file that needs no style sheet."""
    canvas = _Svg()
    _draw(canvas, dots, title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>{"".join(canvas.drawn)}</svg>\n'
    )


def as_png(dots: Sequence[Dot], title: str) -> bytes:
    """The same, twice as large."""
    canvas = _Png()
    _draw(canvas, dots, title)
    file = io.BytesIO()
    canvas.finished().save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw(canvas: Canvas, dots: Sequence[Dot], title: str) -> None:
    known = [dot for dot in dots if math.isfinite(dot.psnr)]
    longest = max([1e-3, *(dot.seconds * 1000 for dot in known)])
    across = step(longest)
    x1 = across * math.ceil(longest / across + 0.25)  # room for the last dot and its label
    scores = [dot.psnr for dot in known] or [0.0]
    up = step(max(scores) - min(scores) + 0.2)
    y0, y1 = up * math.floor(min(scores) / up - 0.25), up * math.ceil(max(scores) / up + 0.25)

    def place(milliseconds: float, psnr: float) -> tuple[float, float]:
        x = LEFT + (RIGHT - LEFT) * milliseconds / x1
        return round(x, 1), round(FLOOR - (FLOOR - TOP) * (psnr - y0) / (y1 - y0), 1)

    canvas.text(LEFT, 22, title, "start", title=True)
    canvas.text(LEFT - 6, TOP - 14, "PSNR-Y, dB", "middle", SOFT)
    canvas.text((LEFT + RIGHT) / 2, FLOOR + 36, "milliseconds; area: peak memory", "middle", SOFT)
    for n in range(round((y1 - y0) / up) + 1):
        _, y = place(0, y0 + n * up)
        canvas.line(LEFT, y, RIGHT, y)
        canvas.text(LEFT - 6, y + 4, f"{y0 + n * up:.6g}", "end")
    for n in range(round(x1 / across) + 1):
        x, _ = place(n * across, y0)
        canvas.text(x, FLOOR + 17, f"{n * across:.6g}", "middle")
    most = max((dot.memory or 0 for dot in known), default=0) or 1
    wanted = []
    for i, dot in enumerate(known):
        x, y = place(dot.seconds * 1000, dot.psnr)
        radius = max(SMALLEST, LARGEST * math.sqrt((dot.memory or 0) / most))
        words = dot.label if dot.memory is None else f"{dot.label}, {dot.memory / 2**20:,.0f} MiB"
        measured = f"{dot.psnr:.2f} dB, {dot.seconds * 1000:,.1f} ms"
        canvas.dot(x, y, radius, COLOURS[i % len(COLOURS)], f"{words}: {measured}")
        wanted.append((x, y, radius, words, measured))
    labels: list[tuple[float, float, float]] = []
    for x, y, radius, words, measured in wanted:  # above all dots
        half = LETTER * max(len(words), len(measured)) / 2
        beside = radius + GAP + half
        labels.append(_free(labels, x + beside if x + beside + half <= RIGHT else x - beside, y - 3, half))
        middle, base, _ = labels[-1]
        canvas.text(middle, base, words, "middle")
        canvas.text(middle, base + LINE - 1, measured, "middle", SOFT)


def _free(taken: Sequence[tuple[float, float, float]], x: float, y: float, half: float) -> tuple[float, float, float]:
    """Middle, base line and half the width of a label of two lines, lower than wanted where it would cover another."""
    while any(abs(y - there) < 2 * LINE and abs(x - middle) < half + wide for middle, there, wide in taken):
        y += 1
    return x, y, half


class _Svg:
    def __init__(self) -> None:
        self.drawn: list[str] = []

    def line(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self.drawn.append(f'<path d="M{x0:g} {y0:g}L{x1:g} {y1:g}" stroke="{GRID}"/>')

    def dot(self, x: float, y: float, radius: float, colour: str, told: str) -> None:
        self.drawn.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:.2f}" fill="{colour}" fill-opacity="0.55">'
            f"<title>{escape(told)}</title></circle>"
        )

    def text(self, x: float, y: float, words: str, anchor: Anchor, colour: str = INK, *, title: bool = False) -> None:
        bold = ' font-size="13" font-weight="600"' if title else ""
        self.drawn.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{bold}>{escape(words)}</text>'
        )


class _Png:
    """Drawn four times as large, as Pillow's circles have steps, and made half of that."""

    _ZOOM = 4

    def __init__(self) -> None:
        self._image = Image.new("RGB", (WIDTH * self._ZOOM, HEIGHT * self._ZOOM), PAPER)
        self._pen = ImageDraw.Draw(self._image, "RGBA")

    def line(self, x0: float, y0: float, x1: float, y1: float) -> None:
        zoom = self._ZOOM
        self._pen.line((x0 * zoom, y0 * zoom, x1 * zoom, y1 * zoom), GRID, zoom)

    def dot(self, x: float, y: float, radius: float, colour: str, told: str) -> None:
        zoom = self._ZOOM
        self._pen.ellipse(
            ((x - radius) * zoom, (y - radius) * zoom, (x + radius) * zoom, (y + radius) * zoom), f"{colour}8c"
        )

    def text(self, x: float, y: float, words: str, anchor: Anchor, colour: str = INK, *, title: bool = False) -> None:
        zoom = self._ZOOM
        font = ImageFont.load_default((13 if title else 11) * zoom)
        self._pen.text((x * zoom, y * zoom), words, colour, font, {"start": "ls", "middle": "ms", "end": "rs"}[anchor])

    def finished(self) -> Image.Image:
        return self._image.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.LANCZOS)
