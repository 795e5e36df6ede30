"""Axes of charts: steps that are round, and where numbers are in a drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memsr_compiler.reports.drawing import Drawing


def choose_step(highest: float) -> float:
    """A round distance between grid lines, about five of them, from 0 to `highest` > 0."""
    power: float = 10.0 ** math.floor(math.log10(highest / 4))
    return next(f * power for f in (1, 2, 5, 10) if highest <= 5 * f * power)


def choose_whole_step(highest: int) -> int:
    """A round distance between grid lines, about five of them, on an axis of whole numbers."""
    return max(1, round(choose_step(highest)))


def choose_pitch(count: int) -> int:
    """Pixels from bar to bar, or from dot to dot, of so many: between them fits a number of three digits."""
    return max(32, min(72, 1100 // count))


@dataclass(frozen=True)
class Frame:
    """Places of numbers in a drawing: pixels of the plot's edges, and the values at them."""

    left: float
    top: float
    right: float
    floor: float
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        """Pixels from the left to a value."""
        return round(self.left + (self.right - self.left) * (value - self.x0) / (self.x1 - self.x0), 1)

    def y(self, value: float) -> float:
        """Pixels from the top to a value."""
        return round(self.floor - (self.floor - self.top) * (value - self.y0) / (self.y1 - self.y0), 1)

    def draw_grid(self, lines: Sequence[tuple[float, str]]) -> str:
        """Horizontal lines with their numbers on the left."""
        paths = "".join(f'<path class="grid" d="M{self.left} {self.y(value)}H{self.right}"/>' for value, _ in lines)
        return paths + self.draw_numbers(lines)

    def draw_numbers(self, lines: Sequence[tuple[float, str]]) -> str:
        """The numbers on the left alone."""
        return "".join(
            f'<text class="tick" x="{self.left - 6}" y="{self.y(value) + 4}">{text}</text>' for value, text in lines
        )

    def enclose(
        self, kind: str, label: str, width: float, lines: Sequence[tuple[float, str]], drawn: Sequence[str]
    ) -> Drawing:
        """The chart of what is drawn in this frame; the numbers of its grid lines stay in view."""
        axis = (self.left - 4, self.draw_numbers(lines))
        return Drawing(f"chart {kind}", label, width, self.floor + 20, "".join(drawn), axis)


def join_points(places: Sequence[tuple[float, float]]) -> str:
    """Places as the points of a <polyline>."""
    return " ".join(f"{x:g},{y:g}" for x, y in places)
