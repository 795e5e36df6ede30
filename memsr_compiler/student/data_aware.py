"""A student derived layer by layer from what it really computes itself (beyond MemSR; see docs/shrink.md).

Each layer's channels are ReLUs of the teacher, which stay ReLUs, or linear directions, shifted so that the student's
ReLU does not clip them; which, is chosen by how much the output would notice (`selection`, `survey`).  Their kernels
are the regression of the teacher's values on the student's own features below, so each layer makes up for what the
ones before it lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.quantities import say_count
from memsr_compiler.student.crops import count_pixels, find_range
from memsr_compiler.student.levels import Level, LeveledTeacher
from memsr_compiler.student.report import Kernel
from memsr_compiler.student.selection import choose
from memsr_compiler.student.statistics.distributed import (
    min_over_processes,
    share,
    sum_over_processes,
    sum_regression,
)
from memsr_compiler.student.statistics.moments import Regression, cross_taps, pixels
from memsr_compiler.student.statistics.spill import Spool
from memsr_compiler.student.statistics.survey import Survey, metric_root
from memsr_compiler.student.statistics.tap_products import TapGrid

RIDGE = 1e-6
MARGIN = 1.0  # of a linear channel's range, below the smallest value met: unseen images go further
PREFERENCE = 2.0  # see `selection.choose`: the best that was found for a student that stays as it is
PREFERENCE_REFIT = 4.0  # for one that will be refitted, where that is no worse before: `trial.find_preference`
CHOICE = 100_000  # pixels, at least, by which channels are chosen: their values are fitted to all
INPUT = "student"  # the student's own features, among the teacher's values


@dataclass(frozen=True)
class Student:
    """A chain of layers, and how many of their channels are the teacher's ReLUs.

    kernels   of every layer, the last without ReLU
    relus     how many of each layer's channels, the first ones, are ReLUs of the teacher; not for the last
    """

    kernels: tuple[Kernel, ...]
    relus: tuple[int, ...]


def derive_data_aware(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    seen: Survey,
    widths: Sequence[int],
    *,
    preference: float = PREFERENCE,
    on_step: Callable[[str], None] | None = None,
) -> Student:
    """Derive a student with these widths, one for each level but the last.

    inputs      batches (N, C, H, W);   seen   the survey of the same batches
    preference  for ReLUs, see `selection.choose`

    A level as wide as the teacher's holds all its ReLUs and values, not a selection; with a channel more also a channel
    of ones, so that borders are exact.  Raises InvalidInput where there are fewer pixels than unknowns.
    """
    require_samples(teacher, inputs, widths)
    kernels: list[Kernel] = []
    relus: list[int] = []
    stride = max(count_pixels(inputs) // CHOICE, 1)
    with Spool() as batches, torch.no_grad():
        for batch in share(inputs):
            single = batch.float().contiguous(memory_format=torch.channels_last)
            batches.append({INPUT: single, **teacher.start(single)})
        for level in teacher.levels:
            if on_step is not None:
                on_step(f"layer {level.number} of {len(teacher.levels)}")
            width = len(kernels[-1][1]) if kernels else teacher.input.channels
            exact = all(w >= lower.channels for w, lower in zip(widths, teacher.levels[: len(kernels)], strict=False))
            below = _advance(teacher, level, batches, width, stride, torch.float64 if exact else torch.float32)
            if level is teacher.levels[-1]:
                kernels.append(below.kernel(below.before))
                break
            i = level.number - 1
            rows, chosen = _choose_rows(level, below, batches, seen.sensitivity[i], widths[i], preference, stride)
            kernel = _raise_linear(below.kernel(rows), chosen, batches)
            kernels.append(_fill_up(kernel, level, widths[i]))
            relus.append(chosen)
            _apply(kernels[-1], batches)
    return Student(tuple(kernels), tuple(relus))


def require_samples(teacher: LeveledTeacher, inputs: Sequence[Tensor], widths: Sequence[int]) -> None:
    """Raise InvalidInput unless there are at least as many pixels as unknowns in every regression."""
    available = count_pixels(inputs)
    for level, below in zip(teacher.levels, (teacher.input.channels, *widths), strict=True):
        unknowns = below * level.kernel**2 + 1
        if available < unknowns:
            raise InvalidInput(
                f"layer {level.number} has {unknowns} unknowns for each channel, and the calibration images have "
                f"{say_count(available, 'pixel')}: {unknowns - available} more are needed; give more or "
                "larger images, or raise --samples"
            )


@dataclass(frozen=True)
class _Below:
    """Regressions of a level's values on the student's features below.

    before   (C, I) rows that predict the teacher's values before the ReLU;  after   (C, I) behind it
    some     sums for both, over the batches by which channels are chosen
    """

    size: int
    before: Tensor
    after: Tensor
    some: Regression

    def kernel(self, rows: Tensor) -> Kernel:
        weight = rows[:, :-1].reshape(len(rows), -1, self.size, self.size)
        return weight.contiguous(), rows[:, -1].clone()


def _advance(
    teacher: LeveledTeacher, level: Level, batches: Spool, width: int, stride: int, dtype: torch.dtype
) -> _Below:
    """Take the teacher one level on, in every batch, and regress that level on the student's `width` channels below.

    stride  one in so many batches is for choosing channels
    dtype   of products: float64 where the regression could be exact, float32 where the rounding is the least of it
    """
    relus = level.relu.nonzero()[:, 0]  # only these differ before and after
    unknowns = width * level.kernel**2 + 1
    some = rest = Regression.none(unknowns, level.channels + len(relus))
    for i, batch in enumerate(batches):
        own = batch.pop(INPUT)
        features = teacher.advance(level, batch)
        sums = Regression.of_taps(own.to(dtype), level.kernel, *(target.to(dtype) for target in features.targets))
        if i % stride:
            rest += sums
        else:
            some += sums
        batches[i] = {INPUT: own, **features.values}
    some = sum_regression(some)
    rows = (some + sum_regression(rest)).solve(RIDGE)
    return _Below(level.kernel, rows[: level.channels], _behind(rows, level), some)


def _behind(both: Tensor, level: Level) -> Tensor:
    """Rows for the values behind the ReLUs, of rows for those before and then those behind, where they are."""
    after = both[: level.channels].clone()
    after[level.relu] = both[level.channels :]
    return after


def _convolve(kernel: Kernel, features: Tensor) -> Tensor:
    weight, bias = (part.to(features) for part in kernel)
    return F.conv2d(features, weight, bias, padding=weight.shape[-1] // 2)


def _choose_rows(
    level: Level, below: _Below, batches: Spool, sensitivity: Tensor, width: int, preference: float, stride: int
) -> tuple[Tensor, int]:
    """Choose the layer's channels, as rows on the taps below: first ReLUs, then linear channels; say how many ReLUs.

    stride   one in so many batches is looked at
    """
    relus = level.relu.nonzero()[:, 0]
    if width >= level.channels:
        return torch.cat([below.before[relus], below.before[~level.relu]]), len(relus)
    linear = torch.cat([below.before[relus], below.after])
    fired = Regression.none(len(relus), level.channels)
    taken = below.some.inputs.total.new_zeros(linear.shape[1], len(relus))
    for i in range(0, len(batches) if len(relus) else 0, stride):
        batch = batches[i]
        candidates = _convolve(below.kernel(linear[: len(relus)]), batch[INPUT]).relu_()
        fired += Regression.of(pixels(candidates), pixels(torch.cat([batch[name] for name in level.held], dim=1)))
        taken += cross_taps(TapGrid.of(batch[INPUT], level.kernel), [candidates])[1]
    fired = sum_regression(fired)
    on_taps = Regression(below.some.inputs, fired.inputs.total, sum_over_processes(taken))
    weights = linear[:, :-1]
    mixed = weights @ on_taps.covariance[:-1]
    own = weights @ on_taps.inputs.covariance[:-1, :-1] @ weights.T
    covariance = torch.cat([torch.cat([fired.inputs.covariance, mixed.T], 1), torch.cat([mixed, own], 1)])
    seen = weights @ _behind(below.some.covariance.T, level).T[:-1]
    target = torch.cat([fired.covariance, seen]) @ metric_root(sensitivity)
    choice = choose(covariance, len(relus), target, width, preference=preference)
    return torch.cat([below.before[relus[list(choice.relus)]], choice.directions.T @ linear]), len(choice.relus)


def _raise_linear(kernel: Kernel, relus: int, batches: Spool) -> Kernel:
    """Put linear channels (from `relus` on) in units of their range, and raise the smaller end, by sign, above zero."""
    weight, bias = kernel
    if relus == len(bias):
        return kernel
    linear = weight[relus:], bias[relus:]
    low = torch.full_like(linear[1], float("inf"))
    high = -low
    for batch in batches:
        least, most = find_range(_convolve(linear, batch[INPUT]))
        low = torch.minimum(low, least.double().cpu())
        high = torch.maximum(high, most.double().cpu())
    low, high = min_over_processes(low), -min_over_processes(-high)
    sign = torch.where(high.abs() < low.abs(), -1.0, 1.0).double()  # the smaller shift: beyond the border there is 0
    lowest = torch.where(sign < 0, -high, low)
    largest = torch.maximum(low.abs(), high.abs())
    varies = high - low > 1e-6 * largest
    extent = torch.where(varies, high - low, largest.clamp_min(1e-6))  # a constant is in units of itself
    scale, shift = sign / extent, (-lowest / extent + MARGIN).clamp_min(0)
    raised = linear[0] * scale[:, None, None, None], linear[1] * scale + shift
    return torch.cat([weight[:relus], raised[0]]), torch.cat([bias[:relus], raised[1]])


def _fill_up(kernel: Kernel, level: Level, width: int) -> Kernel:
    """Fill a kernel up to the full width with zeros, the first of them ones where the level is complete."""
    weight, bias = kernel
    more = width - len(bias)
    if more <= 0:
        return kernel
    bias = torch.cat([bias, bias.new_zeros(more)])
    bias[len(weight)] = float(len(weight) == level.channels)
    return torch.cat([weight, weight.new_zeros(more, *weight.shape[1:])]), bias


def _apply(kernel: Kernel, batches: Spool) -> None:
    """Apply the layer to the student's features in every batch."""
    for i, batch in enumerate(batches):
        batches[i] = {**batch, INPUT: _convolve(kernel, batch[INPUT]).relu_()}
