"""Where the labels of a plot's dots stand: near, covering nothing, and tied by lines that cross no label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

LINE = 14  # pixels from a line of text to the next
GAP = 5  # pixels from a dot to its label
_ACROSS, _DOWN = 12, 4  # pixels between the places that are tried
_PIECES = 40  # in which a tie is looked at

Dot = tuple[float, float, float]
"""Middle and radius."""
Point = tuple[float, float]
Plot = tuple[int, int, int, int]
"""Left, top, right and floor."""


@dataclass(frozen=True)
class Label:
    """Two lines of text: their middle, the first's base line, half their width, and the dot that they name."""

    middle: float
    base: float
    half: float
    dot: Dot

    @property
    def tie(self) -> Point | None:
        """Where a line from the dot ends; None where the label is beside its dot."""
        x, y, radius = self.dot
        if abs(self.base - y) <= LINE and self.distance(x, y) <= radius + 2 * GAP:
            return None
        return self._nearest(x, y)

    def distance(self, x: float, y: float) -> float:
        """Pixels from a point to the label's rectangle."""
        return math.dist(self._nearest(x, y), (x, y))

    def _nearest(self, x: float, y: float) -> Point:
        """The point of the label's rectangle that is nearest to one."""
        top, floor = self.base + 2 - LINE, self.base + 2 + LINE
        return min(max(x, self.middle - self.half), self.middle + self.half), min(max(y, top), floor)

    def covers(self, other: Label) -> bool:
        """Whether they meet."""
        return self._aside(other) < 0 and abs(self.base - other.base) < 2 * LINE

    def is_out_of_order(self, other: Label) -> bool:
        """Whether this stands above the label of a dot that is above its own, or level with it, in one column."""
        (x, _, radius), (there, _, wide) = self.dot, other.dot
        return abs(x - there) < radius + wide and self._aside(other) < 0 and self.base < other.base

    def crosses(self, other: Label) -> bool:
        """Whether the tie of one runs through the other."""
        return any(b.distance(*point) == 0 for a, b in ((self, other), (other, self)) for point in a._along_tie())

    def _aside(self, other: Label) -> float:
        return abs(self.middle - other.middle) - self.half - other.half

    def _along_tie(self) -> Iterator[Point]:
        (x, y, _), end = self.dot, self.tie
        if end is not None:
            for i in range(_PIECES):
                yield x + (end[0] - x) * i / _PIECES, y + (end[1] - y) * i / _PIECES


def find_place(labels: Sequence[Label], dots: Sequence[Dot], dot: Dot, half: float, plot: Plot) -> Label:
    """The nearest place for a dot's label that covers no label and no dot, and where no tie runs through a label.

    labels   of dots that are not below this one;   half   of the width of what is to be placed
    Where the plot is full, it covers dots, or ties cross labels too; where it is full of labels, it stands below.
    """
    places = sorted(_try(dot, half, plot), key=lambda label: label.distance(*dot[:2]))
    free = [p for p in places if not any(p.covers(other) or p.is_out_of_order(other) for other in labels)]
    untied = (p for p in free if not any(p.crosses(other) for other in labels))
    clear = (p for p in free if all(p.distance(x, y) >= radius for x, y, radius in dots))
    tidy = (p for p in clear if not any(p.crosses(other) for other in labels))
    x, floor = dot[0], plot[3]
    below = (Label(x, floor + LINE * i, half, dot) for i in range(2 * len(labels) + 2))
    last = next(p for p in below if not any(p.covers(other) for other in labels))
    return next(chain(tidy, untied, free), last)


def _try(dot: Dot, half: float, plot: Plot) -> Iterator[Label]:
    """Places in the plot: beside the dot first, the right side before the left."""
    x, y, radius = dot
    left, top, right, floor = plot
    beside = radius + GAP + half
    for middle in (x + beside, x - beside):
        if left <= middle - half and middle + half <= right:
            yield Label(middle, y - 3, half, dot)
    for base in range(top, floor - LINE, _DOWN):
        for start in range(left, round(right - 2 * half), _ACROSS):
            label = Label(start + half, base, half, dot)
            if label.distance(x, y) >= radius + GAP:
                yield label
