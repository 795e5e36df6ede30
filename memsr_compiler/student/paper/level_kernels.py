"""A level of the teacher as one kernel (MemSR, Eq. 3, Lemma 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.ir.kernels import bias_rm, center_pad, mix_inputs, mix_outputs, selection
from memsr_compiler.student.levels import Level, LeveledTeacher


def level_kernel(teacher: LeveledTeacher, level: Level) -> Tensor:
    """Kernel K with  before == K * [1; features of the level below], borders included: (C, 1 + C_below, k, k), no bias.

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
            known[op.name] = _compose(op, known[op.inputs[0]])
        elif isinstance(op, ir.Sum):
            known[op.name] = _add([known[name] for name in op.inputs])
    rows = [known[name] for name in level.before]
    size = max(row.shape[-1] for row in rows)
    return torch.cat([center_pad(row, size) for row in rows])


def _compose(conv: ir.Conv2d, kernel: Tensor) -> Tensor:
    """Kernel of conv(kernel * x).  MemSR, Lemma 3.1 and Eq. 4."""
    assert conv.groups == conv.dilation == 1, f"{conv.name} should be dense by now"
    assert conv.pointwise or kernel.shape[-1] == 1, f"{conv.name} reads another convolution with no ReLU between"
    out = (
        mix_outputs(conv.weight[:, :, 0, 0], kernel) if conv.pointwise else mix_inputs(conv.weight, kernel[:, :, 0, 0])
    )
    out[:, :1] += bias_rm(conv.bias, out.shape[-1])
    return out


def _add(kernels: list[Tensor]) -> Tensor:
    size = max(kernel.shape[-1] for kernel in kernels)
    return torch.stack([center_pad(kernel, size) for kernel in kernels]).sum(0)
