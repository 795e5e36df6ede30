"""Graphs that mean the same and are cheaper to schedule: sums in the order in which their terms are ready, and values
that are computed twice because that takes fewer channels than carrying them (rematerialisation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import networkx as nx

from memsr_compiler.analysis.schedule import Carrying, Schedule, body_output, schedule
from memsr_compiler.ir import ACTIVATIONS, Conv2d, Graph, Input, Op, Part, PixelShuffle, Sum, names

FAR = 3  # layers between a value and a user that make it worth looking at computing it again
SHALLOW = 2  # how many layers deep a value may be to be computed again


def plan(graph: Graph, carry: Carrying = "auto") -> tuple[Graph, Schedule]:
    """The graph as it should be computed, and its schedule.

    "shift" keeps to MemSR's construction, in which every value is computed once.
    """
    graph = chain_sums(graph)
    best = graph, schedule(graph, carry)
    if carry == "shift":
        return best
    again = compute_again(graph, best[1])
    if again is graph:
        return best
    return min(best, (again, schedule(again, carry)), key=lambda choice: choice[1].cost)


def chain_sums(graph: Graph) -> Graph:
    """x_1 + ... + x_n, one after the other in the order in which they are ready: each partial sum can be carried."""
    order: dict[str, int] = {}
    ops: list[Op] = []
    for op in graph:
        deepest = max((order[i] for i in op.inputs), default=0)
        order[op.name] = deepest + (isinstance(op, ACTIVATIONS) or (isinstance(op, Conv2d) and not op.pointwise))
        ops.extend(_chain(graph, op, order) if isinstance(op, Sum) and len(op.inputs) > 2 else [op])
    return Graph(tuple(ops), graph.output)


def _chain(graph: Graph, op: Sum, order: dict[str, int]) -> Iterator[Op]:
    tensor = op.part.tensor if op.part else op.name
    operands = sorted(op.inputs, key=order.__getitem__)
    parts = [graph[name].part for name in operands]
    sources = [
        part.sources if part and part.tensor == tensor else (name,) for part, name in zip(parts, operands, strict=True)
    ]
    everything = [s for group in sources for s in group]
    total, taken = operands[0], list(sources[0])
    for i, name in enumerate(operands[1:-1], start=1):
        taken += sources[i]
        part = Part(tensor, tuple(taken), tuple(s for s in everything if s not in taken))
        step = Sum(name=names.partial_sum(op.name, i), inputs=(total, name), part=part)
        order[step.name] = max(order[total], order[name])
        total = step.name
        yield step
    yield replace(op, inputs=(total, operands[-1]))


def compute_again(graph: Graph, base: Schedule) -> Graph:
    """A copy of what is shallow (a few layers from the input) for each layer far above that reads it.

    A global skip then carries the image, three channels that are never negative, instead of the first features.
    """
    depth = _depths(graph)
    reader_layer = _reader_layers(graph, base)
    copies: dict[tuple[str, int], str] = {}
    ops: list[Op] = []

    def copy(name: str, layer: int) -> str:
        op = graph[name]
        if isinstance(op, Input):
            return name
        if (name, layer) not in copies:
            operands = tuple(copy(i, layer) for i in op.inputs)
            copies[name, layer] = names.again(name, layer)
            ops.append(replace(op, name=copies[name, layer], inputs=operands))
        return copies[name, layer]

    for op in graph:
        layer = reader_layer.get(op.name, 0)
        operands = []
        for name in op.inputs:
            far = 0 < depth[name] <= SHALLOW and layer - depth[name] > FAR and depth[op.name] > SHALLOW
            operands.append(copy(name, layer) if far else name)
        ops.append(op if isinstance(op, Input) else replace(op, inputs=tuple(operands)))
    if not copies:
        return graph
    needed = nx.ancestors(Graph(tuple(ops), graph.output).structure, graph.output) | {graph.output, graph.input.name}
    return Graph(tuple(op for op in ops if op.name in needed), graph.output)


def _depths(graph: Graph) -> dict[str, int]:
    """Number of convolutions with k > 1 on the longest way from the input to each value."""
    depth: dict[str, int] = {}
    for op in graph:
        below = max((depth[i] for i in op.inputs), default=0)
        depth[op.name] = below + (isinstance(op, Conv2d) and not op.pointwise)
    return depth


def _reader_layers(graph: Graph, base: Schedule) -> dict[str, int]:
    """The layer in which each op is computed, for pointwise ops the first in which they can be."""
    layers: dict[str, int] = {}
    for op in graph:
        below = max((layers[i] for i in op.inputs), default=0)
        layers[op.name] = base.layer.get(op.name, below)
    if isinstance(graph[graph.output], PixelShuffle):
        layers[body_output(graph)] = base.depth
    return layers
