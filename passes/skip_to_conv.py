"""Skip connections -> 1x1 identity convolutions, one for each ReLU that they jump over."""

from dataclasses import dataclass, field, replace

import torch

from memsr_compiler.analysis.rematerialize import plan
from memsr_compiler.analysis.schedule import Carrying, Schedule, body_output, is_pointwise
from memsr_compiler.ir import ACTIVATIONS, Carry, Conv2d, Graph, Input, Op, PixelShuffle, PRelu, Relu, Sum, names
from memsr_compiler.ir.rewrite import conv_1x1, rewrite


@rewrite(
    source="MemSR (ICML 2022), Sec. 3.2.3 and Figure 3; schedule and liveness beyond it",
    reads=(Input, Conv2d, Sum, Relu, PRelu, PixelShuffle),
)
def skip_to_conv(graph: Graph, *, carry: Carrying = "auto") -> Graph:
    """Compute everything in its layer, from what crosses the boundary below; carry what later layers need
    (MemSR, Sec. 3.2.3, Figure 3).

    Requires  Input, Conv2d, Sum, Relu (PRelu) at one resolution; perhaps a PixelShuffle at the end.
    Ensures   on every path from the input to an op there are equally many activations and Carries.
    """
    return _Layers(*plan(graph, carry)).build()


@dataclass
class _Layers:
    """Writes the scheduled graph.  A Carry of x over boundary b is called x@b, a second copy of x x@above b."""

    graph: Graph
    plan: Schedule
    ops: dict[str, Op] = field(default_factory=dict)
    at: dict[tuple[str, int], str] = field(default_factory=dict)

    def build(self) -> Graph:
        source = self.graph.input
        self.ops[source.name] = source
        self.at[source.name, 0] = source.name
        for boundary in range(1, self.plan.depth):
            for name in self.plan.crossing[boundary]:
                if (names.value(name), boundary) not in self.at:
                    self.at[names.value(name), boundary] = self._cross(name, boundary)
        output = self.value(body_output(self.graph), self.plan.depth - 1)
        if not isinstance(self.ops[output], (Conv2d, Sum)):
            output = self._copy(output)
        last = self.graph[self.graph.output]
        if isinstance(last, PixelShuffle):
            output = self._add(replace(last, inputs=(output,)), self.plan.depth)
        return Graph(tuple(self.ops.values()), output)

    def _cross(self, name: str, boundary: int) -> str:
        op = self.graph[name]
        if isinstance(op, ACTIVATIONS) and self.plan.layer[name] == boundary:
            return self._add(replace(op, inputs=(self.value(op.inputs[0], boundary - 1),)), boundary)
        operand = self.value(name, boundary - 1)
        carried = names.again(names.value(name), boundary)
        return self._add(Carry(name=carried, inputs=(operand,), part=op.part), boundary)

    def value(self, name: str, boundary: int) -> str:
        """The op of the new graph that gives a value in the layer above a boundary; what crosses is not made again."""
        key = names.value(name), boundary
        if key not in self.at:
            op = self.graph[name]
            here = is_pointwise(op) or (isinstance(op, Conv2d) and self.plan.layer[name] == boundary + 1)
            assert here, f"{name} is read above boundary {boundary}, where it was not carried to"
            operands = tuple(self.value(i, boundary) for i in op.inputs)
            self.at[key] = self._add(replace(op, inputs=operands), boundary + 1)
        return self.at[key]

    def _copy(self, name: str) -> str:
        """The last layer has no ReLU: a network that ends with one, or does nothing, ends with a copy."""
        width = Graph(tuple(self.ops.values()), name).type(name).channels
        copy = conv_1x1(names.internal(name, "copy"), name, torch.eye(width, dtype=torch.float64))
        return self._add(copy, self.plan.depth)

    def _add(self, op: Op, layer: int) -> str:
        if op.name in self.ops:
            op = replace(op, name=names.above(op.name, layer - 1))
        assert op.name not in self.ops, f"{op.name} computed twice in one layer"
        self.ops[op.name] = op
        return op.name
