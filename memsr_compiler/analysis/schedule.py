"""In which layer everything is computed, and what is carried from layer to layer.

The graph is read as convolutions with k > 1 and ReLUs, which belong to a layer, and pointwise linear ops between
them, which can be done anywhere.  Layer l of the plain network reads boundary l - 1 and, ReLU applied, makes
boundary l; boundary 0 is the input.  What must cross a boundary is a minimum vertex cut through the pointwise ops:
register allocation on channels (beyond MemSR, whose skips may not cross).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import networkx as nx
from networkx.algorithms.flow import edmonds_karp

from memsr_compiler.ir import ACTIVATIONS, Carry, Conv2d, Graph, Input, Op, PixelShuffle, PRelu, Relu, Sum, names
from memsr_compiler.ir.rewrite import without_unused

Carrying = Literal["auto", "shift", "split", "pass"]  # the last: in the PReLU form, where a slope of 1 lets all pass


@dataclass(frozen=True)
class Schedule:
    """The layer of everything, and what is held between layers.

    layer[name]  of every activation and every convolution with k > 1, from 1;  the output's layer is `depth`.
    crossing[l]  the values that cross boundary l, for l = 0 .. depth - 1
    width[l]     how many channels they take
    kernel[l]    the kernel size of layer l + 1
    """

    layer: Mapping[str, int]
    crossing: tuple[tuple[str, ...], ...]
    width: tuple[int, ...]
    kernel: tuple[int, ...]

    @property
    def depth(self) -> int:
        return len(self.crossing)

    @property
    def cost(self) -> int:
        """Multiply-adds per input pixel of all layers but the last.

        The last one's depend on the last width alone.  To count them changes the schedule of 1 in 200 random networks,
        and makes that one's plain network dearer: channels count here that are dropped later.
        """
        pairs = zip(self.width, self.width[1:], self.kernel, strict=False)
        return sum(a * b * k * k for a, b, k in pairs)


def body_output(graph: Graph) -> str:
    """The last value before the final pixel shuffle."""
    last = graph[graph.output]
    return last.inputs[0] if isinstance(last, PixelShuffle) else last.name


def is_pointwise(op: Op) -> bool:
    """Whether an op is linear and looks at one pixel, so that it can be done in any layer."""
    return isinstance(op, Sum) or (isinstance(op, Conv2d) and op.pointwise)


def nonnegative(graph: Graph) -> frozenset[str]:
    """Values that are never below zero, whatever the input (within its stated range).  A safe under-estimate."""
    never_below: set[str] = set()
    for op in graph:
        known = all(name in never_below for name in op.inputs)
        if (
            isinstance(op, Relu)
            or (isinstance(op, PRelu) and (known or float(op.slope.max()) <= 0))
            or (isinstance(op, Input) and op.low >= 0)
            or (isinstance(op, Conv2d) and known and float(op.weight.min()) >= 0 and float(op.bias.min()) >= 0)
            or (isinstance(op, (Sum, Carry)) and known)
        ):
            never_below.add(op.name)
    return frozenset(never_below)


def schedule(graph: Graph, carry: Carrying = "auto") -> Schedule:
    """The cheapest schedule found, of least depth: everything as early, or as late as possible, or only second
    computations (x@12, see `rematerialize`) late.  Early these would be carried beside the first, all of them at once.

    graph   Input, Conv2d, Sum, Relu (in the PReLU form PRelu too), one resolution, perhaps a PixelShuffle at the end
    """
    graph = without_unused(graph)
    regions = _Regions(graph, carry)
    early = _time(graph, None)
    plans = [_later(graph, early, lambda name: True), _later(graph, early, names.is_again)]
    if not any(names.is_again(op.name) for op in graph):
        plans.insert(0, early)
    different = [p for i, p in enumerate(plans) if all(p.layer != q.layer for q in plans[:i])]
    return min((_allocate(regions, timing) for timing in different), key=lambda s: s.cost)


@dataclass(frozen=True)
class _Timing:
    """When everything is computed.

    layer     of every ReLU and convolution with k > 1
    ready     the boundary at which a value can first be had by pointwise ops alone
    computed  the layer whose pre-activation can first hold it
    depth     the layer of the output
    """

    layer: dict[str, int]
    ready: dict[str, int]
    computed: dict[str, int]
    depth: int


@dataclass(frozen=True)
class _Regions:
    """A graph, and what it costs to hold its values."""

    graph: Graph
    carry: Carrying

    @cached_property
    def free(self) -> frozenset[str]:
        return nonnegative(self.graph)

    @cached_property
    def order(self) -> dict[str, int]:
        return {op.name: i for i, op in enumerate(self.graph)}

    def channels(self, name: str) -> int:
        """Channels that it takes to carry a value; 0 if it must not be, having no meaning in the teacher."""
        op = self.graph[name]
        nameless = names.is_internal(op.part.tensor if op.part else name)
        if nameless or (op.part is not None and not op.part.rest):  # all but the bias: carry the tensor itself
            return 0
        c = self.graph.type(name).channels
        free = name in self.free and op.part is None
        return c if free or self.carry in ("shift", "pass") else 2 * c


def _time(graph: Graph, layer_of: Mapping[str, int] | None) -> _Timing:
    """Everything in these layers, or as early as possible."""
    layer: dict[str, int] = {}
    ready: dict[str, int] = {}
    computed: dict[str, int] = {}
    shifted: set[str] = set()  # pointwise in the input, with a constant that zero padding would notice
    for op in graph:
        n, operand = op.name, op.inputs[0] if op.inputs else ""
        if isinstance(op, Input):
            ready[n], computed[n] = 0, 1
        elif isinstance(op, Conv2d) and not op.pointwise:
            earliest = max(ready[operand], 1 if operand in shifted else 0) + 1
            layer[n] = layer_of[n] if layer_of else earliest
            ready[n] = computed[n] = layer[n]
        elif isinstance(op, ACTIVATIONS):
            layer[n] = layer_of[n] if layer_of else computed[operand]
            ready[n], computed[n] = layer[n], layer[n] + 1
        else:
            ready[n] = max(ready[i] for i in op.inputs)
            computed[n] = max(computed[i] for i in op.inputs)
            constant = isinstance(op, Conv2d) and bool(op.bias.any())
            if ready[n] == 0 and (constant or any(i in shifted for i in op.inputs)):
                shifted.add(n)
    return _Timing(layer, ready, computed, computed[body_output(graph)])


def _later(graph: Graph, early: _Timing, movable: Callable[[str], bool]) -> _Timing:
    """Each movable op as late as its users allow, the others as early as in `early`."""
    ready_by: dict[str, int] = {}  # the latest boundary, and layer, at which users still get the value in time
    computed_by: dict[str, int] = {body_output(graph): early.depth}
    layer: dict[str, int] = {}
    never = early.depth + 1
    for op in reversed(graph.ops):
        n = op.name
        by, computed = ready_by.get(n, never), computed_by.get(n, never)
        if isinstance(op, Conv2d) and not op.pointwise:
            layer[n] = min(by, computed) if movable(n) else early.layer[n]
            ready_by[op.inputs[0]] = min(ready_by.get(op.inputs[0], never), layer[n] - 1)
        elif isinstance(op, ACTIVATIONS):
            layer[n] = min(by, computed - 1) if movable(n) else early.layer[n]
            computed_by[op.inputs[0]] = min(computed_by.get(op.inputs[0], never), layer[n])
        elif is_pointwise(op):
            for name in op.inputs:
                ready_by[name] = min(ready_by.get(name, never), by)
                computed_by[name] = min(computed_by.get(name, never), computed)
    return _time(graph, layer)


def _allocate(regions: _Regions, timing: _Timing) -> Schedule:
    """The schedule with the fewest channels across each boundary, from the input on."""
    graph = regions.graph
    by_layer: list[list[str]] = [[] for _ in range(timing.depth + 1)]
    for name, layer in timing.layer.items():
        by_layer[layer].append(name)
    crossing: list[tuple[str, ...]] = [(graph.input.name,)]
    wanted = _read_later(graph, timing)
    for boundary in range(1, timing.depth):
        sources = [*crossing[-1], *by_layer[boundary]]
        crossing.append(_cut(regions, timing, sources, wanted[boundary], boundary))
    width = tuple(
        graph.type(crossing[0][0]).channels if not i else sum(regions.channels(n) for n in held)
        for i, held in enumerate(crossing)
    )
    convs = [op for op in graph if isinstance(op, Conv2d) and not op.pointwise]
    sizes = [
        max((op.weight.shape[-1] for op in convs if timing.layer[op.name] == i + 1), default=1)
        for i in range(timing.depth)
    ]
    return Schedule(timing.layer, tuple(crossing), width, tuple(sizes))


def _read_later(graph: Graph, timing: _Timing) -> list[list[str]]:
    """At each boundary the values that can be had there by pointwise ops alone, and that a later layer reads."""
    output = body_output(graph)
    values: list[list[str]] = [[] for _ in range(timing.depth)]
    for op in graph:
        last = max((timing.ready.get(user.name, 0) for user in graph.users(op.name)), default=0)
        for boundary in range(timing.ready[op.name], timing.depth if op.name == output else last):
            values[boundary].append(op.name)
    return values


def _cut(regions: _Regions, timing: _Timing, sources: list[str], wanted: list[str], boundary: int) -> tuple[str, ...]:
    """Fewest channels from which all that later layers read can be had: a minimum vertex cut.

    What is pointwise in a ReLU of this very layer cannot be held yet, only the ReLU can.  Of equal cuts the one
    nearest to the sources, so that what is there already is kept as it is.
    """
    graph, held = regions.graph, set(sources)
    network: nx.DiGraph = nx.DiGraph()
    stack, seen = list(wanted), set()
    network.add_edges_from(("sink", (name, "out")) for name in wanted)
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        made_here = timing.layer.get(name) == boundary or timing.computed[name] <= boundary
        capacity = regions.channels(name) if made_here else 0
        # Without a capacity an edge cannot be cut: what has no meaning in the teacher, or is not made yet, is not held.
        network.add_edge((name, "out"), (name, "in"), **({"capacity": capacity} if capacity else {}))
        if name in held:
            network.add_edge((name, "in"), "source")
        elif is_pointwise(graph[name]):
            operands = graph[name].inputs
            network.add_edges_from(((name, "in"), (operand, "out")) for operand in operands)
            stack.extend(operands)
    if "sink" not in network:
        return ()
    # All edges point from users to operands: networkx then gives the cut nearest to the operands.
    _, (_, near_source) = nx.minimum_cut(network, "sink", "source", flow_func=edmonds_karp)
    cut = [n for n in seen if (n, "in") in near_source and (n, "out") not in near_source]
    return tuple(sorted(cut, key=regions.order.__getitem__))
