"""Whether code keeps something from one run to the next where no weights are: attributes, tables, lists, globals."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from itertools import pairwise
from types import CodeType, FunctionType

from torch import nn

from memsr_compiler.trace.own_files import is_foreign

_STORES = frozenset(("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF", "STORE_SUBSCR"))
_CHANGES = frozenset((
    "__dict__", "__setattr__", "__setitem__", "add", "append", "appendleft", "clear", "extend", "globals", "insert",
    "pop", "popitem", "popleft", "remove", "setattr", "setdefault", "update", "vars",
))  # fmt: skip
"""Names under which containers and attributes are changed."""


def keeps_values(code: CodeType) -> bool:
    """Whether code may do so; what it changes of a value of its own, `features.append(y)`, ends with it."""
    for before, step in pairwise(dis.get_instructions(code)):
        own = before.opname.startswith("LOAD_FAST")
        if step.opname in _STORES and not (own and step.opname == "STORE_DEREF"):
            return True
        if step.argval in _CHANGES and step.opname.startswith("LOAD_") and not own:
            return True
    return False


def keeps_outside(model: nn.Module) -> bool:
    """Whether a network's classes, or functions beside them, may keep something that a copy of it would find."""
    return any(
        hasattr(function, "cache_info") or (isinstance(function, FunctionType) and keeps_values(function.__code__))
        for function in _list_functions(model)
    )


def _list_functions(model: nn.Module) -> Iterator[object]:
    kinds = {kind for module in model.modules() for kind in type(module).__mro__ if kind is not nn.Module}
    for kind in kinds:
        forward = vars(kind).get("forward")
        if isinstance(forward, FunctionType) and is_foreign(forward.__code__.co_filename):
            yield from (value for name, value in vars(kind).items() if name != "__init__")
            yield from forward.__globals__.values()
