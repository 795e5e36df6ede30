"""A running error bound: how far rounding on the way can move single numbers of a graph's output.

An operation that makes a value y of n terms rounds it by at most gamma(n) times the sum of the terms' magnitudes
(Higham, Accuracy and Stability of Numerical Algorithms, chapter 3).  What is rounded there moves an output by that
times the output's derivative by y.  Weights that amplify, and large terms that cancel, are so accounted for where they
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.ir.interpreter import evaluate

_UNIT = torch.finfo(torch.float64).eps / 2


def rounding_at(graph: ir.Graph, images: Tensor, places: Sequence[Sequence[int]], tie: float) -> Tensor:
    """The most that rounding in float64 moves the output for images (N, C, H, W), each at its (channel, y, x): (N,).

    tie   values that near to the kink of a ReLU may be on its other side: there the steeper slope counts
    """
    values: dict[str, Tensor] = {}
    with torch.enable_grad():
        for op in graph:
            given = [values[name] for name in op.inputs]
            value = images.clone() if isinstance(op, ir.Input) else _evaluate(op, given, tie)
            values[op.name] = value if value.requires_grad else value.requires_grad_()  # the image, and constants
        output = values[graph.output]
        chosen = torch.stack([output[i][tuple(place)] for i, place in enumerate(places)])
        slopes = torch.autograd.grad(chosen.sum(), list(values.values()), allow_unused=True, materialize_grads=True)
    total = images.new_zeros(len(images))
    for op, slope in zip(graph, slopes, strict=True):
        if terms := _terms(op):
            magnitude = _magnitude(op, [values[name].detach() for name in op.inputs])
            gamma = terms * _UNIT / (1 - terms * _UNIT)
            total += gamma * (slope.abs() * magnitude).flatten(1).sum(1)
    return total


def _evaluate(op: ir.Op, given: Sequence[Tensor], tie: float) -> Tensor:
    """The value of an op, with the steeper of two slopes where it is near to a kink."""
    value = evaluate(op, *given)
    x = given[0]
    if isinstance(op, ir.Relu):
        bent = x * (x > -tie)
    elif isinstance(op, ir.PRelu):
        slope = op.slope.to(x)[None, :, None, None]
        steeper = torch.where(x.abs() <= tie, slope.abs().clamp_min(1), torch.where(x > 0, torch.ones_like(x), slope))
        bent = x * steeper
    elif isinstance(op, ir.Clamp):
        bent = x * ((x > op.low - tie) & (x < op.high + tie))
    elif isinstance(op, ir.Maximum):
        bent = x * (x > given[1] - tie) + given[1] * (given[1] > x - tie)
    else:
        return value
    return value.detach() + bent - bent.detach()


def _terms(op: ir.Op) -> int:
    """Numbers that are added up to one of the result's, products among them; 0 where nothing is rounded."""
    if isinstance(op, ir.Conv2d):
        return op.weight[0].numel() + 1
    if isinstance(op, ir.ConvTranspose2d):
        return op.weight[:, 0].numel() + 1
    if isinstance(op, ir.BlockConv2d):
        return op.channels_in * op.kernel_size**2 + 1
    if isinstance(op, ir.Affine):
        return 2
    if isinstance(op, ir.Sum):
        return len(op.inputs)
    return int(isinstance(op, ir.PRelu))


def _magnitude(op: ir.Op, given: Sequence[Tensor]) -> Tensor:
    """Sums of the terms' magnitudes."""
    if isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)):
        op = replace(op, weight=op.weight.abs(), bias=op.bias.abs())
    elif isinstance(op, ir.BlockConv2d):
        blocks = tuple(replace(block, kernel=block.kernel.abs()) for block in op.blocks)
        op = replace(op, blocks=blocks, bias=op.bias.abs())
    elif isinstance(op, ir.Affine):
        op = replace(op, scale=op.scale.abs(), shift=op.shift.abs())
    elif isinstance(op, ir.PRelu):
        return evaluate(op, *given).abs()
    return evaluate(op, *(x.abs() for x in given))
