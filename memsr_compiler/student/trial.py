"""Candidates for the widths of a student, tried on some of the crops: the one nearest to the teacher is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from memsr_compiler.student.budget import Budget, full_widths
from memsr_compiler.student.calibration import sample_count
from memsr_compiler.student.data_aware import data_aware_student
from memsr_compiler.student.forecast import forecast
from memsr_compiler.student.levels import Teacher
from memsr_compiler.student.refit import refit_to_output
from memsr_compiler.student.sharing import Widths, shares
from memsr_compiler.student.survey import Survey

SHARE = 4  # one in so many batches to derive from, and another to judge by
ENOUGH = 4  # times as many pixels as unknowns; else all batches, for both


def best_widths(
    teacher: Teacher,
    inputs: Sequence[Tensor],
    seen: Survey,
    budget: Budget,
    align: int,
    *,
    refitted: bool = True,
    on_step: Callable[[str], None] | None = None,
) -> Widths:
    """The best way found of sharing out a limit, by the output's error of students derived layer by layer.

    inputs   batches (N, C, H, W);   seen   the survey of them;   refitted   see data_aware_student

    Raises InvalidInput for a limit below what the narrowest student costs, and as data_aware_student does.
    """
    levels = zip(full_widths(teacher, align), teacher.kernels[1:], strict=True)
    unknowns = max((width * kernel**2 for width, kernel in levels), default=1)
    few, others = inputs[::SHARE], inputs[SHARE // 2 :: SHARE]
    if not others or sample_count(few) < ENOUGH * unknowns:
        few = others = inputs
    ways = shares(teacher, seen, forecast(teacher, few, seen, align, on_step), budget, align)
    if len(ways) == 1:
        return ways[0]
    losses = []
    for number, widths in enumerate(ways, 1):
        if on_step is not None:
            on_step(f"trying widths, {number} of {len(ways)}")
        student = data_aware_student(teacher, few, seen, widths, refitted=refitted)
        losses.append(refit_to_output(teacher, student.kernels, others, 0).losses[0])
    return ways[min(range(len(ways)), key=losses.__getitem__)]
