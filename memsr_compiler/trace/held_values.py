"""Values that modules, their classes and functions hold, in attributes and in containers: put back after a run.

A trace leaves its proxies in classes; a run leaves in the network what its code keeps: results of hooks, or kernels
that are made once, here without a way for gradients.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FunctionType, SimpleNamespace
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import Tensor, nn

from memsr_compiler.torch_helpers import require_told_apart
from memsr_compiler.trace.remembered import list_functions

P = ParamSpec("P")
R = TypeVar("R")
_DEPTH = 4  # of containers within each other


def leaving_values(read: Callable[Concatenate[nn.Module, P], R]) -> Callable[Concatenate[nn.Module, P], R]:
    """Let a function that runs a network, its first argument, leave all modules and their classes as they were."""

    @wraps(read)
    def leave(model: nn.Module, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if isinstance(model, nn.Module):
            require_told_apart(model)
        with putting_back(model):
            return read(model, *args, **kwargs)

    return leave


@contextmanager
def putting_back(model: object) -> Iterator[None]:
    """Put back what modules, classes and functions of a network hold, defaults and globals too, once it was run."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    kinds = {kind for module in modules for kind in type(module).__mro__ if _is_somebodys(kind)}
    held = {kind: dict(vars(kind)) for kind in kinds}
    functions = list_functions(model) if isinstance(model, nn.Module) else ()
    named = [(f.__globals__, _list_named(f)) for f in functions if isinstance(f, FunctionType)]
    kept = dict[int, tuple[Any, Any]]()
    _note([vars(module) for module in modules], kept, _DEPTH)
    for values in (*held.values(), *(values for _, values in named)):
        _note(list(values.values()), kept, _DEPTH)
    try:
        yield
    finally:
        for kind, values in held.items():
            _put_back_attributes(kind, values)
        for namespace, values in named:
            namespace.update({name: value for name, value in values.items() if name in namespace})
        for container, values in kept.values():
            _put_back_values(container, values)


def _list_named(function: FunctionType) -> dict[str, Any]:
    """Globals that a function names, and beside them its defaults, under no name that there could be."""
    names = {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}
    return {**names, "(defaults)": [function.__defaults__, function.__kwdefaults__]}


def _is_somebodys(kind: type) -> bool:
    """Whether a class is no part of Python or torch: a logger leads to all others, which are nobody's to put back."""
    return kind in _NAMESPACES or kind.__module__.partition(".")[0] not in _NOBODYS


_NOBODYS = sys.stdlib_module_names | {"torch"}
_NAMESPACES = (Namespace, SimpleNamespace)
_CONTAINERS = (list, tuple, set, deque, dict)


def _note(values: list[Any], kept: dict[int, tuple[Any, Any]], depth: int) -> None:
    """Note what containers hold, by their ids: lists, tables, sets, and objects of somebody's."""
    for value in values if depth else ():
        inside = value if issubclass(type(value), _CONTAINERS) else _table_of(value)
        if inside is None or id(inside) in kept:
            continue
        if not isinstance(inside, tuple):
            kept[id(inside)] = inside, dict(inside) if isinstance(inside, dict) else list(inside)
        _note(list(inside.values() if isinstance(inside, dict) else inside), kept, depth - 1)


def _table_of(value: Any) -> dict[str, Any] | None:
    """The attributes of an object of somebody's, where it has a table of them."""
    if issubclass(type(value), (Tensor, type, FunctionType)) or not _is_somebodys(type(value)):
        return None
    return getattr(value, "__dict__", None)


def _put_back_attributes(kind: type, values: dict[str, Any]) -> None:
    for name in [name for name in vars(kind) if name not in values and not name.startswith("__")]:
        type.__delattr__(kind, name)
    for name, value in values.items():
        if not name.startswith("__") and vars(kind).get(name, values) is not value:
            type.__setattr__(kind, name, value)


def _put_back_values(container: Any, values: Any) -> None:
    if isinstance(container, dict):
        same = list(container) == list(values) and all(container[key] is value for key, value in values.items())
    else:
        same = len(container) == len(values) and all(a is b for a, b in zip(container, values, strict=True))
    if not same:
        container.clear()
        container.update(values) if isinstance(container, (dict, set)) else container.extend(values)
