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
from memsr_compiler.reports.labels import LINE, Label, find_place

LEFT, TOP, RIGHT, FLOOR = _PLOT = 64, 52, 616, 366  # of the plot, in pixels
LARGEST, SMALLEST = 24.0, 3.0  # radius of a dot
LETTER = 6  # pixels, about
FAR = 10  # times as long as the quickest: from there on times are drawn by their logarithms


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


@dataclass(frozen=True)
class _Times:
    """The axis of times: its marks in milliseconds, the first and the last at its ends."""

    marks: Sequence[float]
    logarithmic: bool

    def place(self, milliseconds: float) -> float:
        """A time as a number that is drawn evenly."""
        return math.log10(milliseconds) if self.logarithmic else milliseconds


def _choose_times(seconds: Sequence[float]) -> _Times:
    """The axis on which these have room, and the label of the last one."""
    known = [1000 * time for time in seconds if time > 0] or [1.0]
    shortest, longest = min(known), max(known)
    if len(known) == len(seconds) and longest > FAR * shortest:
        powers = range(math.floor(math.log10(shortest)), math.ceil(math.log10(longest)) + 2)
        steps = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        first = max(i for i, step in enumerate(steps) if step <= shortest)
        last = min(i for i, step in enumerate(steps) if step >= 1.5 * longest)
        return _Times(steps[first : last + 1], logarithmic=True)
    across = choose_step(longest)
    return _Times([n * across for n in range(math.ceil(longest / across + 0.25) + 1)], logarithmic=False)


def _draw(canvas: Canvas, dots: Sequence[Dot], title: str) -> None:
    known = [dot for dot in dots if math.isfinite(dot.psnr)]
    times = _choose_times([dot.seconds for dot in known])
    scores = [dot.psnr for dot in known] or [0.0]
    up = choose_step(max(scores) - min(scores) + 0.2)
    y0, y1 = up * math.floor(min(scores) / up - 0.25), up * math.ceil(max(scores) / up + 0.25)
    x0, x1 = times.place(times.marks[0]), times.place(times.marks[-1])
    frame = Frame(LEFT, TOP, RIGHT, FLOOR, x0, x1, y0, y1)
    canvas.text(LEFT, 22, title, "start", title=True)
    _draw_axes(canvas, frame, times, up, memory=any(dot.memory is not None for dot in known))
    _draw_dots(canvas, frame, times, known)


def _draw_axes(canvas: Canvas, frame: Frame, times: _Times, up: float, *, memory: bool) -> None:
    canvas.text(LEFT - 6, TOP - 14, "PSNR-Y, dB", "middle", SOFT)
    how = ", by their logarithms" if times.logarithmic else ""
    area = "; area: peak memory" if memory else ""
    canvas.text((LEFT + RIGHT) / 2, FLOOR + 36, f"milliseconds{how}{area}", "middle", SOFT)
    for n in range(round((frame.y1 - frame.y0) / up) + 1):
        y = frame.y(frame.y0 + n * up)
        canvas.line(LEFT, y, RIGHT, y)
        canvas.text(LEFT - 6, y + 4, f"{frame.y0 + n * up:.6g}", "end")
    for mark in times.marks:
        canvas.text(frame.x(times.place(mark)), FLOOR + 17, f"{mark:.6g}", "middle")


def _draw_dots(canvas: Canvas, frame: Frame, times: _Times, dots: Sequence[Dot]) -> None:
    """All dots, and above them all labels: what it is, and its numbers."""
    most = max((dot.memory or 0 for dot in dots), default=0) or 1
    wanted = []
    for i, dot in enumerate(dots):
        x, y = frame.x(times.place(dot.seconds * 1000)), frame.y(dot.psnr)
        radius = max(SMALLEST, LARGEST * math.sqrt((dot.memory or 0) / most))
        words = dot.label if dot.memory is None else f"{dot.label}, {_mebibytes(dot.memory)}"
        measured = f"{dot.psnr:.2f} dB, {dot.seconds * 1000:,.1f} ms"
        colour = SERIES[i % len(SERIES)]
        canvas.dot(x, y, radius, colour, f"{words}: {measured}")
        wanted.append((x, y, radius, colour, words, measured))
    dots_drawn = [(x, y, radius) for x, y, radius, *_ in wanted]
    labels: list[Label] = []
    for x, y, radius, colour, words, measured in sorted(wanted, key=lambda dot: dot[1]):  # labels in their order
        half = LETTER * max(len(words), len(measured)) / 2
        label = find_place(labels, dots_drawn, (x, y, radius), half, _PLOT)
        if label.tie is not None:
            canvas.line(x, y, *label.tie, colour)
        canvas.text(label.middle, label.base, words, "middle")
        canvas.text(label.middle, label.base + LINE - 1, measured, "middle", SOFT)
        labels.append(label)


def _mebibytes(memory: int) -> str:
    size = memory / 2**20
    return f"{size:,.0f} MiB" if size >= 1 else f"{size:.1f} MiB"
