"""A PReLU of a plain network as what its channels are: carried values, ReLUs, and the teacher's own PReLUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from memsr_compiler.ir import Concat, Graph, Op, PRelu, Relu, Select
from memsr_compiler.ir.rewrite import replace_ops


def split_activations(graph: Graph) -> Graph:
    """Make three of each PReLU: nothing where the slope is 1, a ReLU where it is 0, a PReLU of the other channels.

    A student would else be given relu(t) and relu(-t) of a value t that is only carried.
    """
    return replace_ops(graph, _split)


def _split(op: Op) -> Iterator[Op]:
    if not isinstance(op, PRelu) or not bool(((op.slope == 0) | (op.slope == 1)).any()):
        yield op
        return
    order: list[int] = []
    parts: list[str] = []
    for what, chosen in (
        ("carried", op.slope == 1),
        ("relu", op.slope == 0),
        ("rest", (op.slope != 0) & (op.slope != 1)),
    ):
        channels = chosen.nonzero()[:, 0].tolist()
        if not channels:
            continue
        order += channels
        picked = Select(name=f"{op.name}.{what}", inputs=op.inputs, index=tuple(channels))
        yield picked
        parts.append(picked.name)
        if what != "carried":
            parts[-1] = f"{op.name}.{what}.bent"
            bent = Relu(name=parts[-1], inputs=(picked.name,))
            yield bent if what == "relu" else replace(op, name=parts[-1], inputs=(picked.name,), slope=op.slope[chosen])
    together = Concat(name=f"{op.name}.parts", inputs=tuple(parts))
    yield together
    yield Select(name=op.name, inputs=(together.name,), index=tuple(torch.tensor(order).argsort().tolist()))
