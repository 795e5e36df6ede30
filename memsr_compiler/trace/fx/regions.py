"""Parts of programs of torch.export within `torch.no_grad()` and the like, which are graphs of their own there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx, nn

from memsr_compiler.torch_helpers import walk

_GRAPH_AT = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
"""Where among its arguments an operation has the graph that it runs; what that takes stands behind it."""


def inline_regions(program: fx.GraphModule) -> None:
    """Put the nodes of these parts where they are called: on images in float64, without gradients, that is the same.

    `refuse_autocast` has refused those that round.  All that a part computes with is given to it: it has no weights.
    """
    for call in list(program.graph.nodes):
        place = _graph_at(call)
        if place is not None:
            _inline(program, call, call.args[place], call.args[place + 1 :])
    program.graph.lint()
    program.recompile()


def list_regions(program: fx.GraphModule) -> set[str]:
    """Names of the modules that are graphs of their own for how they are run, and not for what they compute."""
    places = ((node, _graph_at(node)) for node in program.graph.nodes)
    return {str(node.args[place].target) for node, place in places if place is not None}


def list_programs(model: nn.Module) -> list[fx.GraphModule]:
    """The programs of torch.fx in a network, but for such modules."""
    programs = [module for _, module in walk(model) if isinstance(module, fx.GraphModule)]
    regions = {program.get_submodule(path) for program in programs for path in list_regions(program)}
    return [program for program in programs if program not in regions]


def list_nodes(program: nn.Module) -> Iterator[tuple[fx.Graph, Any]]:
    """The nodes of a program with their graphs, those of its parts too."""
    for part in program.modules():
        if isinstance(part, fx.GraphModule):
            yield from ((part.graph, node) for node in part.graph.nodes)


def _graph_at(node: fx.Node) -> int | None:
    place = _GRAPH_AT.get(getattr(node.target, "_name", "")) if node.op == "call_function" else None
    return place if place is not None and len(node.args) > place and isinstance(node.args[place], fx.Node) else None


def _inline(program: fx.GraphModule, call: fx.Node, part: fx.Node, given: tuple[Any, ...]) -> None:
    path = str(part.target)
    inner = program.get_submodule(path)
    assert isinstance(inner, fx.GraphModule), path
    inline_regions(inner)
    found: dict[fx.Node, fx.Node] = dict(zip(inner.graph.find_nodes(op="placeholder"), given, strict=True))
    with program.graph.inserting_before(call):
        for node in inner.graph.nodes:
            if node.op not in ("placeholder", "output"):
                found[node] = program.graph.node_copy(node, found.__getitem__)
    results: Any = fx.map_arg(inner.graph.output_node().args[0], found.__getitem__)
    for user in list(call.users):  # each takes one of them
        user.replace_all_uses_with(results[user.args[1]])
        program.graph.erase_node(user)
    program.graph.erase_node(call)
    if not part.users:
        program.graph.erase_node(part)
        if not program.graph.find_nodes(op="get_attr", target=part.target):
            program.delete_submodule(path)
