"""A survey of the teacher's features on the calibration images: how they vary, and what of that the output notices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.statistics.distributed import share, sum_moments
from memsr_compiler.student.statistics.moments import Moments, pixels


@dataclass(frozen=True)
class Survey:
    """Statistics of every level but the last, float64.

    features      moments of the teacher's features after the ReLU
    sensitivity   (C, C): mean over pixels of g g^T, g the gradient of a random projection of the output; a small
                  change d of the features there changes the output's squared error by d^T sensitivity d
    """

    features: tuple[Moments, ...]
    sensitivity: tuple[Tensor, ...]

    def keep(self, kept: Sequence[int]) -> Survey:
        """Keep the statistics of these levels, by number: see `LeveledTeacher.keep`."""
        return Survey(tuple(self.features[k - 1] for k in kept), tuple(self.sensitivity[k - 1] for k in kept))


def survey(teacher: LeveledTeacher, inputs: Sequence[Tensor], on_step: Callable[[str], None] | None = None) -> Survey:
    """Survey a teacher: run it once, forward and back, over batches (N, C, H, W)."""
    inner = teacher.levels[:-1]
    features = [Moments.none(level.channels) for level in inner]
    gradients = [Moments.none(level.channels) for level in inner]
    for number, batch in share(list(enumerate(inputs))):
        if on_step is not None:
            on_step(f"looking at the teacher's features, {number + 1} of {len(inputs)}")
        single = batch.float().contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(len(inner) > 0):  # a single convolution has nothing inside
            held, output = _run(teacher, single)
            back = _differentiate(output, held, seed=number) if inner else []
        for sums, every in ((features, held), (gradients, back)):
            for i, values in enumerate(every):
                sums[i] += Moments.of(pixels(torch.cat([value.detach() for value in values], dim=1)))
    return Survey(tuple(map(sum_moments, features)), tuple(sum_moments(m).second for m in gradients))


def require_finite(teacher: LeveledTeacher, batch: Tensor, name: str) -> None:
    """Raise InvalidInput for a teacher of this name that gives no numbers for a batch (N, C, H, W), in float32."""
    values = teacher.start(batch.float())
    for level in teacher.levels:
        features = teacher.advance(level, values)
        if level is not teacher.levels[-1]:
            values = teacher.resume(level, features.after)
    _require_numbers(features.after, name)


def _require_numbers(output: Tensor, name: str) -> None:
    if not bool(torch.isfinite(output).all()):
        raise InvalidInput(
            f"{name}: gives NaN or infinite values for photographs, and nothing can be learnt from them; check "
            "--input-range (input_range), and that its weights are those of a trained network"
        )


def _run(teacher: LeveledTeacher, batch: Tensor) -> tuple[list[list[Tensor]], Tensor]:
    """Values that every inner level holds, side by side, and the output."""
    values = teacher.start(batch)
    held: list[list[Tensor]] = []
    for level in teacher.levels:
        features = teacher.advance(level, values)
        if level is not teacher.levels[-1]:
            values = {name: _mark(value) for name, value in features.values.items()}
            held.append(list(values.values()))
    _require_numbers(features.after, "the teacher")
    return held, features.after


def _differentiate(output: Tensor, held: Sequence[Sequence[Tensor]], seed: int) -> list[list[Tensor]]:
    """Gradients of one random projection of the output by these values.

    It takes every number of the output with a random sign, so that the mean of g g^T is J^T J.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
    gradients = iter(torch.autograd.grad((output * signs).sum(), [value for values in held for value in values]))
    return [[next(gradients) for _ in values] for values in held]


def _mark(value: Tensor) -> Tensor:
    """The same value as another one: what is carried on unchanged is another value in each level."""
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()


def metric_root(sensitivity: Tensor) -> Tensor:
    """Root B (C, C) with B B^T = sensitivity, slightly raised so that no direction counts for nothing."""
    values, vectors = torch.linalg.eigh(sensitivity)
    values = values.clamp_min(0)
    root: Tensor = vectors * (values + 1e-6 * values.max()).sqrt()
    return root


def spectrum(features: Moments) -> Tensor:
    """Singular values of the centred features / sqrt(samples), largest first, (C,)."""
    values: Tensor = torch.linalg.eigvalsh(features.covariance).clamp_min(0).sqrt().flip(0)
    return values


def eq15_error(energy: Tensor, width: int, against: float | None = None) -> float:
    """Relative Frobenius error of the best features of a width: MemSR, Eq. 15.

    energy   (C,) squares of the features' singular values, largest first
    against  what the error is relative to, squared; None: all of that energy
    """
    whole = float(energy.sum()) if against is None else against
    return math.sqrt(float(energy[width:].sum()) / max(whole, 1e-300))


def relative_error(features: Moments) -> Tensor:
    """Relative error of the centred features by width, (C + 1,): MemSR, Eq. 15."""
    energy = spectrum(features).square()
    return energy.new_tensor([eq15_error(energy, width) for width in range(len(energy) + 1)])


def output_error(features: Moments, sensitivity: Tensor) -> Tensor:
    """Mean squared error that the output would have, about, if a level kept only its r best directions, (C + 1,)."""
    root = metric_root(sensitivity)
    energy = torch.linalg.eigvalsh(root.T @ features.covariance @ root).clamp_min(0)
    return torch.cat([energy.new_zeros(1), energy.cumsum(0)]).flip(0)
