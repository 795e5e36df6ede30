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

from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.statistics.survey import Survey, output_error, relative_error
from memsr_compiler.student.widths.budget import Budget, full_widths, require_affordable

NOTHING = 1e-6  # of the output's variance: a level that loses less needs no more channels

Widths = tuple[int, ...]
Curves = Sequence[Tensor]  # for every level what is lost at widths 0, 1, ..., all of them: falling to 0


def propose_widths(teacher: LeveledTeacher, seen: Survey, forecast: Curves, budget: Budget, align: int) -> list[Widths]:
    """Propose widths that meet the budget's limit, all multiples of `align`, no two alike.

    Raises InvalidInput for a limit below what the narrowest student costs.
    """
    noticed = output_errors(seen)
    both = [(a * b).sqrt() for a, b in zip(noticed, forecast, strict=True)]
    relative = [
        torch.where(error < NOTHING * error[0], 0.0, relative_error(m))
        for error, m in zip(noticed, seen.features, strict=True)
    ]
    candidates = [
        equalise_losses(teacher, relative, budget, align),
        equalise_losses(teacher, both, budget, align),
        narrow_stepwise(teacher, both, budget, align),
        narrow_stepwise(teacher, noticed, budget, align),
    ]
    return list(dict.fromkeys(candidates))


def output_errors(seen: Survey) -> list[Tensor]:
    """Output's loss by each level's width, as the survey has it."""
    return [output_error(m, s) for m, s in zip(seen.features, seen.sensitivity, strict=True)]


def narrow_stepwise(teacher: LeveledTeacher, curves: Curves, budget: Budget, align: int) -> Widths:
    """Narrow the full widths, always where least is lost for what is saved, until the limit is met."""
    sharing = _Sharing.of(teacher, curves, budget, align)
    widths = list(sharing.full)
    now = sharing.cost(widths)
    while now > sharing.limit:
        worth = [sharing.worth(i, widths, now) for i in range(len(widths))]
        best = min(range(len(widths)), key=worth.__getitem__)
        if worth[best] == float("inf"):  # only memory: several levels are at its peak, none alone lowers it
            best = min(sharing.at_peak(widths), key=lambda i: sharing.loss(i, widths[i] - align))
        widths[best] -= align
        now = sharing.cost(widths)
    return sharing.widen(widths)


def equalise_losses(teacher: LeveledTeacher, curves: Curves, budget: Budget, align: int) -> Widths:
    """Let every level lose as little as all of them can, together, within the limit."""
    sharing = _Sharing.of(teacher, curves, budget, align)
    if not curves:  # a single convolution
        return ()
    levels = sorted(set(torch.cat(list(curves)).tolist()))
    low, high = 0, len(levels) - 1  # the smallest loss that can be afforded is at or below `high`
    while low < high:
        middle = (low + high) // 2
        if sharing.cost(sharing.widths_for_loss(levels[middle])) <= sharing.limit:
            high = middle
        else:
            low = middle + 1
    return sharing.widen(sharing.widths_for_loss(levels[high]))


@dataclass(frozen=True)
class _Sharing:
    """A limit, and what levels cost and lose."""

    teacher: LeveledTeacher
    curves: Curves
    budget: Budget
    align: int
    full: Widths
    limit: float

    @staticmethod
    def of(teacher: LeveledTeacher, curves: Curves, budget: Budget, align: int) -> _Sharing:
        require_affordable(teacher, budget, align)
        assert budget.limit is not None
        return _Sharing(teacher, curves, budget, align, full_widths(teacher, align), budget.limit)

    def cost(self, widths: Sequence[int]) -> float:
        return self.budget.measure(self.teacher, widths)

    def loss(self, i: int, width: int) -> float:
        return float(self.curves[i][min(width, len(self.curves[i]) - 1)])

    def widths_for_loss(self, loss: float) -> list[int]:
        """Smallest widths of which no level loses more."""
        steps = ((range(self.align, most + 1, self.align), i) for i, most in enumerate(self.full))
        return [next((w for w in some if self.loss(i, w) <= loss), some[-1]) for some, i in steps]

    def worth(self, i: int, widths: Sequence[int], now: float) -> float:
        """Loss for each unit saved by narrowing level i."""
        if widths[i] <= self.align:
            return float("inf")
        saved = now - self.cost([*widths[:i], widths[i] - self.align, *widths[i + 1 :]])
        gained = self.loss(i, widths[i] - self.align) - self.loss(i, widths[i])
        return gained / saved if saved > 0 else float("inf")

    def widen(self, widths: Sequence[int]) -> Widths:
        """Widen where that still fits and gains anything, the most for its cost first."""
        widths = list(widths)
        while True:
            now = self.cost(widths)
            best = (0.0, -1)
            for i, width in enumerate(widths):
                gained = self.loss(i, width) - self.loss(i, width + self.align)
                cost = self.cost([*widths[:i], width + self.align, *widths[i + 1 :]])
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
            levels = [i for i in (layer - 1, layer) if 0 <= i < len(widths) and widths[i] > self.align]
            if levels:
                return levels
        raise AssertionError("a limit that the narrowest student meets was not met")
