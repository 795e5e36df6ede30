"""The start of a distillation: the maps from student to teacher, what layers read on average, new weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.quantities import say_count
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.maps import describe_layers

NewWeights = Literal["he", "he-uniform", "xavier", "xavier-uniform", "identity"]
Start = Literal["as-is", NewWeights]


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
            f"the student has {say_count(len(student.layers), 'layer')}, the teacher's plain form "
            f"{len(teacher.levels)}: it was derived from another teacher, or does not say which levels its layers "
            "stand for; derive it anew, or give --lambda 0"
        )
    if student.scale != teacher.scale:
        raise InvalidInput(f"the student enlarges by {student.scale}, the teacher by {teacher.scale}")


def restart(student: PlainNet, start: Start, seed: int, *, from_image: bool = True) -> None:
    """Give a student new weights, in place, and biases of zero; "as-is" keeps those there are.

    "he" and "xavier" are drawn from a normal distribution, "he-uniform" and "xavier-uniform" from a uniform one of the
    same variance (He et al. 2015; Glorot and Bengio 2010); for "identity" see `carry_image`.  Where the image is
    outside, the last kernel is zero, as in `new_plain`.

    from_image   False: it is drawn like the others, where steps of integers are to be taken from it
    """
    if start == "as-is":
        return
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in student:
            draw_kernel(layer.weight, "he" if start == "identity" else start, generator)
            layer.bias.zero_()
    if start == "identity":
        carry_image(student)
    if student.info.image_skip and from_image:
        with torch.no_grad():
            student[-1].weight.zero_()


def draw_kernel(kernel: Tensor, start: NewWeights, generator: torch.Generator) -> None:
    """Fill a kernel (C_out, C_in, k, k) with new weights."""
    with torch.no_grad():
        if start == "he":
            nn.init.kaiming_normal_(kernel, nonlinearity="relu", generator=generator)
        elif start == "he-uniform":
            nn.init.kaiming_uniform_(kernel, nonlinearity="relu", generator=generator)
        elif start == "xavier":
            nn.init.xavier_normal_(kernel, generator=generator)
        else:
            assert start == "xavier-uniform", start
            nn.init.xavier_uniform_(kernel, generator=generator)


def carry_image(net: PlainNet) -> None:
    """Let a plain network begin as the nearest-neighbour image: half of its channels carry what the first layer made.

    The first channels of that layer are the image itself, and nothing that passed a ReLU once is changed by another.
    The other half of each layer keeps its weights, and learns from both.  The last layer repeats the image; where
    that is added outside, it is left as it is.

    Zhang et al. 2024 (arXiv 2402.08645, PNNH) keep the input of a deep plain network by a path of its own in every
    layer, whose weights all layers share.  Here that path is no part of the network: it is a start, of weights that
    are trained like the others.  Raises InvalidInput for a network that cannot carry its image.
    """
    channels, low = net.info.channels, net.info.input_range[0]
    inner, last = list(net)[:-1], net[-1]
    if low < 0 or any(layer.shuffle > 1 or not layer.relu for layer in inner):
        raise InvalidInput("--init identity: is for images from 0 on and layers that all end in ReLU, but for the last")
    if not inner or min(layer.out_channels for layer in inner) < channels:
        raise InvalidInput(f"--init identity: every layer has to carry the {channels} channels of the image")
    with torch.no_grad():
        for i, layer in enumerate(inner):
            carried = channels if i == 0 else max(channels, min(layer.in_channels, layer.out_channels) // 2)
            _pass_on(layer.weight, list(range(carried)))
        if not net.info.image_skip:
            last.weight.zero_()
            _pass_on(last.weight, [row // net.scale**2 for row in range(last.out_channels)])


def _pass_on(kernel: Tensor, sources: Sequence[int]) -> None:
    """Make row i of a kernel (C_out, C_in, k, k) a copy of channel sources[i], in place."""
    middle = kernel.shape[-1] // 2
    kernel[: len(sources)] = 0
    kernel[range(len(sources)), sources, middle, middle] = 1
