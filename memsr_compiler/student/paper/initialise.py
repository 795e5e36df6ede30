"""Paper mode: the student that MemSR (Wu, Lee, Ma, ICML 2022) starts from (Sec. 3.3).  See docs/paper_mode.md.

`algorithm1` is the algebra; here it meets the teacher's levels, batch by batch, processes and disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.ir.kernels import mix_inputs
from memsr_compiler.quantities import say_count
from memsr_compiler.student.crops import count_pixels
from memsr_compiler.student.levels import Level, LeveledTeacher
from memsr_compiler.student.paper.algorithm1 import Basis, NegativeEntries, PrincipalComponents, split_constant
from memsr_compiler.student.paper.features import advance, columns, measure_moments
from memsr_compiler.student.paper.level_kernels import level_kernel
from memsr_compiler.student.paper.options import PAPER, PaperOptions
from memsr_compiler.student.report import Derived, Kernel, LayerShrunk
from memsr_compiler.student.statistics.distributed import min_over_processes, share, sum_moments, sum_over_processes
from memsr_compiler.student.statistics.moments import Moments
from memsr_compiler.student.statistics.spill import Spool
from memsr_compiler.student.widths.budget import align_up

MARGIN = 3.0  # how far beyond what was measured a shift must reach, as in lowering/shift_constants
FOLLOWED = 8  # images on which the student itself is looked at; the statistics are of all


@torch.no_grad()
def derive_memsr(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    *,
    widths: Sequence[int] | None = None,
    theta: float | None = None,
    align: int = 8,
    mean_shift: float = 3.0,
    options: PaperOptions = PAPER,
    on_step: Callable[[str], None] | None = None,
) -> Derived:
    """Derive a student by Algorithm 1 and Eq. 5 to 11, level by level, from features on batches (N, C, H, W).

    widths      the student's, one for each level but the last; or
    theta       each level's width is the smallest with a relative error (Eq. 15) below it, rounded up to `align`
    mean_shift  beta of Algorithm 1

    Statistics are float64.  Between two levels only the features of one are held, on disk where they are many.
    Raises InvalidInput for widths that leave no room, or fewer pixels than channels.
    """
    inner = teacher.levels[:-1]
    _check(teacher, inputs, widths, theta, options)
    kernels: list[Kernel] = []
    layers: list[LayerShrunk] = []
    lifted = torch.eye(teacher.input.channels + 1, dtype=torch.float64)
    ones = False
    own = Moments.none(teacher.input.channels)
    with Spool() as batches, Spool() as looked_at:
        for batch, followed in share(list(zip(inputs, _sample(inputs), strict=True))):
            batches.append(dict(teacher.start(batch.double())))
            looked_at.append({"student": batch[followed].float(), "followed": followed})
        for i, level in enumerate(inner):
            if on_step is not None:
                on_step(f"level {i + 1} of {len(inner)}")
            read = ones
            narrow = widths is not None and widths[i] == 1
            ones = options.constant == "channel" and teacher.levels[i + 1].kernel > 1 and not narrow
            for k, values in enumerate(batches):
                batches[k] = dict(advance(teacher, level, values))
            own = measure_moments(teacher, level, batches, own)
            parts = PrincipalComponents.of(sum_moments(own), options.relative_to)
            kept = i >= len(inner) - options.kept
            if kept:
                most = level.channels + ones
                basis = Basis.complete(level.channels, most if theta is None else align_up(most, align), ones)
            else:
                width = align_up(parts.narrowest(theta or 0.0) + ones, align) if widths is None else widths[i]
                basis = parts.basis(width, ones)
            basis = basis.with_shift(_mean_shift(basis, level, batches, mean_shift, options))
            kernels.append(basis.solve_kernel(level_kernel(teacher, level), lifted, read))
            own_error = _follow(kernels[-1], level, basis.map, parts.mean, batches, looked_at)
            lifted = basis.lifted
            layers.append(
                LayerShrunk(
                    number=level.number,
                    holds=level.held,
                    teacher_width=level.channels,
                    width=basis.width,
                    relus=int(level.relu.sum()) if kept else 0,
                    singular_values=parts.energy.sqrt(),
                    lost=parts.error(basis.directions.shape[1]),
                    own_error=own_error,
                    map=basis.map,
                )
            )
    last = teacher.levels[-1]
    kernels.append(split_constant(mix_inputs(level_kernel(teacher, last), lifted), ones))
    return Derived(tuple(kernels), tuple(layers))


def _mean_shift(basis: Basis, level: Level, batches: Spool, beta: float, options: PaperOptions) -> Tensor:
    """Shift of each direction by Algorithm 1, over all processes; or out of the ReLU's reach where there is none."""
    negative = NegativeEntries.none(basis.directions.shape[1])
    for values in batches:
        for part in columns(level, values):
            negative += NegativeEntries.of(basis.components(part))
    if options.linear_levels == "free" and not level.relu.any():
        return min_over_processes(negative.lowest).mul(-MARGIN)
    return _sum_entries(negative).mean_shift(beta, options.shift_over)


def _sum_entries(own: NegativeEntries) -> NegativeEntries:
    """Negative entries of all processes."""
    samples = int(sum_over_processes(torch.tensor(own.samples)))
    return NegativeEntries(sum_over_processes(own.total), sum_over_processes(own.count), own.lowest, samples)


def _sample(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Images of each batch on which the student is run: FOLLOWED of all, evenly from dark to bright."""
    places = [(float(image.mean()), i, j) for i, batch in enumerate(inputs) for j, image in enumerate(batch)]
    step = max(len(places) / FOLLOWED, 1.0)
    ordered = sorted(places)
    chosen = [ordered[int((k + 0.5) * step)] for k in range(min(FOLLOWED, len(places)))]
    return [torch.tensor(sorted(j for _, at, j in chosen if at == i), dtype=torch.long) for i in range(len(inputs))]


def _follow(kernel: Kernel, level: Level, mapping: Tensor, mean: Tensor, batches: Spool, looked_at: Spool) -> float:
    """Take the student on by one layer; say the relative error of M * (what it computes), centred as in Eq. 15.

    In float32, as this is looked at and nothing is computed from it.
    """
    error = energy = 0.0
    for i, (values, record) in enumerate(zip(batches, looked_at, strict=True)):
        weight, bias = (part.to(record["student"]) for part in kernel)
        matrix = mapping[:, :-1].to(record["student"])
        constant = (mapping[:, -1:] - mean[:, None]).to(record["student"])
        centre = mean[:, None].to(record["student"].device)
        features = []
        for below, image in zip(record["student"], record["followed"], strict=True):  # one by one fits in the cache
            true = torch.cat([values[name][image] for name in level.held]).flatten(1).sub_(centre).float()
            features.append(torch.nn.functional.conv2d(below, weight, bias, padding=weight.shape[-1] // 2).relu_())
            guess = torch.addmm(constant, matrix, features[-1].flatten(1))
            error += float(torch.linalg.vector_norm(guess.sub_(true))) ** 2
            energy += float(torch.linalg.vector_norm(true)) ** 2
        if features:
            looked_at[i] = {**record, "student": torch.stack(features)}
    error, energy = sum_over_processes(torch.tensor([error, energy], dtype=torch.float64)).tolist()
    return math.sqrt(error / energy) if energy > 0 else 0.0


def _check(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    widths: Sequence[int] | None,
    theta: float | None,
    options: PaperOptions,
) -> None:
    if (widths is None) == (theta is None):
        raise InvalidInput("paper mode takes widths or theta, one of the two")
    if theta is not None and not 0 < theta < 1:
        raise InvalidInput(f"theta={theta}: a relative error (Eq. 15), between 0 and 1; the paper's are 0.05 and 0.14")
    inner = len(teacher.levels) - 1
    if widths is not None and len(widths) != inner:
        raise InvalidInput(
            f"{say_count(len(widths), 'width')} for a student of {say_count(inner + 1, 'layer')}; give "
            f"{inner}, all but the last's"
        )
    if min(widths or (1,)) < 1:
        raise InvalidInput("a width of 0 is no layer; give 1 or more")
    if not 0 <= options.kept <= inner:
        raise InvalidInput(f"kept={options.kept}: of {say_count(inner, 'level')} below the output; give 0 to {inner}")
    have, most = count_pixels(inputs), max((level.channels for level in teacher.levels[:-1]), default=0)
    if have <= most:
        raise InvalidInput(
            f"{have} pixels say too little about {say_count(most, 'channel')}; give at least "
            f"{most + 1 - have} more, larger images"
        )
