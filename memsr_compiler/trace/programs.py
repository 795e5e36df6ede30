"""Programs of torch.fx, those of torch.export among them: what runs of one is its graph, and nothing besides."""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import fx

from memsr_compiler.trace.own_files import is_foreign

_OPERATIONS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator)
_UNHEARD = ("attrgetter", "call", "contains", "countOf", "indexOf", "is_", "is_not", "itemgetter", "methodcaller")
_ARITHMETIC = frozenset(getattr(operator, name) for name in operator.__all__ if name not in _UNHEARD)


def is_graph_alone(program: fx.GraphModule, knows: Callable[[Any], bool], knows_name: Callable[[str], bool]) -> bool:
    """Whether torch calls a program as it calls its own, and all that its graph calls tells a tracer of it.

    knows        whether a function is known to do so
    knows_name   whether the name of a method, or of an attribute, is
    """
    code = program.graph._codegen
    made = not is_foreign(_file_of(type(code).generate_output)) and code._body_transformer is None
    calls = [vars(base)["__call__"] for base in type(program).__mro__ if "__call__" in vars(base)]
    kind: Any = type(program)
    as_torch_does = kind._wrapped_call.cls_call is None and not any(map(is_foreign, map(_file_of, calls)))
    return made and as_torch_does and all(_is_told(node, knows, knows_name) for node in program.graph.nodes)


def _is_told(node: fx.Node, knows: Callable[[Any], bool], knows_name: Callable[[str], bool]) -> bool:
    if node.op == "call_method":
        return knows_name(str(node.target))
    if node.op != "call_function":
        return True
    if node.target is getattr:
        return isinstance(node.args[1], str) and knows_name(node.args[1])
    return isinstance(node.target, _OPERATIONS) or node.target in _ARITHMETIC or knows(node.target)


def _file_of(function: Any) -> str:
    return function.__code__.co_filename if isinstance(function, FunctionType) else ""
