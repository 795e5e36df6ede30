"""relu(t) and relu(-t), of which only the difference is read, are t: undoes the split carries of a plain network."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from memsr_compiler.ir import Conv2d, Graph, Op, Relu, Sum, names
from memsr_compiler.ir.kernels import selection


def merge_split_carries(graph: Graph) -> Graph:
    """Make one channel without ReLU of each pair that is a split carry, in a chain of convolutions and ReLUs.

    Decided by weights alone: row j of the convolution below is minus row i, column j of the one above minus column i.
    """
    graph = _remove_copies(graph)
    ops: list[Op] = []
    for op in graph:
        below = graph[op.inputs[0]] if op.inputs else None
        users = graph.users(op.name)
        above = users[0] if len(users) == 1 else None
        if isinstance(op, Relu) and isinstance(below, Conv2d) and isinstance(above, Conv2d):
            columns = above.weight.transpose(0, 1).flatten(1)
            pairs = _find_opposites(torch.cat([_rows(below), columns], dim=1))
            ops += _merge(op, pairs, len(below.bias)) if pairs else [op]
        else:
            ops.append(op)
    return Graph(tuple(ops), graph.output)


def _remove_copies(graph: Graph) -> Graph:
    """Read t where a carried pair is copied from level to level, relu(t) and relu(-t) each for itself.

    Its reader at the end does so too, and it is the same, as only one of the two is not 0.
    """
    ops: dict[str, Op] = {}
    pairs: dict[int, int] = {}  # of the level below
    for op in graph:
        if isinstance(op, Conv2d):
            weight = op.weight.clone()
            copied = {i: source for i, source in enumerate(_find_copies(op)) if source is not None}
            for i, source in copied.items():
                other = pairs.get(source)
                if other is not None:
                    weight[i, other] = -weight[i, source]
            op = replace(op, weight=weight)
            opposites = _find_opposites(_rows(op))
            pairs = opposites | {j: i for i, j in opposites.items()}
        ops[op.name] = op
    return Graph(tuple(ops.values()), graph.output)


def _find_copies(conv: Conv2d) -> list[int | None]:
    """Channel of which each row is a copy, None where it is none."""
    middle = conv.weight.shape[-1] // 2
    single = conv.weight.flatten(1).ne(0).sum(1).eq(1) & conv.bias.eq(0)
    centre = conv.weight[:, :, middle, middle]
    source = centre.eq(1).to(torch.uint8).argmax(1).tolist()
    exact = (single & centre.eq(1).any(1)).tolist()
    return [s if e else None for s, e in zip(source, exact, strict=True)]


def _rows(conv: Conv2d) -> Tensor:
    return torch.cat([conv.weight.flatten(1), conv.bias[:, None]], dim=1)


def _find_opposites(lines: Tensor) -> dict[int, int]:
    """Pairs i -> j, i < j, where line j is minus line i and neither is zero; each line at most once."""
    where: dict[bytes, list[int]] = {}
    pairs: dict[int, int] = {}
    for j, line in enumerate(lines + 0.0):  # + 0.0: there is no minus zero then
        waiting = where.get((-line + 0.0).numpy().tobytes(), [])
        if waiting and line.any():
            pairs[waiting.pop(0)] = j
        else:
            where.setdefault(line.numpy().tobytes(), []).append(j)
    return pairs


def _merge(relu: Op, pairs: dict[int, int], channels: int) -> list[Op]:
    """Write the level with t where relu(t) was, and 0 where relu(-t) was; its reader stays as it is."""
    carried, gone = sorted(pairs), set(pairs.values())
    rest = [i for i in range(channels) if i not in pairs and i not in gone]
    source, t = relu.inputs[0], f"{relu.name}.carried"
    ops: list[Op] = [_pointwise(t, source, selection(carried, channels))]
    back = [_pointwise(names.internal(t, "back"), t, selection(carried, channels).T)]
    if rest:
        before, after = f"{relu.name}.before", f"{relu.name}.rest"
        ops += [_pointwise(before, source, selection(rest, channels)), replace(relu, name=after, inputs=(before,))]
        back.append(_pointwise(names.internal(after, "back"), after, selection(rest, channels).T))
    return [*ops, *back, Sum(name=relu.name, inputs=tuple(op.name for op in back))]


def _pointwise(name: str, operand: str, matrix: Tensor) -> Conv2d:
    bias = torch.zeros(len(matrix), dtype=torch.float64)
    return Conv2d(name=name, inputs=(operand,), weight=matrix[:, :, None, None].contiguous(), bias=bias)
