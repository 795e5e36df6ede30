"""The parallel convolutions of a layer -> one convolution; the graph becomes a chain."""

import torch
from torch import Tensor

from memsr_compiler.errors import PassError
from memsr_compiler.ir import (
    ACTIVATIONS,
    Block,
    BlockConv2d,
    Conv2d,
    Graph,
    Input,
    Meaning,
    Op,
    PixelShuffle,
    PRelu,
    Relu,
    Sum,
    names,
    slopes_of,
)
from memsr_compiler.ir.rewrite import rewrite


@rewrite(
    source="MemSR (ICML 2022), Eq. 1 (different inputs: diagonal kernels) and Eq. 2 (the same input: stacked outputs)",
    reads=(Input, Conv2d, Sum, Relu, PRelu, PixelShuffle),
    removes=(Conv2d, Sum),
)
def merge_parallel(graph: Graph) -> Graph:
    """Put the activations of a level side by side; what is between two levels is then one kernel, kept as its blocks.

    Convolutions of different inputs stand on its diagonal (MemSR, Eq. 1), those of the same input below each other
    (Eq. 2); those that are summed stand side by side, x + y = [I I][x; y] (Prop. 3.6, proof).

    Requires  the form that fuse_1x1 leaves.
    Ensures   a chain: the input, BlockConv2d, Relu, BlockConv2d, Relu, ..., BlockConv2d, perhaps PixelShuffle.  In the
              PReLU form a level that is no ReLU is a PRelu, with all slopes 1 where that can be.
    """
    level: dict[str, int] = {graph.input.name: 0}
    members: list[list[Op]] = [[graph.input]]
    for op in graph:
        if isinstance(op, ACTIVATIONS):
            level[op.name] = 1 + max(level[i] for i in _sources(graph, op.inputs[0]))
            if level[op.name] == len(members):
                members.append([])
            members[level[op.name]].append(op)

    chain: list[Op] = [graph.input]
    for depth in range(1, len(members)):
        name, rows = names.internal("", f"layer{depth}"), [op.inputs[0] for op in members[depth]]
        conv = _merge(graph, name, chain[-1].name, rows, members[depth - 1])
        meaning, slopes = _side_by_side(graph, members[depth]), _join_slopes(graph, members[depth])
        chain += [conv, _activate(f"{conv.name}.relu", conv.name, slopes, meaning)]
    last = graph[graph.output]
    body = last.inputs[0] if isinstance(last, PixelShuffle) else last.name
    chain.append(_merge(graph, body, chain[-1].name, [body], members[-1]))
    if isinstance(last, PixelShuffle):
        chain.append(last)
    return Graph(tuple(chain), graph.output)


def _terms(graph: Graph, name: str) -> list[Conv2d]:
    op = graph[name]
    terms = graph.operands(op) if isinstance(op, Sum) else [op]
    if not all(isinstance(t, Conv2d) for t in terms):
        raise PassError(f"{name}: is not a sum of convolutions; run fuse-1x1 first")
    return [t for t in terms if isinstance(t, Conv2d)]


def _sources(graph: Graph, name: str) -> list[str]:
    return [t.inputs[0] for t in _terms(graph, name)]


def _merge(graph: Graph, name: str, operand: str, rows: list[str], columns: list[Op]) -> BlockConv2d:
    """One kernel from the values side by side in `columns` to the values `rows`, one below the other."""
    offset, width = {}, 0
    for op in columns:
        offset[op.name] = width
        width += graph.type(op.name).channels
    blocks: list[Block] = []
    biases = []
    height = 0
    for row in rows:
        terms = _terms(graph, row)
        for t in terms:
            if t.inputs[0] not in offset:
                raise PassError(f"{row}: reads {t.inputs[0]} past a ReLU; run skip-to-conv first")
            blocks.append(Block(height, offset[t.inputs[0]], t.weight))
        biases.append(torch.stack([t.bias for t in terms]).sum(0))
        height += len(biases[-1])
    size = max(b.kernel.shape[-1] for b in blocks)
    return BlockConv2d(
        name=name, inputs=(operand,), channels_in=width, kernel_size=size, blocks=tuple(blocks), bias=torch.cat(biases)
    )


def _side_by_side(graph: Graph, relus: list[Op]) -> tuple[Meaning, ...]:
    meanings: list[Meaning] = []
    offset = 0
    for op in relus:
        width = graph.type(op.name).channels
        here = {i: offset + i for i in range(width)}
        if isinstance(op, ACTIVATIONS):
            meanings += [m.renumber(here) for m in op.meaning]
        offset += width
    return tuple(meanings)


def _join_slopes(graph: Graph, members: list[Op]) -> Tensor:
    """Slopes (C,) of a level; the constant 1 passes with any, and takes the one that all others have."""
    slopes, ones = [], []
    for op in members:
        assert isinstance(op, ACTIVATIONS), "a level is made of activations"
        width = graph.type(op.name).channels
        slopes.append(slopes_of(op, width))
        ones.append(torch.full((width,), all(m.kind == "one" for m in op.meaning)))
    slope, one = torch.cat(slopes), torch.cat(ones)
    if not one.all() and bool((slope[~one] == 1).all()):
        return torch.ones_like(slope)
    return slope


def _activate(name: str, operand: str, slopes: Tensor, meaning: tuple[Meaning, ...]) -> Op:
    if not slopes.any():
        return Relu(name=name, inputs=(operand,), meaning=meaning)
    return PRelu(name=name, inputs=(operand,), slope=slopes, meaning=meaning)
