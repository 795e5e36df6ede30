"""Other names for parts of networks with whose names torch.fx and torch.export, which write code, write none."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import cache
from itertools import count
from keyword import iskeyword
from typing import Any

from torch import fx, nn


def rename_in_graph(graph: fx.Graph, network: nn.Module) -> None:
    """Give what a graph names other names in its network, beside its own, where torch.fx can write no code with them.

    As `nn.ModuleDict({"in": ..., "class": ...})`, or `self.graph`, which its own modules have.
    """
    named = [node for node in graph.nodes if node.op in ("get_attr", "call_module")]
    given = _list_renamed(network, [str(node.target) for node in named])
    for path, name in given.items():
        setattr(network, name, operator.attrgetter(path)(network))
    for node in named:
        node.target = given.get(str(node.target), node.target)


def rename_in_program(program: Any, network: nn.Module) -> dict[str, str]:
    """Give what torch.export can write no code with other names in its program; these, and what they stand for."""
    specs = (*program.graph_signature.input_specs, *program.graph_signature.output_specs)
    given = _list_renamed(network, [spec.target for spec in specs if spec.target is not None])
    for spec in specs:
        spec.target = given.get(spec.target, spec.target)
    for held in (program.state_dict, program.constants):
        for path in given.keys() & held.keys():
            held[given[path]] = held.pop(path)
    return {name: path for path, name in given.items()}


def _list_renamed(network: nn.Module, paths: Iterable[str]) -> dict[str, str]:
    """Names that nothing in a network has, for those of its parts with which torch.fx can write no code."""
    odd = [path for path in dict.fromkeys(paths) if _is_odd(path)]
    free = (name for i in count() if not hasattr(network, name := f"_named_{i}"))
    return dict(zip(odd, free, strict=False))


def _is_odd(path: str) -> bool:
    first, *others = path.split(".")
    return first in _names_of_programs() or any(map(_is_no_name, (first, *others)))


@cache
def _names_of_programs() -> frozenset[str]:
    return frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) - frozenset(dir(nn.Module()))


def _is_no_name(part: str) -> bool:
    """Whether torch.fx, which writes `self.part` or `getattr(self, "part")`, would write no Python."""
    return iskeyword(part) or repr(part) != f"'{part}'" or '"' in part
