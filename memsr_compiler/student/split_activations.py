"""A PReLU of a plain network as what its channels are: carried values, ReLUs, and the teacher's own PReLUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from memsr_compiler.ir import Graph, Op, PRelu, Relu, Sum, names
from memsr_compiler.ir.kernels import selection
from memsr_compiler.ir.rewrite import conv_1x1, replace_ops
from memsr_compiler.passes import activation_to_relu


def split_activations(graph: Graph) -> Graph:
    """Make three of each PReLU: nothing where the slope is 1, a ReLU where it is 0, two ReLUs of the other channels.

    A student would else be given relu(t) and relu(-t) of a value t that is only carried.
    """
    return activation_to_relu(replace_ops(graph, _split))


def _split(op: Op) -> Iterator[Op]:
    if not isinstance(op, PRelu):
        yield op
        return
    back: list[Op] = []
    carried, bent = op.slope == 1, op.slope == 0
    for what, chosen in (("carried", carried), ("relu", bent), ("prelu", ~carried & ~bent)):
        if not chosen.any():
            continue
        pick = _select(chosen)
        picked = conv_1x1(f"{op.name}.{what}", op.inputs[0], pick)
        yield picked
        value: Op = picked
        if what == "relu":
            value = Relu(name=f"{picked.name}.after", inputs=(picked.name,))
        elif what == "prelu":
            value = replace(op, name=f"{picked.name}.after", inputs=(picked.name,), slope=op.slope[chosen])
        if value is not picked:
            yield value
        back.append(conv_1x1(names.internal(picked.name, "back"), value.name, pick.T))
    if len(back) == 1:
        yield replace(back[0], name=op.name)
        return
    yield from back
    yield Sum(name=op.name, inputs=tuple(part.name for part in back))


def _select(chosen: Tensor) -> Tensor:
    """The matrix that picks these channels."""
    return selection(chosen.nonzero()[:, 0].tolist(), len(chosen)).to(torch.float64)
