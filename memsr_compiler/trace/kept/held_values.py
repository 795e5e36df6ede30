"""Values that a network holds, itself and wherever its code leads: put back after a run.

A trace leaves its proxies in classes; a run leaves what code keeps: results of hooks, kernels that are made once, here
without a way for gradients, or something of the image, which the next run would find.  Whatever code changes it comes
to by something that it holds: attributes, classes, cells of closures, defaults, names of globals.  So the walk goes
from the network along all of these, and stops at what is Python's, torch's or ours.
"""

from __future__ import annotations

import gc
import sys
import threading
from argparse import Namespace
from collections import UserDict, UserList, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache, partial, partialmethod, wraps
from types import (
    BuiltinMethodType,
    CellType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

import torch
from torch import Tensor, nn

from memsr_compiler.closures import PLAIN, is_plain_tuple
from memsr_compiler.torch_helpers import leaving_transforms, require_told_apart
from memsr_compiler.trace.kept.noted import (
    ABSENT,
    Change,
    Noted,
    NotedCache,
    NotedCell,
    NotedContainer,
    NotedKind,
    NotedNames,
    NotedSlot,
    NotedTensor,
    Place,
    open_cell,
    read_slot,
)
from memsr_compiler.trace.own_code.own_files import is_foreign

P = ParamSpec("P")
R = TypeVar("R")
_NOBODYS = sys.stdlib_module_names | {"torch", "numpy", "memsr_compiler"}
_TABLES = (
    Namespace, SimpleNamespace, UserDict, UserList, WeakKeyDictionary, WeakValueDictionary, threading.local,
)  # fmt: skip
"""Python's classes of objects that hold what somebody puts there, in attributes."""
_CONTAINERS = (list, tuple, set, frozenset, deque, dict)
_FIXED = (tuple, frozenset)
_PARTS: dict[type, tuple[str, ...]] = {
    BuiltinMethodType: ("__self__",), MethodWrapperType: ("__self__",), MethodType: ("__func__", "__self__"),
    cached_property: ("func",), classmethod: ("__func__",), partial: ("func", "args", "keywords"),
    partialmethod: ("func", "args", "keywords"), property: ("fget", "fset", "fdel"), staticmethod: ("__func__",),
}  # fmt: skip
"""By which attributes one comes from these to what they call, and with what."""
_PLAIN = PLAIN | {object, torch.device, torch.dtype, torch.Size}
_TENSORS = (Tensor, nn.Parameter, nn.Buffer)
_MOST = 2**22  # values of all tensors that are noted besides weights: what is kept of small images is small
_INSIDE = 2**12  # parts of a container that is looked into: one of more is data


def leaving_values(read: Callable[Concatenate[nn.Module, P], R]) -> Callable[Concatenate[nn.Module, P], R]:
    """Let a function that runs a network, its first argument, leave all that it holds as it was, but for weights."""

    @wraps(read)
    def leave(model: nn.Module, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if isinstance(model, nn.Module):
            require_told_apart(model)
        with putting_back(model):
            return read(model, *args, **kwargs)

    return leave


@contextmanager
def putting_back(*models: object, weights: bool = False) -> Iterator[Held]:
    """Put back what networks hold, themselves and wherever their code leads, once they were run.

    weights   the values of their parameters and buffers, too
    """
    held = Held([model for model in models if isinstance(model, nn.Module)], weights=weights)
    try:
        with leaving_transforms():
            yield held
    finally:
        held.put_back()


def leaving_nothing(model: nn.Module) -> Callable[[Tensor], Any]:
    """A network as a function of an image of which it keeps nothing, in weights neither: each is its first."""

    def run(image: Tensor) -> Any:
        with putting_back(model, weights=True):
            return model(image)

    return run


class Held:
    """All that networks hold now; weights as in `putting_back`."""

    def __init__(self, models: Sequence[nn.Module], *, weights: bool) -> None:
        self._models, self._weights, self._room = models, weights, _MOST
        self._packages = {type(module).__module__.partition(".")[0] for model in models for module in model.modules()}
        self._noted: list[Noted] = []
        self._seen: dict[object, object] = {}  # by ids, which nobody else may get meanwhile
        self._waiting = deque[tuple[Any, Place]]()
        for model in models:
            self._wait(model, Place(type(model).__name__, None, outside=False))
        while self._waiting:
            self._note(*self._waiting.popleft())

    def list_changes(self) -> list[Change]:
        """All that is not as it was."""
        return [change for noted in self._noted for change in noted.changes()]

    def put_back(self) -> None:
        """Make all what it was."""
        for noted in self._noted:
            noted.put_back()

    @contextmanager
    def as_it_was(self) -> Iterator[None]:
        """Make all what it was, and afterwards what it is now."""
        now = Held(self._models, weights=self._weights) if self.list_changes() else None
        if now is not None:
            self.put_back()
        try:
            yield
        finally:
            if now is not None:
                now.put_back()

    def _is_new(self, value: object, key: object = None) -> bool:
        key = id(value) if key is None else key
        new = key not in self._seen
        self._seen[key] = value
        return new

    def _wait(self, value: Any, place: Place) -> None:
        if type(value) not in _PLAIN and self._is_new(value):
            self._waiting.append((value, place))

    def _wait_for(self, values: Mapping[Any, Any], place: Place) -> None:
        for name, value in values.items():
            if type(value) not in _PLAIN and not is_plain_tuple(value) and self._is_new(value):
                self._waiting.append((value, place.inside(name)))

    def _note(self, value: Any, place: Place) -> None:
        """Note what of a value may be changed, and let wait what it holds."""
        kind = type(value)
        if issubclass(kind, _CONTAINERS):
            self._note_container(value, place)
        elif issubclass(kind, Tensor):
            self._note_tensor(value, place)
        elif issubclass(kind, nn.Module):
            self._note_module(value, place)
        elif issubclass(kind, type):
            self._note_kind(value)
        elif kind is FunctionType:
            self._note_function(value)
        elif kind is CellType:
            self._noted.append(NotedCell(place, value, open_cell(value)))
            self._wait(open_cell(value), place)
        elif issubclass(kind, ref):
            self._wait(value(), place)
        elif parts := next((parts for base, parts in _PARTS.items() if issubclass(kind, base)), ()):
            for part in parts:
                self._wait(getattr(value, part), place)
        elif hasattr(kind, "cache_info"):
            self._note_cache(value)
        elif kind in _TABLES or (_is_somebodys(kind) and not (place.outside and self._is_others(kind.__module__))):
            self._note_object(value, place)

    def _is_others(self, name: object) -> bool:
        """Whether a file of code is of an installed package without modules of the network: it keeps its own affairs.

        Threads of a package that logs, say, go on meanwhile.
        """
        package = str(name).partition(".")[0]
        return package not in self._packages and _is_installed(package)

    def _note_container(self, value: Any, place: Place) -> None:
        if not isinstance(value, _FIXED):
            self._noted.append(NotedContainer.of(place, value))
        if 0 < len(value) <= _INSIDE:
            self._wait_for(dict(value if isinstance(value, dict) else enumerate(value)), place)
        if _is_somebodys(type(value)):
            self._note_object(value, place)

    def _note_module(self, module: nn.Module, place: Place) -> None:
        held = vars(module)
        for name in ("_parameters", "_buffers", "_modules"):
            table = held.get(name)
            if isinstance(table, dict) and self._is_new(table):
                self._noted.append(NotedContainer.of(place, table))
                left = name != "_modules" and not (self._weights or place.outside)
                for key, value in table.items():
                    self._is_new(value) if left else self._wait(value, place.inside(key))
        self._note_object(module, place)

    def _note_object(self, value: Any, place: Place) -> None:
        """The attributes of an object, and its class."""
        self._wait(type(value), place)
        table = None
        with suppress(Exception):  # whatever an object raises that stands for another
            table = value.__dict__
        if isinstance(table, dict) and self._is_new(table):
            self._noted.append(NotedContainer.of(place, table))
            self._wait_for(table, place)
        for name, slot in _list_slots(type(value)):
            held = read_slot(value, slot)
            self._noted.append(NotedSlot(place.inside(name), value, slot, held))
            self._wait(held, place.inside(name))

    def _note_kind(self, kind: type) -> None:
        place = Place(kind.__qualname__, None, outside=True)
        if _is_somebodys(kind) and not self._is_others(kind.__module__):
            values = dict(vars(kind))
            self._noted.append(NotedKind(place, kind, values))
            self._wait_for(values, place)
            self._wait(type(kind), place)
        for base in kind.__bases__:
            self._wait(base, place)

    def _note_function(self, function: FunctionType) -> None:
        """The values that a function closes over, its defaults and attributes; and what it names, if somebody's."""
        place = Place(function.__qualname__, None, outside=True)
        self._wait_for(dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)), place)
        defaults = function.__defaults__ or ()
        given = function.__code__.co_varnames[: function.__code__.co_argcount]
        self._wait_for(dict(zip(given[len(given) - len(defaults) :], defaults, strict=True)), place)
        self._wait_for(function.__kwdefaults__ or {}, place)
        for table in (vars(function), function.__kwdefaults__):
            self._wait(table, place)
        others = self._is_others(function.__globals__.get("__name__"))
        if is_foreign(function.__code__.co_filename) and not others:
            self._note_names(function.__globals__, _list_names(function.__code__))

    def _note_names(self, namespace: dict[str, Any], names: frozenset[str]) -> None:
        """Note what code finds by these names in its file, and in others that it has by name."""
        if not self._is_new(namespace, (id(namespace), names)):
            return
        place = Place(namespace.get("__name__", "a global"), None, outside=True)
        values = {name: namespace.get(name, ABSENT) for name in names}
        self._noted.append(NotedNames(place, namespace, values))
        self._wait_for(values, place)
        package = namespace.get("__package__")
        imported = [sys.modules.get(way) for name in names for way in (name, f"{package}.{name}")]
        modules = [value for value in (*values.values(), *imported) if isinstance(value, ModuleType)]
        for module in modules:
            foreign = is_foreign(str(getattr(module, "__file__", None) or "<frozen"))
            if foreign and not self._is_others(module.__name__):
                self._note_names(vars(module), names)

    def _note_tensor(self, tensor: Tensor, place: Place) -> None:
        with suppress(Exception):  # one without numbers, say
            room = self._weights or tensor.numel() <= self._room
            if type(tensor) in _TENSORS and room:
                self._room -= tensor.numel()
                self._noted.append(NotedTensor(place, tensor, tensor.detach().clone()))

    def _note_cache(self, cache: Any) -> None:
        place = Place(getattr(cache, "__qualname__", "a cache"), None, outside=True)
        with suppress(Exception):  # something else that has methods of these names
            if cache.cache_info().currsize == 0 and callable(cache.cache_clear):
                self._noted.append(NotedCache(place, cache))
        self._wait(getattr(cache, "__wrapped__", None), place)
        for held in gc.get_referents(cache):  # of which its results have no other name
            order = type(held) is dict and any(type(value).__name__ == "_lru_list_elem" for value in held.values())
            if not order:
                self._wait(held, place)


@lru_cache(4096)
def _list_names(code: CodeType) -> frozenset[str]:
    """Names that code, and what is made in it, asks for, also as texts: `globals()["last"]`."""
    inner = [_list_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    texts = {const for const in code.co_consts if isinstance(const, str) and const.isidentifier()}
    return frozenset(code.co_names).union(texts, *inner)


@lru_cache(4096)
def _is_installed(package: str) -> bool:
    name = str(getattr(sys.modules.get(package), "__file__", None))
    return "site-packages" in name or "dist-packages" in name


def _list_slots(kind: type) -> list[tuple[str, MemberDescriptorType]]:
    tables = (vars(base) for base in kind.__mro__ if "__slots__" in vars(base) and _is_somebodys(base))
    pairs = (pair for table in tables for pair in table.items())
    return [(name, value) for name, value in pairs if isinstance(value, MemberDescriptorType)]


def _is_somebodys(kind: type) -> bool:
    """Whether a class is no part of Python, torch or ours: a logger leads to all others, nobody's to put back."""
    return not _is_nobodys(str(kind.__module__))


@lru_cache(4096)
def _is_nobodys(name: str) -> bool:
    return name.partition(".")[0] in _NOBODYS
