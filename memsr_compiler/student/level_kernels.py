"""A level of the teacher as one kernel, and convolutions in float64 at the speed of matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.interp import convolved as general
from memsr_compiler.interp import evaluate
from memsr_compiler.kernels import center_pad, mix_inputs, mix_outputs, selection
from memsr_compiler.student.levels import Level, Teacher

COLUMNS = 1024  # pixels of one matrix product: what it reads and writes stays in the cache


def level_kernel(teacher: Teacher, level: Level) -> Tensor:
    """K with  before == K * [1; features of the level below], borders included: (C, 1 + C_below, k, k), no bias.

    Channel 0 is the constant 1, zero-padded as the features are (one_pad, MemSR Eq. 3): its centre tap is a bias, its
    other taps are what a folded 1x1 convolution's bias contributes, less at the border.
    """
    graph = teacher.graph
    below = teacher.levels[level.number - 2].held if level.number > 1 else (teacher.input.name,)
    widths = [graph.type(name).channels for name in below]
    read, start = sum(widths) + 1, 1
    known: dict[str, Tensor] = {}
    for name, width in zip(below, widths, strict=True):
        known[name] = selection(list(range(start, start + width)), read)[:, :, None, None]
        start += width
    for op in map(graph.__getitem__, level.ops):
        if isinstance(op, ir.Conv2d):
            known[op.name] = _after(op, known[op.inputs[0]])
        elif isinstance(op, ir.Sum):
            known[op.name] = _sum([known[name] for name in op.inputs])
    rows = [known[name] for name in level.before]
    size = max(row.shape[-1] for row in rows)
    return torch.cat([center_pad(row, size) for row in rows])


def _after(conv: ir.Conv2d, kernel: Tensor) -> Tensor:
    """Kernel of conv(kernel * x).  MemSR, Lemma 3.1."""
    assert conv.groups == conv.dilation == 1, f"{conv.name} should be dense by now"
    assert conv.pointwise or kernel.shape[-1] == 1, f"{conv.name} reads another convolution with no ReLU between"
    out = (
        mix_outputs(conv.weight[:, :, 0, 0], kernel) if conv.pointwise else mix_inputs(conv.weight, kernel[:, :, 0, 0])
    )
    middle = out.shape[-1] // 2
    out[:, 0, middle, middle] += conv.bias
    return out


def _sum(kernels: list[Tensor]) -> Tensor:
    size = max(kernel.shape[-1] for kernel in kernels)
    return torch.stack([center_pad(kernel, size) for kernel in kernels]).sum(0)


def features(teacher: Teacher, level: Level, below: Tensor) -> Tensor:
    """The level's features (N, C, H, W) from those of the level below: `Teacher.advance`, with `convolved`."""
    known = dict(teacher.start(below))
    if level.number > 1:
        known = dict(teacher.resume(teacher.levels[level.number - 2], below))
    for op in map(teacher.graph.__getitem__, level.ops):
        how = {"convolve": convolved} if isinstance(op, ir.Conv2d) else {}
        known[op.name] = evaluate(op, *(known[name] for name in op.inputs), **how)
    return torch.cat([known[name].transpose(0, 1) for name in level.held]).transpose(0, 1)


def convolved(x: Tensor, weight: Tensor, groups: int = 1, dilation: int = 1) -> Tensor:
    """Zero-padded convolution that keeps the size, as `interp.convolved`; several times faster than torch's in float64.

    One matrix product per tap on shifted pieces of the padded images laid end to end.  The result lies in memory
    channel by channel, so that `moments.pixels` of it is no copy.
    """
    if x.dtype != torch.float64 or groups > 1 or dilation > 1:
        return general(x, weight, groups, dilation)
    n, c, height, width = x.shape
    size = weight.shape[-1]
    margin = size // 2
    rows, columns = height + 2 * margin, width + 2 * margin
    padded = x.new_zeros(c, n, rows, columns)
    padded[:, :, margin : margin + height, margin : margin + width] = x.transpose(0, 1)
    flat = padded.view(c, -1)
    out = x.new_empty(len(weight), flat.shape[1])
    taps = weight.permute(2, 3, 0, 1).reshape(size * size, len(weight), c).contiguous()
    last = flat.shape[1] - (size - 1) * (columns + 1)
    for start in range(0, last, COLUMNS):
        stop = min(start + COLUMNS, last)
        piece = out[:, start:stop]
        for number, tap in enumerate(taps):
            shift = number // size * columns + number % size
            source = flat[:, start + shift : stop + shift]
            if number:
                piece.addmm_(tap, source)
            else:
                torch.mm(tap, source, out=piece)
    return out.view(len(weight), n, rows, columns)[:, :, :height, :width].transpose(0, 1)
