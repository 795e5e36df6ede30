"""A forecast of what a level would lose at each width, from the teacher's features alone.

The survey's spectra (`survey.output_error`) know linear directions only, and take a ReLU for one of them.  Here the
channels are those that `selection.choose` takes, and what counts is what the level above can make of all their taps: a
feature that was left out is often known from its neighbours.  The two are used together, see `share_limit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memsr_compiler.student.data_aware import PREFERENCE_REFIT
from memsr_compiler.student.levels import Level, LeveledTeacher
from memsr_compiler.student.selection import Choice, choose
from memsr_compiler.student.statistics.moments import Regression, pixels, taps
from memsr_compiler.student.statistics.spill import Spool
from memsr_compiler.student.statistics.survey import Survey, metric_root

PIXELS = 40_000  # of which the taps are looked at, about
WIDTHS = 10  # tried for a level; in between, what is lost falls evenly in decibels
RIDGE = 1e-6


def forecast(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    seen: Survey,
    align: int,
    on_step: Callable[[str], None] | None = None,
) -> tuple[Tensor, ...]:
    """Forecast the output's mean squared error by the width of each level but the last, (C + 1,) each.

    inputs   batches (N, C, H, W), a few;   seen   the survey;   align   of the widths that are tried
    """
    curves: list[Tensor] = []
    stride = max(sum(x[:, 0].numel() for x in inputs) // PIXELS, 1)
    with Spool() as batches, torch.no_grad():
        for batch in inputs:
            batches.append(dict(teacher.start(batch.float())))
        below: _CandidateLevel | None = None
        for level in teacher.levels:
            if on_step is not None:
                on_step(f"what narrower layers would lose, {level.number} of {len(teacher.levels)}")
            here, above = _advance(teacher, level, below, batches, stride)
            if below is not None:
                last = level is teacher.levels[-1]
                notices = torch.eye(level.channels).double() if last else seen.sensitivity[level.number - 1]
                curves.append(_losses_by_width(below, above, seen.sensitivity[level.number - 2], notices, align))
            below = here
    return tuple(curves)


@dataclass(frozen=True)
class _CandidateLevel:
    """A level, and the regression of its values on its candidates: its ReLUs, then its values before them."""

    level: Level
    candidates: Regression

    @property
    def relus(self) -> int:
        return int(self.level.relu.sum())


def _advance(
    teacher: LeveledTeacher, level: Level, below: _CandidateLevel | None, batches: Spool, stride: int
) -> tuple[_CandidateLevel, Regression]:
    """Take the teacher one level on in every batch; regress its values on the taps of the level below."""
    relus = level.relu.nonzero()[:, 0]
    candidates = Regression.none(len(relus) + level.channels + 1, level.channels)
    above = Regression.none(below.level.channels * level.kernel**2 + 1 if below else 1, level.channels)
    for i, batch in enumerate(batches):
        features = teacher.advance(level, batch)
        ones = torch.ones_like(features.before[:, :1])
        both = torch.cat([features.after[:, relus], features.before, ones], dim=1)
        candidates += Regression.of(pixels(both), pixels(features.after))
        if below is not None:
            held = torch.cat([batch[name] for name in below.level.held], dim=1)
            read = taps(held, level.kernel)[:, ::stride]
            above += Regression.of(read, pixels(features.before)[:, ::stride])
        batches[i] = dict(features.values)
    return _CandidateLevel(level, candidates), above


def _losses_by_width(
    below: _CandidateLevel, above: Regression, sensitivity: Tensor, notices: Tensor, align: int
) -> Tensor:
    channels, relus = below.level.channels, below.relus
    count = relus + channels
    covariance = below.candidates.inputs.covariance[:count, :count]
    cross = below.candidates.covariance[:count]
    target = cross @ metric_root(sensitivity)
    values = _covariance_after(cross, below.level)
    damped = values + torch.diag(1e-9 * values.diagonal() + 1e-300)
    as_values = torch.linalg.solve(damped, cross.T)  # (C, count): the candidates in terms of the level's values
    read = above.inputs.covariance[:-1, :-1]
    size = len(read) // channels
    read = read.reshape(channels, size, channels, size)
    wanted = (above.covariance[:-1] @ metric_root(notices)).reshape(channels, size, -1)
    tried = [*range(align, channels, align * max(-(-channels // (align * WIDTHS)), 1)), channels]
    left = []
    for width in tried:
        rows = as_values @ _as_matrix(
            choose(covariance, relus, target, width, preference=PREFERENCE_REFIT), relus, count
        )
        left.append(_measure_explained(rows / rows.norm(dim=0).clamp_min(1e-300), read, wanted))
    whole = max(left)
    lost = torch.tensor([whole - x for x in left], dtype=torch.float64).clamp_min(1e-9 * whole + 1e-300)
    return _interpolate([0, *tried], torch.cat([lost.new_tensor([whole]), lost]), channels)


def _covariance_after(cross: Tensor, level: Level) -> Tensor:
    """Covariance of the level's values, (C, C): its ReLUs, and the rest, which is the same before and after."""
    order = torch.zeros(level.channels, dtype=torch.long)
    relus = level.relu.nonzero()[:, 0]
    order[relus] = torch.arange(len(relus))
    order[~level.relu] = len(relus) + (~level.relu).nonzero()[:, 0]
    return cross[order]


def _as_matrix(choice: Choice, relus: int, count: int) -> Tensor:
    """A choice as combinations of all candidates, (count, width)."""
    chosen = choice.directions.new_zeros(count, len(choice.relus) + choice.directions.shape[1])
    for column, index in enumerate(choice.relus):
        chosen[index, column] = 1
    chosen[relus:, len(choice.relus) :] = choice.directions
    return chosen


def _measure_explained(rows: Tensor, read: Tensor, wanted: Tensor) -> float:
    """Measure how much of what is wanted the taps of some channels explain.

    rows     (C, k) the channels, of the level's values
    read     (C, t, C, t) covariance of all taps;   wanted   (C, t, T) their covariance with what is wanted
    """
    unknowns = rows.shape[1] * read.shape[1]
    own = torch.einsum("ck,csdt,dl->kslt", rows, read, rows).reshape(unknowns, unknowns)
    cross = torch.einsum("ck,cst->kst", rows, wanted).reshape(unknowns, -1)
    damped = own + torch.diag(RIDGE * own.diagonal() + 1e-300)
    return float((cross * torch.linalg.solve(damped, cross)).sum())


def _interpolate(widths: Sequence[int], lost: Tensor, channels: int) -> Tensor:
    """Losses at all widths from those at some, (channels + 1,): 0 at the full width, never more at a larger one."""
    falling = lost.cummin(0).values.log()
    at = torch.arange(channels + 1, dtype=torch.float64)
    known = torch.tensor(widths, dtype=torch.float64)
    upper = torch.searchsorted(known, at).clamp(1, len(widths) - 1)
    share = (at - known[upper - 1]) / (known[upper] - known[upper - 1])
    curve = torch.lerp(falling[upper - 1], falling[upper], share).exp()
    curve[-1] = 0
    return curve
