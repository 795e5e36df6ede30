"""Places of a network's ops in a drawing, from left to right.

Whatever ends a layer (a ReLU, or the carry that becomes one) stands in one column with the others that end it; a skip
that cannot go straight is an arc.
"""

from __future__ import annotations

from collections.abc import Mapping

from memsr_compiler import ir

ACTIVATIONS = (ir.Relu, ir.PRelu, ir.Clamp, ir.Maximum)


def take_beginning(graph: ir.Graph, count: int) -> ir.Graph:
    """The graph of the first `count` ops; operands stand before users in it as ever."""
    if len(graph.ops) <= count:
        return graph
    return ir.Graph(graph.ops[:count], graph.ops[count - 1].name)


def place_columns(graph: ir.Graph) -> dict[str, int]:
    """Column of every op, right of its operands; all that end the same layer stand in one column."""
    layer: dict[str, int] = {}
    depth: dict[str, int] = {}
    deepest: dict[int, int] = {}
    for op in graph:
        here = max((layer[i] for i in op.inputs), default=0) + isinstance(op, (*ACTIVATIONS, ir.Carry))
        layer[op.name] = here
        depth[op.name] = max((depth[i] + 1 for i in op.inputs if layer[i] == here), default=0)
        deepest[here] = max(deepest.get(here, 0), depth[op.name])
    start = {n: sum(deepest[m] + 1 for m in range(n)) for n in deepest}
    return {name: start[layer[name]] + depth[name] for name in layer}


def place_lanes(graph: ir.Graph, column: Mapping[str, int]) -> dict[str, int]:
    """Lane of every op: that of an operand where nothing is in the way, else the nearest free one.

    In a column the longest way through the network chooses first, so that it stays in the uppermost lane.
    """
    occupied: set[tuple[int, int]] = set()
    lane: dict[str, int] = {}
    through = _count_longest_ways(graph)
    for op in sorted(graph, key=lambda op: (column[op.name], -through[op.name])):
        here = column[op.name]
        ways: list[tuple[int, range]] = [
            (lane[i], range(column[i] + 1, here + 1)) for i in sorted(op.inputs, key=lambda i: (-column[i], lane[i]))
        ]
        origin = ways[0][0] if ways else 0
        others = sorted(range(len(occupied) + 1), key=lambda n: (abs(n - origin), n))
        ways += [(n, range(here, here + 1)) for n in others]
        chosen, way = next((n, way) for n, way in ways if all((c, n) not in occupied for c in way))
        occupied |= {(c, chosen) for c in way}
        lane[op.name] = chosen
    return lane


def _count_longest_ways(graph: ir.Graph) -> dict[str, int]:
    """Ops on the longest way from the input to any end through each op."""
    ahead: dict[str, int] = {}
    for op in reversed(graph.ops):
        ahead[op.name] = 1 + max((ahead[user.name] for user in graph.users(op.name)), default=0)
    behind: dict[str, int] = {}
    for op in graph:
        behind[op.name] = 1 + max((behind[i] for i in op.inputs), default=0)
    return {name: ahead[name] + behind[name] for name in ahead}


def find_arcs(graph: ir.Graph, column: Mapping[str, int], lane: Mapping[str, int]) -> set[tuple[str, str]]:
    """Edges (operand, user) in one lane with other ops between them."""
    full = {(column[name], lane[name]) for name in column}
    edges = ((i, op.name) for op in graph for i in op.inputs if lane[i] == lane[op.name])
    return {(a, b) for a, b in edges if any((c, lane[a]) in full for c in range(column[a] + 1, column[b]))}
