"""What no forecast tells, tried on some of the crops: which widths, and how many ReLUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from memsr_compiler.student.crops import sample_count
from memsr_compiler.student.data_aware import PREFERENCE, PREFERENCE_REFIT, data_aware_student
from memsr_compiler.student.levels import Teacher
from memsr_compiler.student.refit import refit_to_output
from memsr_compiler.student.statistics.survey import Survey
from memsr_compiler.student.widths.budget import Budget, full_widths
from memsr_compiler.student.widths.forecast import forecast
from memsr_compiler.student.widths.share_limit import Widths, shares

SHARE = 4  # one in so many batches to derive from; by the others it is judged
PREFERENCES = (PREFERENCE, PREFERENCE_REFIT)
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

    inputs     batches (N, C, H, W);   seen   the survey of them
    refitted   the student will be: then each way counts with the number of ReLUs that suits it best (`preference`)

    Raises InvalidInput for a limit below what the narrowest student costs, and as data_aware_student does.
    """
    few, others = _parts(teacher, inputs, full_widths(teacher, align))
    ways = shares(teacher, seen, forecast(teacher, few, seen, align, on_step), budget, align)
    if len(ways) == 1:
        return ways[0]
    losses = []
    for number, widths in enumerate(ways, 1):
        if on_step is not None:
            on_step(f"trying widths, {number} of {len(ways)}")
        tried = PREFERENCES if refitted else PREFERENCES[:1]
        losses.append(min(_loss(teacher, few, others, seen, widths, each) for each in tried))
    return ways[min(range(len(ways)), key=losses.__getitem__)]


def preference(
    teacher: Teacher,
    inputs: Sequence[Tensor],
    seen: Survey,
    widths: Sequence[int],
    on_step: Callable[[str], None] | None = None,
) -> float:
    """How much a ReLU is to count (`selection.choose`) in a student that will be refitted.

    The more the better for the refit, which can turn a ReLU, and not a linear channel; but a student too narrow for its
    teacher needs its channels for what is carried, and no refit brings that back.
    """
    if on_step is not None:
        on_step("trying how many ReLUs to take")
    few, others = _parts(teacher, inputs, widths)
    return min(PREFERENCES, key=lambda each: _loss(teacher, few, others, seen, widths, each))


def _parts(teacher: Teacher, inputs: Sequence[Tensor], widths: Sequence[int]) -> tuple[Sequence[Tensor], ...]:
    """Some batches to derive from, and others to judge by."""
    levels = zip(widths, teacher.kernels[1:], strict=True)
    unknowns = max((width * kernel**2 for width, kernel in levels), default=1)
    few, others = inputs[::SHARE], [batch for i, batch in enumerate(inputs) if i % SHARE]
    return (few, others) if others and sample_count(few) >= ENOUGH * unknowns else (inputs, inputs)


def _loss(
    teacher: Teacher,
    few: Sequence[Tensor],
    others: Sequence[Tensor],
    seen: Survey,
    widths: Sequence[int],
    preference: float,
) -> float:
    """Mean squared difference to the teacher's output, of the student as derived layer by layer."""
    student = data_aware_student(teacher, few, seen, widths, preference=preference)
    return refit_to_output(teacher, student.kernels, others, 0).losses[0]
