"""A limit on what a student costs, shared out among its levels, in several ways of which the best is for trying out.

No forecast of what a level loses is exact, and which of them is nearest depends on the limit: near the full width it is
the relative error of the features (Eq. 15), far below it what the output notices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from memsr_compiler.student.levels import Teacher
from memsr_compiler.student.statistics.survey import Survey, output_error, relative_error
from memsr_compiler.student.widths.budget import Budget, full_widths, require_affordable, student_cost

NOTHING = 1e-6  # of the output's variance: a level that loses less needs no more channels

Widths = tuple[int, ...]
Curves = Sequence[Tensor]  # for every level what is lost at widths 0, 1, ..., all of them: falling to 0


def shares(teacher: Teacher, seen: Survey, forecast: Curves, budget: Budget, align: int) -> list[Widths]:
    """Widths that meet the budget's limit, all multiples of `align`, no two alike: the candidates.

    Raises InvalidInput for a limit below what the narrowest student costs.
    """
    noticed = errors(seen)
    both = [(a * b).sqrt() for a, b in zip(noticed, forecast, strict=True)]
    relative = [
        torch.where(error < NOTHING * error[0], 0.0, relative_error(m))
        for error, m in zip(noticed, seen.features, strict=True)
    ]
    found = [
        alike(teacher, relative, budget, align),
        alike(teacher, both, budget, align),
        stepwise(teacher, both, budget, align),
        stepwise(teacher, noticed, budget, align),
    ]
    return list(dict.fromkeys(found))


def errors(seen: Survey) -> list[Tensor]:
    """For every level, what the output loses, by the survey."""
    return [output_error(m, s) for m, s in zip(seen.features, seen.sensitivity, strict=True)]


def stepwise(teacher: Teacher, curves: Curves, budget: Budget, align: int) -> Widths:
    """From the full widths down, always where least is lost for what is saved, until the limit is met."""
    sharing = _Sharing.of(teacher, curves, budget, align)
    widths = list(sharing.full)
    now = sharing.spent(widths)
    while now > sharing.limit:
        worth = [sharing.worth(i, widths, now) for i in range(len(widths))]
        best = min(range(len(widths)), key=worth.__getitem__)
        if worth[best] == float("inf"):  # only memory: several levels are at its peak, none alone lowers it
            best = min(sharing.at_peak(widths), key=lambda i: sharing.lost(i, widths[i] - align))
        widths[best] -= align
        now = sharing.spent(widths)
    return sharing.filled(widths)


def alike(teacher: Teacher, curves: Curves, budget: Budget, align: int) -> Widths:
    """Every level loses as little as all of them can, together, within the limit."""
    sharing = _Sharing.of(teacher, curves, budget, align)
    if not curves:  # a single convolution
        return ()
    levels = sorted(set(torch.cat(list(curves)).tolist()))
    low, high = 0, len(levels) - 1  # the smallest loss that can be afforded is at or below `high`
    while low < high:
        middle = (low + high) // 2
        if sharing.spent(sharing.for_loss(levels[middle])) <= sharing.limit:
            high = middle
        else:
            low = middle + 1
    return sharing.filled(sharing.for_loss(levels[high]))


@dataclass(frozen=True)
class _Sharing:
    teacher: Teacher
    curves: Curves
    budget: Budget
    align: int
    full: Widths
    limit: int

    @staticmethod
    def of(teacher: Teacher, curves: Curves, budget: Budget, align: int) -> _Sharing:
        require_affordable(teacher, budget, align)
        assert budget.limit is not None
        return _Sharing(teacher, curves, budget, align, full_widths(teacher, align), budget.limit)

    def spent(self, widths: Sequence[int]) -> int:
        return self.budget.spent(student_cost(self.teacher, widths))

    def lost(self, i: int, width: int) -> float:
        return float(self.curves[i][min(width, len(self.curves[i]) - 1)])

    def for_loss(self, loss: float) -> list[int]:
        """The smallest widths of which no level loses more."""
        steps = ((range(self.align, most + 1, self.align), i) for i, most in enumerate(self.full))
        return [next((w for w in some if self.lost(i, w) <= loss), some[-1]) for some, i in steps]

    def worth(self, i: int, widths: Sequence[int], now: int) -> float:
        """What is lost for each unit saved by narrowing level i."""
        if widths[i] <= self.align:
            return float("inf")
        saved = now - self.spent([*widths[:i], widths[i] - self.align, *widths[i + 1 :]])
        gained = self.lost(i, widths[i] - self.align) - self.lost(i, widths[i])
        return gained / saved if saved > 0 else float("inf")

    def filled(self, widths: Sequence[int]) -> Widths:
        """Wider where that still fits and gains anything, the most for its cost first."""
        widths = list(widths)
        while True:
            now = self.spent(widths)
            best = (0.0, -1)
            for i, width in enumerate(widths):
                gained = self.lost(i, width) - self.lost(i, width + self.align)
                cost = self.spent([*widths[:i], width + self.align, *widths[i + 1 :]])
                if width < self.full[i] and gained > 0 and cost <= self.limit:
                    best = max(best, (gained / max(cost - now, 1e-9), i))
            if best[1] < 0:
                return tuple(widths)
            widths[best[1]] += self.align

    def at_peak(self, widths: Sequence[int]) -> list[int]:
        """Levels that can be narrowed and are next to the layer with the largest maps."""
        every = (self.teacher.input.channels, *widths, self.teacher.levels[-1].channels)
        pairs = [below + after for below, after in pairwise(every)]
        for layer in sorted(range(len(pairs)), key=pairs.__getitem__, reverse=True):
            found = [i for i in (layer - 1, layer) if 0 <= i < len(widths) and widths[i] > self.align]
            if found:
                return found
        raise AssertionError("a limit that the narrowest student meets was not met")
