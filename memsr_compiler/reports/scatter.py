"""Quality, time and memory of networks in one picture, MemSR's Figure 1: as SVG text, or as PNG.

What has no finite PSNR has no place and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memsr_compiler.reports.axes import Frame, choose_step
from memsr_compiler.reports.canvas import Canvas, PngCanvas, SvgCanvas
from memsr_compiler.reports.colours import SERIES, SOFT

LEFT, TOP, RIGHT, FLOOR = 64, 52, 616, 366  # of the plot, in pixels
LARGEST, SMALLEST = 24.0, 3.0  # radius of a dot
LINE, LETTER = 14, 6  # pixels from a line of text to the next, and of a letter, about
GAP = 5  # pixels from a dot to its label


@dataclass(frozen=True)
class Dot:
    """A network: what to call it, seconds, PSNR in dB, bytes that are the dot's area (None: unknown, the least)."""

    label: str
    seconds: float
    psnr: float
    memory: int | None


def draw_scatter_svg(dots: Sequence[Dot], title: str) -> str:
    """The picture as SVG, a file that needs no style sheet."""
    canvas = SvgCanvas()
    _draw(canvas, dots, title)
    return canvas.finish(title)


def draw_scatter_png(dots: Sequence[Dot], title: str) -> bytes:
    """The picture as PNG, twice as large."""
    canvas = PngCanvas()
    _draw(canvas, dots, title)
    return canvas.finish()


def _draw(canvas: Canvas, dots: Sequence[Dot], title: str) -> None:
    known = [dot for dot in dots if math.isfinite(dot.psnr)]
    longest = max([1e-3, *(dot.seconds * 1000 for dot in known)])
    across = choose_step(longest)
    x1 = across * math.ceil(longest / across + 0.25)  # room for the last dot and its label
    scores = [dot.psnr for dot in known] or [0.0]
    up = choose_step(max(scores) - min(scores) + 0.2)
    y0, y1 = up * math.floor(min(scores) / up - 0.25), up * math.ceil(max(scores) / up + 0.25)
    frame = Frame(LEFT, TOP, RIGHT, FLOOR, 0, x1, y0, y1)
    canvas.text(LEFT, 22, title, "start", title=True)
    _draw_axes(canvas, frame, across, up)
    _draw_dots(canvas, frame, known)


def _draw_axes(canvas: Canvas, frame: Frame, across: float, up: float) -> None:
    canvas.text(LEFT - 6, TOP - 14, "PSNR-Y, dB", "middle", SOFT)
    canvas.text((LEFT + RIGHT) / 2, FLOOR + 36, "milliseconds; area: peak memory", "middle", SOFT)
    for n in range(round((frame.y1 - frame.y0) / up) + 1):
        y = frame.y(frame.y0 + n * up)
        canvas.line(LEFT, y, RIGHT, y)
        canvas.text(LEFT - 6, y + 4, f"{frame.y0 + n * up:.6g}", "end")
    for n in range(round(frame.x1 / across) + 1):
        canvas.text(frame.x(n * across), FLOOR + 17, f"{n * across:.6g}", "middle")


def _draw_dots(canvas: Canvas, frame: Frame, dots: Sequence[Dot]) -> None:
    """All dots, and above them all labels: what it is, and its numbers."""
    most = max((dot.memory or 0 for dot in dots), default=0) or 1
    wanted = []
    for i, dot in enumerate(dots):
        x, y = frame.x(dot.seconds * 1000), frame.y(dot.psnr)
        radius = max(SMALLEST, LARGEST * math.sqrt((dot.memory or 0) / most))
        words = dot.label if dot.memory is None else f"{dot.label}, {_mebibytes(dot.memory)}"
        measured = f"{dot.psnr:.2f} dB, {dot.seconds * 1000:,.1f} ms"
        colour = SERIES[i % len(SERIES)]
        canvas.dot(x, y, radius, colour, f"{words}: {measured}")
        wanted.append((x, y, radius, colour, words, measured))
    labels: list[tuple[float, float, float]] = []
    wanted.sort(key=lambda dot: dot[1])  # labels in the order of their dots
    for x, y, radius, colour, words, measured in wanted:
        half = LETTER * max(len(words), len(measured)) / 2
        beside = radius + GAP + half
        sides = [at for at in (x + beside, x - beside) if at - half >= LEFT and at + half <= RIGHT] or [x - beside]
        labels.append(_find_place(labels, sides, y - 3, half))
        middle, base, _ = labels[-1]
        if base - y > LINE:  # no longer beside its dot
            canvas.line(x, y, middle - half if middle > x else middle + half, base - LETTER / 2, colour)
        canvas.text(middle, base, words, "middle")
        canvas.text(middle, base + LINE - 1, measured, "middle", SOFT)


def _mebibytes(memory: int) -> str:
    size = memory / 2**20
    return f"{size:,.0f} MiB" if size >= 1 else f"{size:.1f} MiB"


def _find_place(
    occupied: Sequence[tuple[float, float, float]], sides: Sequence[float], y: float, half: float
) -> tuple[float, float, float]:
    """Middle, base line and half the width of a label of two lines, lower than wanted where it would cover another.

    sides   middles to choose from, the better first
    """
    while True:
        for x in sides:
            if all(abs(y - there) >= 2 * LINE or abs(x - middle) >= half + wide for middle, there, wide in occupied):
                return x, y, half
        y += 1
