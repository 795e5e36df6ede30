"""Values that a network's code has at hand, and names by which it asks for them: whether a tracer hears what they do.

What is no tensor to torch.fx, or is caught, no list of questions holds in full.  So what is known is listed: functions
of torch that tell a tracer of each call, code that runs where it is noted, numbers, texts, and what only holds such.
"""

from __future__ import annotations

import argparse
import builtins
import functools
import logging
import math
import types
import warnings
from collections import namedtuple
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import get_overridable_functions

from memsr_compiler.closures import leave_out_atoms
from memsr_compiler.trace.own_code.own_files import is_foreign
from memsr_compiler.trace.own_code.own_kinds import has_own_methods
from memsr_compiler.trace.own_code.statements import ASKING, TELLING

_BUILTINS = frozenset([
    range, len, zip, enumerate, super, reversed, sum, max, min, abs, list, tuple, int, float, bool,
    all, any, dict, frozenset, iter, map, next, round, set, sorted, str,
])  # fmt: skip
"""Of a proxy they ask by its own methods, which are heard: its sign, its text, its hash, what is in it."""
_NO_TENSORS = frozenset((
    "apply_", "backward", "grad", "grad_fn", "map2_", "map_", "name", "names", "record_stream",
    "register_hook", "register_post_accumulate_grad_hook", "retain_grad",
))  # fmt: skip
"""Names of a tensor whose values are None, or run code, where a tracer makes one more tensor of them."""
_METHODS = frozenset((
    "append", "children", "extend", "forward", "get", "get_submodule", "insert", "items", "keys", "lower",
    "named_children", "parameters", "startswith", "endswith", "training", "upper", "values", "__init__",
))  # fmt: skip
_FIELD = type(vars(namedtuple("_FIELD", "name"))["name"])  # by which a named tuple gives one of its values
_PLAIN = (int, float, str, type(None), slice, range, torch.dtype, torch.device, torch.Size, Tensor, nn.Module, _FIELD)

_CONTEXTS = frozenset([
    torch.no_grad, torch.enable_grad, torch.inference_mode, torch.set_grad_enabled, torch.autocast,
    torch.cuda.amp.autocast, torch.autograd.profiler.record_function, nullcontext,
])  # fmt: skip
"""Contexts that ask no tensor, call nobody's code and catch nothing; others are no known values."""
_TELLS = frozenset([
    print, warnings.warn,
    *(getattr(home, name) for home in (logging, logging.Logger) for name in ("debug", "info", "warning", "error")),
])  # fmt: skip
"""Functions that tell a person: texts of tensors are heard as they are made."""
_THE_SAME = frozenset([
    *(getattr(torch.jit, name) for name in ("is_scripting", "is_tracing")), torch.onnx.is_in_onnx_export, torch._assert,
    torch.arange, torch.eye, torch.full, torch.linspace, torch.ones, torch.tensor, torch.zeros,
    *(f for f in vars(math).values() if callable(f)),
])  # fmt: skip
"""Functions that give for a proxy what they give for a tensor, or end the trace: they take numbers, which it is not."""
_OF_CLASSES = frozenset((
    "__annotations__", "__class_getitem__", "__dataclass_fields__", "__dataclass_params__", "__dict__", "__doc__",
    "__firstlineno__", "__getnewargs__", "__hash__", "__init_subclass__", "__match_args__", "__module__",
    "__qualname__", "__replace__", "__repr__", "__static_attributes__", "__weakref__",
))  # fmt: skip
"""What Python notes of a class, and dataclasses put there."""


class KnownValues:
    """Values that a network holds, by the names that its code may ask for; which of them, and of others, are known.

    parts   names of modules, parameters and buffers
    kinds   classes of the network's modules, but torch's own
    """

    def __init__(self, model: nn.Module) -> None:
        self.parts, self.kinds = set[str](), set[type]()
        self._held = dict[str, list[Any]]()
        for module in model.modules():
            parts: Sequence[Mapping[str, Any]] = (module._modules, module._parameters, module._buffers)
            kinds = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.")]
            self.parts.update(*parts)
            self.kinds.update(kinds)
            for values in (vars(module), *parts, *map(vars, kinds)):
                for name, value in values.items():
                    self._held.setdefault(name, []).append(value)
        self._noted = dict[int, Any]()  # held, so that no other gets its id
        for value in [value for values in self._held.values() for value in values]:
            self.is_known(value)  # and so what it holds is

    def held(self, name: str) -> Sequence[Any]:
        """All values of this name, in whichever object."""
        return self._held.get(name, ())

    def find_sign(self, name: str) -> bool | None:
        """Whether all that has this name is true, or false; None where it is neither, or no plain value."""
        held = self.held(name)
        plain = all(isinstance(v, (bool, int, str, type(None))) for v in held) and name not in _heard_methods()
        answers = {bool(v) for v in held} if plain else set()
        return next(iter(answers)) if len(answers) == 1 else None

    def are_names_known(self, begins: str) -> bool:
        """Whether all names that begin so may stand in the code."""
        return all(map(self.is_known_name, (n for n in (*self._held, *of_modules()) if n.startswith(begins))))

    def is_known_name(self, name: str) -> bool:
        """Whether the name of an attribute, of a value at run time, may stand in the code."""
        held = self.held(name)
        named = bool(held) or name in _METHODS or name in _heard_methods()
        nobodys = not name.startswith("_") and name not in _names_of_others()  # whoever asks for it fails
        return (named or nobodys) and all(self.is_known(value) and not poses(name, value) for value in held)

    def is_known(self, value: Any, depth: int = 4) -> bool:
        if isinstance(value, type) and _is_one_of(value, _CONTEXTS):
            return True
        if not all(map(runs_by_functions, self._note(value))):
            return False
        if isinstance(value, Tensor) and has_own_methods(type(value)):
            return False  # whose methods torch calls, and a tracer does not
        if isinstance(value, (staticmethod, classmethod, MethodType)):
            value = value.__func__
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, FunctionType):
            heard = value in _heard_functions() or value in _THE_SAME | _TELLS
            return heard or is_foreign(value.__code__.co_filename)  # what runs of it is noted
        if isinstance(value, type):
            return _is_one_of(value, _BUILTINS) or issubclass(value, (nn.Module, BaseException))
        if isinstance(value, functools.partial) and type(value) is functools.partial:
            return depth > 0 and all(self.is_known(v, depth - 1) for v in (value.func, value.args, value.keywords))
        if isinstance(value, (list, tuple, set, frozenset)) and type(value) is not torch.Size:
            for name in getattr(value, "_fields", ()):
                self._hold(str(name), getattr(value, name, None))
            return depth > 0 and all(self.is_known(inner, depth - 1) for inner in leave_out_atoms(value))
        if isinstance(value, dict):
            inside = leave_out_atoms((*value, *value.values()))
            return depth > 0 and all(self.is_known(inner, depth - 1) for inner in inside)
        if isinstance(value, _PLAIN) or _is_one_of(value, _known_functions()):
            return True
        return depth > 0 and self._holds_known(value, depth)

    def _holds_known(self, value: Any, depth: int) -> bool:
        """Whether a value only holds others under names: a namespace, a dataclass, an object of options."""
        kinds = [] if type(value) in _NAMESPACES else type(value).__mro__[:-1]
        if not hasattr(value, "__dict__") or not all(type(k) is type and runs_by_functions(k) for k in kinds):
            return False
        held = [pair for kind in kinds for pair in vars(kind).items() if pair[0] not in _OF_CLASSES]
        for name, inner in (*held, *vars(value).items()):
            if not self.is_known(inner, depth - 1):
                return False
            self._hold(name, inner)
        return True

    def _note(self, value: Any) -> list[type]:
        """Hold what a value has under names, itself and by its kinds: code may ask it for them.  Somebody's kinds."""
        kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
        foreign = [kind for kind in kinds if kind.__module__.partition(".")[0] not in _LIBRARIES]
        own = {} if isinstance(value, (type, ModuleType)) else getattr(value, "__dict__", {})
        if (own or foreign) and id(value) not in self._noted:
            self._noted[id(value)] = value
            for name, inner in [pair for held in (*map(vars, foreign), own) for pair in held.items()]:
                if not name.startswith("_"):
                    self._hold(name, inner)
        return foreign

    def _hold(self, name: str, value: Any) -> None:
        held = self._held.setdefault(name, [])
        if not any(value is other for other in held):
            held.append(value)


_LIBRARIES = frozenset((
    "_collections", "argparse", "builtins", "collections", "functools", "memsr_compiler", "numpy", "torch",
    "types", "typing",
))  # fmt: skip
_NAMESPACES = (argparse.Namespace, types.SimpleNamespace)


@cache
def runs_by_functions(kind: type) -> bool:
    """Whether all that runs for a class by itself is somebody's functions, and of the few that torch calls as we do.

    What Python calls for operators, loops, indices and truths runs beside tensors, or within torch, where nobody hears.
    """
    of_data = "__dataclass_fields__" in vars(kind)
    return kind.__module__.partition(".")[0] in _LIBRARIES or all(
        _is_noted(name, value, of_data) for name, value in vars(kind).items()
    )


def _is_noted(name: str, value: Any, of_data: bool) -> bool:
    if not name.startswith("__") or name in _OF_CLASSES or not (callable(value) or hasattr(value, "__get__")):
        return True
    if name == "__new__" and isinstance(value, staticmethod):
        value = value.__func__
    known = name in _SPECIAL or (of_data and name in _OF_DATA)
    return known and isinstance(value, FunctionType) and is_foreign(value.__code__.co_filename)


_SPECIAL = frozenset((
    "__call__", "__deepcopy__", "__getstate__", "__init__", "__new__", "__post_init__", "__reduce__", "__setstate__",
    "__str__",
))  # fmt: skip
_OF_DATA = frozenset(("__delattr__", "__eq__", "__ge__", "__gt__", "__le__", "__lt__", "__setattr__"))
"""Which dataclasses make themselves."""


def poses(name: str, value: Any) -> bool:
    """Whether somebody's function is named as one that only tells what it is given, or only asks: it may keep it."""
    function = value.__func__ if isinstance(value, MethodType) else value
    return isinstance(function, FunctionType) and name in TELLING | ASKING and function not in _TELLS


def _is_one_of(value: Any, known: frozenset[Any]) -> bool:
    return _is_hashable(value) and value in known


@cache
def of_modules() -> frozenset[str]:
    """Names of what torch's own modules have."""
    return frozenset((*dir(nn.Module), *vars(nn.Module())))


@cache
def _names_of_others() -> frozenset[str]:
    """Names of what values have that code may come by, besides what the network holds."""
    kinds = [v for v in vars(builtins).values() if isinstance(v, type)]
    kinds += [v for v in (*vars(nn).values(), *vars(types).values(), *vars(torch).values()) if isinstance(v, type)]
    returned = [v for v in vars(torch.return_types).values() if isinstance(v, type)]
    return of_modules().union(*map(dir, [*kinds, *returned]))


@cache
def _heard_functions() -> frozenset[Any]:
    """Functions of torch that tell a tracer of each call."""
    found = get_overridable_functions()
    return frozenset(f for home, functions in found.items() if home is not Tensor for f in functions)


@cache
def _known_functions() -> frozenset[Any]:
    return _BUILTINS | _heard_functions() | _THE_SAME | _TELLS


@cache
def _heard_methods() -> frozenset[str]:
    return frozenset(name for name in dir(Tensor) if not name.startswith("_")) - _NO_TENSORS


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
