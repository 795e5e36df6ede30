"""Passes: rewrites of a graph with a contract, and the few helpers that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from memsr_compiler.errors import PassError
from memsr_compiler.ir import Conv2d, Graph, Op


@dataclass(frozen=True)
class Pass:
    """A rewrite of a graph, with its contract.

    name      as on the command line, "fuse-1x1"
    source    paper and equation, or what else it rests on
    reads     the op types that it understands; anything else is refused before it runs
    removes   the op types that are gone after it
    """

    name: str
    source: str
    function: Callable[..., Graph]
    reads: tuple[type[Op], ...]
    removes: tuple[type[Op], ...]

    def __call__(self, graph: Graph, **options: Any) -> Graph:
        """Run it, contract checked.  Raises PassError, which then says of which pass it is."""
        try:
            return self._run(graph, options)
        except PassError as error:
            error.pass_name = self.name
            raise

    def _run(self, graph: Graph, options: dict[str, Any]) -> Graph:
        for op in graph:
            if not isinstance(op, self.reads):
                raise PassError(f"{op.name}: {self.name} does not read {type(op).__name__}; run the passes before it")
        result = self.function(graph, **options)
        for op in result:
            if isinstance(op, self.removes):
                raise PassError(f"{op.name}: {self.name} left a {type(op).__name__} behind")
        return result

    def bind(self, **options: Any) -> Pass:
        """The same pass with some of its options set."""
        return replace(self, function=partial(self.function, **options))


def rewrite(
    *, source: str, reads: tuple[type[Op], ...] = (Op,), removes: tuple[type[Op], ...] = ()
) -> Callable[[Callable[..., Graph]], Pass]:
    """Attach the facts about a pass to the function that does it; the result is a `Pass`."""

    def attach(function: Callable[..., Graph]) -> Pass:
        attached = Pass(function.__name__.replace("_", "-"), source, function, reads, removes)
        object.__setattr__(attached, "__doc__", function.__doc__)
        return attached

    return attach


def replace_ops(graph: Graph, rule: Callable[[Op], Iterable[Op]]) -> Graph:
    """Replace each op by the ops that the rule gives for it; the last of them takes over its name."""
    return Graph(tuple(new for op in graph for new in rule(op)), graph.output)


def conv_1x1(name: str, operand: str, matrix: Tensor, bias: Tensor | None = None) -> Conv2d:
    """The 1x1 convolution with this matrix (C_out, C_in) at every pixel, and this bias or none."""
    if bias is None:
        bias = torch.zeros(len(matrix), dtype=torch.float64)
    return Conv2d(name=name, inputs=(operand,), weight=matrix[:, :, None, None], bias=bias)


def without_unused(graph: Graph) -> Graph:
    """The same graph with only the ops that the output needs (and the input)."""
    needed = nx.ancestors(graph.structure, graph.output) | {graph.output, graph.input.name}
    return Graph(tuple(op for op in graph if op.name in needed), graph.output)
