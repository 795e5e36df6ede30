"""A student beside its teacher, layer by layer: the maps M_i, and how far its features are from the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.crops import count_pixels
from memsr_compiler.student.levels import Level, LeveledTeacher
from memsr_compiler.student.report import Kernel, LayerShrunk
from memsr_compiler.student.statistics.distributed import share, sum_moments, sum_regression
from memsr_compiler.student.statistics.moments import Moments, Regression, pixels
from memsr_compiler.student.statistics.survey import Survey, eq15_error, spectrum

RIDGE = 1e-6
ENOUGH = 100_000  # pixels: a map has few unknowns


def describe_layers(
    teacher: LeveledTeacher,
    kernels: Sequence[Kernel],
    relus: Sequence[int],
    inputs: Sequence[Tensor],
    seen: Survey | None = None,
) -> tuple[LayerShrunk, ...]:
    """Describe each layer but the last beside the teacher's level.

    kernels   the student's, of every layer;  relus   how many channels of a layer are ReLUs of the teacher
    inputs    batches (N, C, H, W);  seen   the survey of them, if there is one: then some of them are enough
    """
    if seen is not None:
        inputs = inputs[:: max(count_pixels(inputs) // ENOUGH, 1)]
    inner = teacher.levels[:-1]
    widths = [len(bias) for _, bias in kernels[:-1]]
    known = [Regression.none(w + 1, level.channels) for w, level in zip(widths, inner, strict=True)]
    theirs = [Moments.none(level.channels) for level in inner] if seen is None else list(seen.features)
    with torch.no_grad():
        for batch in share(inputs):
            own = batch.float().contiguous(memory_format=torch.channels_last)
            for i, features in enumerate(teacher.inner_features(own)):
                weight, bias = (part.to(own) for part in kernels[i])
                own = F.conv2d(own, weight, bias, padding=weight.shape[-1] // 2).relu()
                known[i] += Regression.of_taps(own, 1, features.after)
                if seen is None:
                    theirs[i] += Moments.of(pixels(features.after))
    theirs = list(map(sum_moments, theirs)) if seen is None else theirs
    parts = zip(inner, relus, map(sum_regression, known), theirs, strict=True)
    return tuple(_describe_layer(*part) for part in parts)


def follow_scales(layers: Sequence[LayerShrunk], before: PlainNet, after: PlainNet) -> tuple[LayerShrunk, ...]:
    """Make the maps read the channels of a network that is the same with its channels in other units."""
    followed = []
    read = torch.ones(before.info.channels, dtype=torch.float64)
    for layer, old, new in zip(layers, before, after, strict=False):
        was, becomes = (part.weight.detach().double().flatten(2) for part in (old, new))
        largest = was.abs().sum(2).argmax(1)
        rows = torch.arange(len(was))
        change = becomes[rows, largest].abs().sum(1) * read[largest] / was[rows, largest].abs().sum(1)
        read = torch.where(change.isfinite(), change, 1.0)  # a row of zeros is in no unit
        units = torch.cat([read, read.new_ones(1)])  # the last column is the constant's
        followed.append(replace(layer, map=layer.map / units))
    return tuple(followed)


def _describe_layer(level: Level, relus: int, known: Regression, theirs: Moments) -> LayerShrunk:
    """One line of the report.

    known   the regression of the teacher's features on the student's and 1;  theirs   moments of the teacher's alone
    """
    width = len(known.inputs.total) - 1
    rows = known.solve(RIDGE)
    left = theirs.second.trace() - 2 * (rows * known.cross.T).sum() / theirs.count
    left = left + ((rows @ known.inputs.second) * rows).sum()
    values = spectrum(theirs)
    return LayerShrunk(
        number=level.number,
        holds=level.held,
        teacher_width=level.channels,
        width=width,
        relus=relus,
        singular_values=values,
        lost=eq15_error(values.square(), min(width, level.channels)),
        own_error=float((left.clamp_min(0) / values.square().sum().clamp_min(1e-300)).sqrt()),
        map=rows,
        spans=level.spans,
    )
