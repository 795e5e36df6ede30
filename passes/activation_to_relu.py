"""Every piecewise-linear activation -> ReLUs and 1x1 convolutions."""

import math

import torch
from torch import Tensor

from memsr_compiler.ir import Clamp, Conv2d, Graph, Maximum, Op, PRelu, Relu, Sum
from memsr_compiler.ir.rewrite import replace_ops, rewrite


@rewrite(source="max(x, y) = x + relu(y - x) and its consequences", removes=(PRelu, Clamp, Maximum))
def activation_to_relu(graph: Graph) -> Graph:
    """Write activations in ReLU form; the k-th ReLU of activation n is called n#k.

    PRelu    relu(x) - slope * relu(-x)
    Clamp    low + relu(x - low) - relu(x - high);  with only one bound, low + relu(x - low) or high - relu(high - x)
    Maximum  x + relu(y - x)
    """

    def rule(op: Op) -> list[Op]:
        channels = graph.type(op.name).channels
        if isinstance(op, PRelu):
            return _prelu(op, torch.ones(channels, dtype=torch.float64))
        if isinstance(op, Clamp):
            return _clamp(op, torch.ones(channels, dtype=torch.float64))
        if isinstance(op, Maximum):
            return _maximum(op, torch.ones(channels, dtype=torch.float64))
        return [op]

    return replace_ops(graph, rule)


def _diagonal(name: str, operand: str, scale: Tensor, shift: Tensor) -> Conv2d:
    return Conv2d(name=name, inputs=(operand,), weight=torch.diag(scale)[:, :, None, None], bias=shift)


def _prelu(op: PRelu, one: Tensor) -> list[Op]:
    n, (x,), zero = op.name, op.inputs, 0 * one
    return [
        Relu(name=f"{n}#0", inputs=(x,)),
        _diagonal(f"{n}~minus", x, -one, zero),
        Relu(name=f"{n}#1", inputs=(f"{n}~minus",)),
        _diagonal(f"{n}~slope", f"{n}#1", -op.slope, zero),
        Sum(name=n, inputs=(f"{n}#0", f"{n}~slope")),
    ]


def _clamp(op: Clamp, one: Tensor) -> list[Op]:
    n, (x,), zero = op.name, op.inputs, 0 * one
    if math.isinf(op.low) and math.isinf(op.high):
        return [_diagonal(n, x, one, zero)]
    if math.isinf(op.low):
        return [
            _diagonal(f"{n}~below", x, -one, op.high * one),
            Relu(name=f"{n}#0", inputs=(f"{n}~below",)),
            _diagonal(n, f"{n}#0", -one, op.high * one),
        ]
    above = [_diagonal(f"{n}~above", x, one, -op.low * one), Relu(name=f"{n}#0", inputs=(f"{n}~above",))]
    if math.isinf(op.high):
        return [*above, _diagonal(n, f"{n}#0", one, op.low * one)]
    return [
        *above,
        _diagonal(f"{n}~beyond", x, one, -op.high * one),
        Relu(name=f"{n}#1", inputs=(f"{n}~beyond",)),
        _diagonal(f"{n}~less", f"{n}#1", -one, zero),
        Sum(name=f"{n}~steps", inputs=(f"{n}#0", f"{n}~less")),
        _diagonal(n, f"{n}~steps", one, op.low * one),
    ]


def _maximum(op: Maximum, one: Tensor) -> list[Op]:
    n, (x, y), zero = op.name, op.inputs, 0 * one
    return [
        _diagonal(f"{n}~minus", x, -one, zero),
        Sum(name=f"{n}~more", inputs=(y, f"{n}~minus")),
        Relu(name=f"{n}#0", inputs=(f"{n}~more",)),
        Sum(name=n, inputs=(x, f"{n}#0")),
    ]
