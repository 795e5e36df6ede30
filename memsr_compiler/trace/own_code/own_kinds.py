"""Kinds of tensors and numbers with methods of their own, which no tracer calls: it puts proxies in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from memsr_compiler.trace.own_code.own_files import is_foreign

_MADE_AND_SHOWN = frozenset((
    "__class_getitem__", "__copy__", "__deepcopy__", "__format__", "__getnewargs__", "__getnewargs_ex__",
    "__getstate__", "__init__", "__init_subclass__", "__new__", "__reduce__", "__reduce_ex__", "__repr__",
    "__setstate__", "__str__",
))  # fmt: skip
"""Methods by which nothing is computed."""
_MOST = 256  # values of one container


def find_own_kind(model: nn.Module) -> str:
    """The name of a kind of tensors, or of numbers, that modules hold, with methods or operators of its own; or ""."""
    held = (value for module in model.modules() for value in _list_leaves(vars(module)))
    kinds: dict[Any, None] = dict.fromkeys(type(value) for value in held if isinstance(value, (Tensor, int, float)))
    return next((kind.__qualname__ for kind in kinds if has_own_methods(kind)), "")


def _list_leaves(held: object, depth: int = 4) -> Iterator[object]:
    if isinstance(held, (Mapping, list, tuple)) and depth:
        for value in islice(held.values() if isinstance(held, Mapping) else held, _MOST):
            yield from _list_leaves(value, depth - 1)
    else:
        yield held


@cache
def has_own_methods(kind: type) -> bool:
    """Whether it has foreign methods by which something may be computed.

    Those of a number that are no operators are called as they stand.
    """
    for name, value in (pair for base in kind.__mro__ for pair in vars(base).items()):
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        function = function.fget if isinstance(function, property) else function
        own = isinstance(function, FunctionType) and is_foreign(function.__code__.co_filename)
        if own and name not in _MADE_AND_SHOWN and (issubclass(kind, Tensor) or name.startswith("__")):
            return True
    return False
