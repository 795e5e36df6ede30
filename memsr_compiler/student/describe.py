"""A student beside its teacher, layer by layer: the maps M_i, and how far its features are from the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler.student.derived import Kernel
from memsr_compiler.student.levels import Level, Teacher
from memsr_compiler.student.moments import Moments, pixels, regress, taps
from memsr_compiler.student.report import LayerShrunk
from memsr_compiler.student.survey import lost, spectrum

RIDGE = 1e-6


def described(
    teacher: Teacher, kernels: Sequence[Kernel], relus: Sequence[int], inputs: Sequence[Tensor]
) -> tuple[LayerShrunk, ...]:
    """One for each layer but the last.

    kernels   the student's, of every layer;  relus   how many channels of a layer are ReLUs of the teacher
    inputs    batches (N, C, H, W)
    """
    widths = [len(bias) for _, bias in kernels[:-1]]
    together = [Moments.none(w + 1 + level.channels) for w, level in zip(widths, teacher.levels, strict=False)]
    with torch.no_grad():
        for batch in inputs:
            own = batch.float()
            values = teacher.start(own)
            for i, level in enumerate(teacher.levels[:-1]):
                features = teacher.advance(level, values)
                values = features.values
                weight, bias = (part.float() for part in kernels[i])
                own = F.conv2d(own, weight, bias, padding=weight.shape[-1] // 2).relu()
                together[i] += Moments.of(torch.cat([taps(own, 1), pixels(features.after)]))
    parts = zip(teacher.levels[:-1], relus, together, strict=True)
    return tuple(_described(level, count, moments) for level, count, moments in parts)


def _described(level: Level, relus: int, together: Moments) -> LayerShrunk:
    """together   moments of the student's features, 1, and the teacher's"""
    width = len(together.total) - level.channels - 1
    own, theirs = slice(0, width + 1), slice(width + 1, None)
    rows = regress(together, own, theirs, RIDGE)
    second = together.second
    left = second[theirs, theirs].trace() - 2 * (rows * second[theirs, own]).sum()
    left = left + ((rows @ second[own, own]) * rows).sum()
    values = spectrum(Moments(together.count, together.total[theirs], together.products[theirs, theirs]))
    return LayerShrunk(
        number=level.number,
        holds=level.held,
        teacher_width=level.channels,
        width=width,
        relus=relus,
        singular_values=values,
        lost=lost(values, min(width, level.channels)),
        own_error=float((left.clamp_min(0) / values.square().sum().clamp_min(1e-300)).sqrt()),
        map=rows,
    )
