"""The start of a distillation: the maps from student to teacher, what layers read on average, new weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.maps import describe_layers

Start = Literal["as-is", "he", "xavier"]


def initial_maps(teacher: LeveledTeacher, student: PlainNet, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The maps M_i (C_i, r_i + 1) by least squares on images, as when the student was derived.

    inputs   batches (N, C, H, W)

    Raises InvalidInput for a student that is not of this teacher's depth.
    """
    require_pair(teacher, student)
    kernels = tuple((layer.weight.double(), layer.bias.double()) for layer in student.checkable())
    return tuple(layer.map for layer in describe_layers(teacher, kernels, [0] * (len(kernels) - 1), inputs))


def random_maps(teacher: LeveledTeacher, student: PlainNet, seed: int) -> tuple[Tensor, ...]:
    """Random maps M_i (C_i, r_i + 1), normal with variance 1 / r_i.  Raises InvalidInput as initial_maps."""
    require_pair(teacher, student)
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.cat([torch.randn(c, r, generator=generator) * (1 / r) ** 0.5, torch.zeros(c, 1)], dim=1)
        for c, r in zip(teacher.widths[1:-1], student.widths[1:-1], strict=True)
    )


def input_means(student: PlainNet, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Means of what each layer reads, (C_in,), over batches (N, C, H, W)."""
    totals = [torch.zeros(layer.in_channels, dtype=torch.float64) for layer in student]
    count = 0
    with torch.no_grad():
        for batch in inputs:
            value = batch.float()
            count += value[:, 0].numel()
            for i, layer in enumerate(student):
                totals[i] += value.double().sum(dim=(0, 2, 3)) * (batch[:, 0].numel() / value[:, 0].numel())
                value = layer(value)
    return tuple(total / count for total in totals)


def no_means(student: PlainNet) -> tuple[Tensor, ...]:
    """Zeros in place of the means: kernels and biases are trained as they are."""
    return tuple(torch.zeros(layer.in_channels) for layer in student)


def match_levels(teacher: LeveledTeacher, student: PlainNet) -> LeveledTeacher:
    """The teacher with no other levels than those that the student's layers stand for.

    Raises InvalidInput for a student of another teacher.
    """
    levels = student.info.levels
    if not levels or levels[-1] >= len(teacher.levels):
        require_pair(teacher, student)
        return teacher
    return teacher.keep(levels)


def require_pair(teacher: LeveledTeacher, student: PlainNet) -> None:
    """Raises InvalidInput unless every layer of the student has a level of the teacher that it stands for."""
    if len(student.layers) != len(teacher.levels):
        raise InvalidInput(
            f"the student has {len(student.layers)} layers, the teacher's plain form {len(teacher.levels)}: it was "
            "derived from another teacher, or does not say which levels its layers stand for; derive it anew, or give "
            "--lambda 0"
        )
    if student.scale != teacher.scale:
        raise InvalidInput(f"the student enlarges by {student.scale}, the teacher by {teacher.scale}")


def restart(student: PlainNet, start: Start, seed: int) -> None:
    """Give a student new weights, in place: "he" or "xavier" (normal, biases zero); "as-is" keeps those there are."""
    if start == "as-is":
        return
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in student:
            if start == "he":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            else:
                nn.init.xavier_normal_(layer.weight, generator=generator)
            assert layer.bias is not None
            layer.bias.zero_()
