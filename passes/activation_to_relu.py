"""Every piecewise-linear activation -> ReLUs and 1x1 convolutions."""

import math

import torch
from torch import Tensor

from memsr_compiler.ir import Clamp, Conv2d, Graph, Maximum, Op, PRelu, Relu, Sum, names
from memsr_compiler.ir.rewrite import conv_1x1, replace_ops, rewrite


@rewrite(source="max(x, y) = x + relu(y - x) and its consequences", removes=(Clamp, Maximum))
def activation_to_relu(graph: Graph, *, keep_prelu: bool = False) -> Graph:
    """Write activations in ReLU form; the k-th ReLU of activation n is called n#k.

    PRelu    relu(x) - slope * relu(-x)
    Clamp    low + relu(x - low) - relu(x - high);  with only one bound, low + relu(x - low) or high - relu(high - x)
    Maximum  x + relu(y - x)

    Ensures   no PRelu unless they are kept, for the PReLU form.
    """

    def rule(op: Op) -> list[Op]:
        channels = graph.type(op.name).channels
        if isinstance(op, PRelu) and not keep_prelu:
            return _prelu(op, torch.ones(channels, dtype=torch.float64))
        if isinstance(op, Clamp):
            return _clamp(op, torch.ones(channels, dtype=torch.float64))
        if isinstance(op, Maximum):
            return _maximum(op, torch.ones(channels, dtype=torch.float64))
        return [op]

    return replace_ops(graph, rule)


def _diagonal(name: str, operand: str, scale: Tensor, shift: Tensor) -> Conv2d:
    return conv_1x1(name, operand, torch.diag(scale), shift)


def _prelu(op: PRelu, one: Tensor) -> list[Op]:
    n, (x,), zero = op.name, op.inputs, 0 * one
    minus, slope = names.internal(n, "minus"), names.internal(n, "slope")
    return [
        Relu(name=names.relu(n, 0), inputs=(x,)),
        _diagonal(minus, x, -one, zero),
        Relu(name=names.relu(n, 1), inputs=(minus,)),
        _diagonal(slope, names.relu(n, 1), -op.slope, zero),
        Sum(name=n, inputs=(names.relu(n, 0), slope)),
    ]


def _clamp(op: Clamp, one: Tensor) -> list[Op]:
    n, (x,), zero = op.name, op.inputs, 0 * one
    first, second = names.relu(n, 0), names.relu(n, 1)
    if math.isinf(op.low) and math.isinf(op.high):
        return [_diagonal(n, x, one, zero)]
    if math.isinf(op.low):
        below = names.internal(n, "below")
        return [
            _diagonal(below, x, -one, op.high * one),
            Relu(name=first, inputs=(below,)),
            _diagonal(n, first, -one, op.high * one),
        ]
    above = names.internal(n, "above")
    over_low: list[Op] = [_diagonal(above, x, one, -op.low * one), Relu(name=first, inputs=(above,))]
    if math.isinf(op.high):
        return [*over_low, _diagonal(n, first, one, op.low * one)]
    beyond, less, steps = (names.internal(n, what) for what in ("beyond", "less", "steps"))
    return [
        *over_low,
        _diagonal(beyond, x, one, -op.high * one),
        Relu(name=second, inputs=(beyond,)),
        _diagonal(less, second, -one, zero),
        Sum(name=steps, inputs=(first, less)),
        _diagonal(n, steps, one, op.low * one),
    ]


def _maximum(op: Maximum, one: Tensor) -> list[Op]:
    n, (x, y), zero = op.name, op.inputs, 0 * one
    minus, more = names.internal(n, "minus"), names.internal(n, "more")
    return [
        _diagonal(minus, x, -one, zero),
        Sum(name=more, inputs=(y, minus)),
        Relu(name=names.relu(n, 0), inputs=(more,)),
        Sum(name=n, inputs=(x, names.relu(n, 0))),
    ]
