"""Trials on some of the crops of what no forecast tells: which widths, and how many ReLUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from memsr_compiler.student.crops import count_pixels
from memsr_compiler.student.data_aware import PREFERENCE, PREFERENCE_REFIT, derive_data_aware
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.refit import refit, run_teacher
from memsr_compiler.student.report import LevelsKept
from memsr_compiler.student.statistics.survey import Survey
from memsr_compiler.student.widths.budget import Budget, choose_widths, equal_widths, full_widths, is_affordable
from memsr_compiler.student.widths.forecast import forecast
from memsr_compiler.student.widths.kept_levels import best_levels, even_levels, missed_relus
from memsr_compiler.student.widths.share_limit import Widths, propose_widths

SHARE = 4  # one in so many batches to derive from; by the others it is judged
PREFERENCES = (PREFERENCE, PREFERENCE_REFIT)
ENOUGH = 4  # times as many pixels as unknowns; else all batches, for both


def find_best_widths(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    seen: Survey,
    budget: Budget,
    align: int,
    *,
    refitted: bool = True,
    on_step: Callable[[str], None] | None = None,
) -> Widths:
    """Find the best way of sharing out a limit, by the output's error of students derived layer by layer.

    inputs     batches (N, C, H, W);   seen   the survey of them
    refitted   the student will be: then each way counts with the number of ReLUs that suits it best (`find_preference`)

    Raises InvalidInput for a limit below what the narrowest student costs, and as derive_data_aware does.
    """
    few, others = _part_batches(teacher, inputs, full_widths(teacher, align))
    ways = propose_widths(teacher, seen, forecast(teacher, few, seen, align, on_step), budget, align)
    if len(ways) == 1:
        return ways[0]
    losses = []
    for number, widths in enumerate(ways, 1):
        if on_step is not None:
            on_step(f"trying widths, {number} of {len(ways)}")
        tried = PREFERENCES if refitted else PREFERENCES[:1]
        losses.append(min(_losses(teacher, few, others, seen, [(widths, each) for each in tried])))
    return ways[min(range(len(ways)), key=losses.__getitem__)]


def find_depth(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    seen: Survey,
    budget: Budget,
    align: int,
    on_step: Callable[[str], None] | None = None,
) -> int:
    """Find how many inner levels a student within a limit is to keep, by trying equal widths at several depths.

    From all of them down, until what is shallower is no nearer to the teacher's output twice in a row.

    inputs   batches (N, C, H, W);   seen   the survey of them
    """
    inner = len(teacher.levels) - 1
    missed: tuple[float, ...] = ()
    best, worse = (float("inf"), inner), 0
    for count in _depths(inner):
        shallow = teacher.widest(count + 1)
        if not is_affordable(shallow, budget, align):
            continue
        if on_step is not None:
            on_step(f"trying {count + 1} layers of {inner + 1}")
        missed = missed or missed_relus(teacher, inputs, on_step)
        kept = best_levels(missed, count)
        shallow, of_kept = teacher.keep(kept), seen.keep(kept)
        widths = equal_widths(shallow, budget, align)
        if shallow.whole and widths == full_widths(shallow, align):
            return inner  # all of the teacher is within the limit
        few, others = _part_batches(shallow, inputs, widths)
        (loss,) = _losses(shallow, few, others, of_kept, [(widths, PREFERENCE_REFIT)])
        worse = worse + 1 if loss > best[0] else 0
        best = min(best, (loss, count))
        if worse == 2:
            break
    return best[1]


def _depths(inner: int) -> list[int]:
    """Numbers of inner levels to try: all of them, then each time a quarter less, or one."""
    counts = [inner]
    while counts[-1] > 1:
        counts.append(min(round(0.75 * counts[-1]), counts[-1] - 1))
    return counts


def find_levels(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    seen: Survey,
    count: int,
    budget: Budget,
    align: int,
    on_step: Callable[[str], None] | None = None,
) -> LevelsKept:
    """Find the `count` inner levels that a student of fewer layers is to keep: by what is missed, or evenly.

    inputs   batches (N, C, H, W);   seen   the survey of them;   budget, align   of the widths
    """
    missed = missed_relus(teacher, inputs, on_step)
    proposed, even = best_levels(missed, count), even_levels(len(missed), count)
    if proposed == even:
        return LevelsKept(even, even, missed)
    losses = []
    for number, kept in enumerate((proposed, even), 1):
        if on_step is not None:
            on_step(f"trying levels, {number} of 2")
        shallow, of_kept = teacher.keep(kept), seen.keep(kept)
        limited = budget.limit is not None
        widths = equal_widths(shallow, budget, align) if limited else choose_widths(shallow, of_kept, budget, align)
        few, others = _part_batches(shallow, inputs, widths)
        losses += _losses(shallow, few, others, of_kept, [(widths, PREFERENCE_REFIT)])
    return LevelsKept(even if losses[1] < losses[0] else proposed, even, missed, tuple(losses))


def find_preference(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    seen: Survey,
    widths: Sequence[int],
    on_step: Callable[[str], None] | None = None,
) -> float:
    """Find how much a ReLU is to count (`selection.choose`) in a student that will be refitted.

    The more the better for the refit, which can turn a ReLU, and not a linear channel; but a student too narrow for its
    teacher needs its channels for what is carried, and no refit brings that back.
    """
    if on_step is not None:
        on_step("trying how many ReLUs to take")
    few, others = _part_batches(teacher, inputs, widths)
    losses = _losses(teacher, few, others, seen, [(widths, each) for each in PREFERENCES])
    return PREFERENCES[losses.index(min(losses))]


def _part_batches(
    teacher: LeveledTeacher, inputs: Sequence[Tensor], widths: Sequence[int]
) -> tuple[Sequence[Tensor], ...]:
    """Part the batches in some to derive from, and others to judge by."""
    levels = zip(widths, teacher.kernels[1:], strict=True)
    unknowns = max((width * kernel**2 for width, kernel in levels), default=1)
    few, others = inputs[::SHARE], [batch for i, batch in enumerate(inputs) if i % SHARE]
    return (few, others) if others and count_pixels(few) >= ENOUGH * unknowns else (inputs, inputs)


def _losses(
    teacher: LeveledTeacher,
    few: Sequence[Tensor],
    others: Sequence[Tensor],
    seen: Survey,
    students: Sequence[tuple[Sequence[int], float]],
) -> list[float]:
    """Mean squared difference to the teacher's output of students as derived layer by layer.

    few, others   batches to derive from, and to judge by;   students   their widths, and how much a ReLU is to count
    """
    losses = []
    with run_teacher(teacher, others) as judged:
        for widths, preference in students:
            student = derive_data_aware(teacher, few, seen, widths, preference=preference)
            losses.append(refit(student.kernels, judged, 0).losses[0])
    return losses
