"""Channels that give a plain student nothing, and never would, begin again before it is trained.

A unit that no image makes positive has no gradient.  Nor do units that are positive everywhere, and sums of others,
ever become something else: a first layer of 3x3 kernels on RGB has 28 such sums at most, and derived students have more
channels than that, which carry what a teacher's first layer made.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.student.crops import take_pixels
from memsr_compiler.training.starts import draw_kernel

_INDEPENDENT = 1e-6  # what is left of a channel without the others, in parts of the largest; less is rounding


def revive(student: PlainNet, images: Sequence[Tensor], seed: int) -> int:
    """Redraw channels without use, in place, such that the output on the images stays; how many there were.

    Rows are He's (2015), of the size of the others', positive on half of the pixels.  Their columns in the next layer
    are zero, and learn first.

    images   batches (N, C, H, W) in the student's range;   seed   of the new weights
    """
    generator = torch.Generator().manual_seed(seed)
    values, count = take_pixels(images), 0
    with torch.no_grad():
        for i, (layer, reader) in enumerate(pairwise(student)):
            if layer.relu and layer.shuffle == 1:
                before = [layer.before_activation(value) for value in values]
                free = torch.stack([x.amax((0, 2, 3)) for x in before]).amax(0) <= 0
                if i == 0:
                    always = torch.stack([x.amin((0, 2, 3)) for x in before]).amin(0) > 0
                    free |= _leave_sums(layer, reader, always)
                if free.any() and not free.all():
                    _redraw(layer, reader, free, values, generator)
                    count += int(free.sum())
            values = [layer(value) for value in values]
    return count


def _leave_sums(layer: PlainLayer, reader: PlainLayer, linear: Tensor) -> Tensor:
    """Whether each channel (C,) is a sum of other linear ones, out of which the next layer now makes what it read.

    linear   channels (C,) that pass the ReLU everywhere
    """
    rows = torch.cat([layer.weight.flatten(1), layer.bias[:, None]], dim=1).double()
    left, kept = torch.where(linear[:, None], rows, 0.0), list[int]()
    sizes = left.norm(dim=1)
    least = _INDEPENDENT * float(sizes.max())
    while float(sizes.max()) > least:
        kept.append(int(sizes.argmax()))
        direction = left[kept[-1]] / sizes.max()
        left = left - (left @ direction)[:, None] * direction
        left[kept] = 0
        sizes = left.norm(dim=1)
    sums = linear.clone()
    sums[kept] = False
    if sums.any():
        parts = torch.linalg.lstsq(rows[kept].T, rows[sums].T).solution  # (kept, sums)
        kernel = reader.weight.double()
        kernel[:, kept] += torch.einsum("osij,ks->okij", kernel[:, sums], parts)
        reader.weight.copy_(kernel)
    return sums


def _redraw(
    layer: PlainLayer, reader: PlainLayer, free: Tensor, values: Sequence[Tensor], generator: torch.Generator
) -> None:
    """Give channels new rows, and columns of zeros."""
    kernel = torch.empty_like(layer.weight)
    draw_kernel(kernel, "he", generator)
    drawn = torch.cat(
        [F.conv2d(value, kernel[free], padding=layer.padding).transpose(0, 1).flatten(1) for value in values], 1
    )
    others = torch.cat([layer(value)[:, ~free].transpose(0, 1).flatten(1) for value in values], 1)
    size = others.std(1).median() / drawn.std(1).clamp_min(torch.finfo(drawn.dtype).tiny)
    layer.weight[free] = kernel[free] * size[:, None, None, None]
    layer.bias[free] = -drawn.median(1).values * size
    reader.weight[:, free] = 0
