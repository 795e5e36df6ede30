"""Code that can ask nothing which a tracer does not hear, known by its forms.

What is no tensor to torch.fx, or is caught, no list of questions holds in full.  So code is trusted that calls modules,
functions of torch that tell a tracer of each call, and other code that runs, computes, and loops; none other is.
What a function does not come to, since an attribute of the network rules it out, is not looked at.
"""

from __future__ import annotations

import argparse
import builtins
import functools
import logging
import math
import re
import types
import warnings
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from itertools import pairwise
from traceback import FrameSummary
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import get_overridable_functions

from memsr_compiler.trace.own_files import is_foreign
from memsr_compiler.trace.own_kinds import computes
from memsr_compiler.trace.programs import is_graph_alone
from memsr_compiler.trace.statements import ASKING, TELLING, only_raises
from memsr_compiler.trace.steps import (
    Step,
    catches,
    find_call,
    is_added_to,
    is_cast,
    is_read_after,
    list_reached,
    list_steps,
    own_name,
    stands,
)

_STEPS = re.compile(
    r"CALL(_KW|_EX|_FUNCTION_EX)?|COPY|SWAP|WITH(_EXCEPT_START)?|PUSH_EXC_INFO|POP_(EXCEPT|BLOCK)|RERAISE"
    r"|RETURN_GENERATOR|YIELD_VALUE|(SET|MAP)_ADD|SET_UPDATE|DICT_UPDATE|BUILD_SET"
    r"|GEN_START|POP_(TOP|ITER|JUMP_\w+)|ROT_\w+|DUP_TOP\w*|RETURN_(VALUE|CONST)|JUMP_\w+|NOT_TAKEN|TO_BOOL|RAISE_VARARGS"
    r"|FOR_ITER|GET_ITER|END_FOR|UNPACK_SEQUENCE|UNPACK_EX|(BINARY|INPLACE|UNARY)_\w+|COMPARE_OP|IS_OP|CONTAINS_OP"
    r"|BUILD_(LIST|TUPLE|SLICE|MAP|CONST_KEY_MAP|STRING)|FORMAT(_WITH_SPEC)?|CONVERT_VALUE|LIST_(APPEND|EXTEND|TO_TUPLE)|CALL_INTRINSIC_1|DICT_MERGE"
    r"|LOAD_(CONST|GLOBAL|ATTR|SUPER_ATTR|CLOSURE|DEREF|FAST\w*|ASSERTION_ERROR|COMMON_CONSTANT)"
    r"|STORE_(ATTR|FAST\w*|DEREF|SUBSCR|SLICE)|MAKE_(CELL|FUNCTION)|SET_FUNCTION_ATTRIBUTE"
)
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
"""Contexts that ask no tensor, call nobody's code and catch nothing."""
_TELLING = frozenset([
    print, warnings.warn,
    *(getattr(home, name) for home in (logging, logging.Logger) for name in ("debug", "info", "warning", "error")),
])  # fmt: skip
"""Functions by which constants may be told: what nobody makes of the image says nothing of it, whoever reads it."""
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


class PlainCode:
    """Whether all code that is noted is of known forms, in a network with these modules."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._held = dict[str, list[Any]]()
        self._parts, self._kinds = set[str](), set[type]()
        for module in model.modules():
            parts: Sequence[Mapping[str, Any]] = (module._modules, module._parameters, module._buffers)
            kinds = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.")]
            self._parts.update(*parts)
            self._kinds.update(kinds)
            for values in (vars(module), *parts, *map(vars, kinds)):
                for name, value in values.items():
                    self._held.setdefault(name, []).append(value)
        self._codes = dict[CodeType, bool]()
        self._of_modules = dict[CodeType, str]()
        self._kept = dict[str, CodeType]()
        self._read, self._read_so = set[str](), set[str]()  # names of attributes, and how they begin
        self._ruled_out = dict[str, bool]()
        self._noted = dict[int, Any]()  # held, so that no other gets its id
        for value in [value for values in self._held.values() for value in values]:
            self._is_known(value)  # and so what it holds is

    def holds(self, frame: FrameType) -> bool:
        """Whether a function that is called is of known forms, and given nothing else."""
        code, given = frame.f_code, frame.f_locals
        if code not in self._codes:
            self._codes[code] = self._is_plain(frame)
        known = self._codes[code] and all(
            self._is_known(value)
            for name, value in given.items()
            if name != ".0"  # of a comprehension
        )
        return known and (code not in self._of_modules or _is_module_alone(given.get(self._of_modules[code])))

    def forwards(self) -> bool:
        """Whether all that runs when modules are called is functions that a tracer runs too, of whoever's."""
        patched = any(isinstance(v, FunctionType) and is_foreign(v.__code__.co_filename) for v in vars(Tensor).values())
        programs = [module for module in self._model.modules() if isinstance(module, fx.GraphModule)]
        called = self._model in programs or type(self._model).__call__ is nn.Module.__call__
        called = called and type(self._model)._call_impl is nn.Module._call_impl
        graphs = all(is_graph_alone(program, self._is_known, self._is_known_name) for program in programs)
        functions = all(isinstance(value, (FunctionType, MethodType)) for value in self._held.get("forward", ()))
        hidden = any(isinstance(vars(kind).get(name), property) for kind in self._kinds for name in self._parts)
        kinds = all(map(_computes_by_functions, self._kinds))
        return called and graphs and functions and kinds and not (patched or hidden)

    def find_remembering(self) -> str:
        """The function that keeps what is read the next time, by name; "" where none does.

        While torch.fx traces, what was kept before is no proxy, and would decide unheard.
        """
        found = [
            code for name, code in self._kept.items() if name in self._read or name.startswith(tuple(self._read_so))
        ]
        if found:
            return str(getattr(found[0], "co_qualname", found[0].co_name))  # of Python 3.11
        late = any(bool(value) is not out for name, out in self._ruled_out.items() for value in self._held[name])
        if late or not all(map(self._is_known_name, self._read)):  # by what was met after it was looked at
            return type(self._model).__name__
        return ""

    def _is_plain(self, frame: FrameType) -> bool:
        code = frame.f_code
        steps = list_steps(code)
        own, run = own_name(code, steps), list_reached(steps, self._rules_out)
        if catches(code) or not all(_STEPS.fullmatch(steps[i].op) for i in run):
            return False
        of_none = [
            before.op == "LOAD_CONST" and before.value is None for before, s in pairwise(steps) if s.op == "IS_OP"
        ]
        if not all(of_none):
            return False  # a symbol is nothing else than itself, `(x.shape[2] > 100) is True`
        kept = [i for i in run if steps[i].op == "STORE_ATTR"]
        if not all(self._may_keep(code, steps, i, own) for i in kept):
            return False
        harmless = {k for i in kept for k, s in enumerate(steps) if s.op == "LOAD_ATTR" and s.value == steps[i].value}
        values = {i: (name, value) for i, name, value in _names_in(steps, frame) if i in run}
        entered = sum(_is_one_of(value, _CONTEXTS) for _, value in values.values())
        if entered != sum(steps[i].op == "WITH" for i in run):
            return False
        of_isinstance = [
            _find_classes(code, steps, i, values) for i, (_, value) in values.items() if value is builtins.isinstance
        ]
        if not all(of_isinstance):
            return False
        classes = set[int]().union(*of_isinstance)
        if not all(i in classes or self._is_known_step(code, steps, i, *values[i]) for i in values):
            return False
        self._read.update(name for i, (name, value) in values.items() if value is _OF_OTHERS and i not in harmless)
        return True

    def _is_known_step(self, code: CodeType, steps: Sequence[Step], i: int, name: str, value: Any) -> bool:
        """Whether a name may stand where it does; `value`: what it is, _OF_OTHERS for what hangs on a value."""
        if value is builtins.isinstance:
            return True  # which was looked at before
        if value is builtins.getattr or value is builtins.hasattr:
            return self._may_ask(code, steps, i, own_name(code, steps))
        if _is_one_of(value, _CONTEXTS):
            call = find_call(steps, i, _is_constant)
            return call is not None and steps[call + 1].op == "WITH"
        if _is_one_of(_function_of(value), _TELLING):
            return find_call(steps, i, _is_constant) is not None
        if value is not _OF_OTHERS:
            return self._is_known(value) and not _poses(name, value)
        return self._is_known_name(name)

    def _rules_out(self, steps: Sequence[Step], i: int) -> bool | None:
        """The sign, in all modules, of the attribute by which a step jumps (`if self.debug:`); None of other values."""
        before = i - (steps[i - 1].op == "TO_BOOL")
        if not stands(steps, before, ("LOAD_FAST", None), ("LOAD_ATTR", None)):
            return None
        name = str(steps[before - 1].value)
        held = self._held.get(name, [])
        plain = all(isinstance(v, (bool, int, str, type(None))) for v in held) and name not in _heard_methods()
        answers = {bool(v) for v in held} if plain else set()
        if len(answers) != 1:
            return None
        self._ruled_out[name] = next(iter(answers))
        return self._ruled_out[name]

    def _may_keep(self, code: CodeType, steps: Sequence[Step], i: int, own: str) -> bool:
        """Whether what a step keeps in an attribute decides nothing unheard.

        A constant in another type does not (`self.mean = self.mean.type_as(x)`), nor what the same function keeps anew
        before it reads it, nor what is only added to (`self.calls += 1`), or not read at all: see `find_remembering`.
        """
        name = str(steps[i].value)
        if not own or name in _of_modules() or self._of_modules.setdefault(code, own) != own:
            return False
        held = self._held.get(name, [])
        if is_added_to(steps, i, own):
            self._kept[name] = code
            reads = sum(step.op == "LOAD_ATTR" and step.value == name for step in steps)
            return reads == 1 and all(isinstance(v, (int, float)) for v in held)
        if not stands(steps, i, ("LOAD_FAST", own)):
            return False
        if held and all(isinstance(v, Tensor) for v in held) and is_cast(steps, i, own):
            return True
        self._kept[name] = code
        return name not in self._parts and is_read_after(steps, i, own)

    def _may_ask(self, code: CodeType, steps: Sequence[Step], i: int, own: str) -> bool:
        """Whether `getattr(self, "conv1")`, `getattr(self, f"conv{i}")` or `hasattr` asks what is known."""
        start = steps[i + 2]
        if (
            not own
            or not isinstance(start.value, str)
            or not stands(steps, i + 3, ("LOAD_FAST", own), ("LOAD_CONST", None))
        ):
            return False
        self._of_modules[code] = own
        if find_call(steps, i, _is_constant_or(own)) is not None:
            self._read.add(start.value)
            return self._is_known_name(start.value)
        ways = (
            (("LOAD_FAST", None), ("FORMAT", None), ("BUILD_STRING", 2), ("CALL", None)),
            (("LOAD_FAST", None), ("BINARY_OP", "%"), ("CALL", None)),
        )
        begins = start.value.partition("%")[0]
        if not begins or not any(
            stands(steps, i + 3 + len(way), *way) and steps[i + 2 + len(way)].taken == 2 for way in ways
        ):
            return False
        self._read_so.add(begins)
        return all(map(self._is_known_name, (n for n in (*self._held, *_of_modules()) if n.startswith(begins))))

    def _is_known_name(self, name: str) -> bool:
        """Whether the name of an attribute, of a value at run time, may stand in the code."""
        held = self._held.get(name, ())
        named = bool(held) or name in _METHODS or name in _heard_methods() or name in self._kept
        nobodys = not name.startswith("_") and name not in _names_of_others()  # whoever asks for it fails
        return (named or nobodys) and all(self._is_known(value) and not _poses(name, value) for value in held)

    def _is_known(self, value: Any, depth: int = 4) -> bool:
        if not all(map(_computes_by_functions, self._note(value))):
            return False
        if isinstance(value, Tensor) and computes(type(value)):
            return False  # whose methods torch calls, and a tracer does not
        if isinstance(value, (staticmethod, classmethod, MethodType)):
            value = value.__func__
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, FunctionType):
            heard = value in _heard_functions() or value in _THE_SAME
            return heard or is_foreign(value.__code__.co_filename)  # what runs of it is noted
        if isinstance(value, type):
            return _is_one_of(value, _BUILTINS) or issubclass(value, (nn.Module, BaseException))
        if isinstance(value, functools.partial) and type(value) is functools.partial:
            return depth > 0 and all(self._is_known(v, depth - 1) for v in (value.func, value.args, value.keywords))
        if isinstance(value, (list, tuple, set, frozenset)) and type(value) is not torch.Size:
            for name in getattr(value, "_fields", ()):
                self._hold(str(name), getattr(value, name, _MISSING))
            return depth > 0 and all(self._is_known(inner, depth - 1) for inner in value)
        if isinstance(value, dict):
            return depth > 0 and all(self._is_known(inner, depth - 1) for inner in (*value, *value.values()))
        if isinstance(value, _PLAIN) or _is_one_of(value, _known_functions()):
            return True
        return depth > 0 and self._holds_known(value, depth)

    def _holds_known(self, value: Any, depth: int) -> bool:
        """Whether a value only holds others under names: a namespace, a dataclass, an object of options."""
        kinds = [] if type(value) in _NAMESPACES else type(value).__mro__[:-1]
        if not hasattr(value, "__dict__") or not all(type(k) is type and _computes_by_functions(k) for k in kinds):
            return False
        held = [pair for kind in kinds for pair in vars(kind).items() if pair[0] not in _OF_CLASSES]
        for name, inner in (*held, *vars(value).items()):
            if not self._is_known(inner, depth - 1):
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
def _computes_by_functions(kind: type) -> bool:
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


def _is_module_alone(value: Any) -> bool:
    """Whether it is a module of which only its own code reads the attributes; layers of torch read theirs."""
    kinds = type(value).__mro__
    return isinstance(value, nn.Module) and all(k is nn.Module or not k.__module__.startswith("torch.") for k in kinds)


def _poses(name: str, value: Any) -> bool:
    """Whether somebody's function is named as one that only tells what it is given, or only asks: it may keep it."""
    return isinstance(value, (FunctionType, MethodType)) and name in TELLING | ASKING and value not in _TELLING


def _function_of(value: Any) -> Any:
    return value.__func__ if isinstance(value, MethodType) and type(value.__self__) is logging.Logger else value


def _is_one_of(value: Any, known: frozenset[Any]) -> bool:
    return _is_hashable(value) and value in known


def _is_constant(steps: Sequence[Step], i: int) -> bool:
    """Whether an operand is a constant, or the kind of a warning."""
    return steps[i].op == "LOAD_CONST" or (steps[i].op == "LOAD_GLOBAL" and str(steps[i].value).endswith("Warning"))


def _is_constant_or(own: str) -> Any:
    return lambda steps, i: steps[i].op == "LOAD_CONST" or (steps[i].op == "LOAD_FAST" and steps[i].value == own)


def _find_classes(code: CodeType, steps: Sequence[Step], i: int, values: Mapping[int, tuple[str, Any]]) -> set[int]:
    """Positions of the classes that `isinstance` asks for, where a proxy is none of them as little as a tensor is.

    In lines that do nothing but raise these may be of tensors and numbers, of which the tracer says what they are.
    """
    ends = (
        k
        for k in range(i + 1, len(steps))
        if steps[k].op not in ("LOAD_FAST", "LOAD_GLOBAL", "LOAD_ATTR", "LOAD_CONST", "BUILD_TUPLE", "BINARY_SUBSCR")
    )
    call = next(ends, len(steps))
    if call == len(steps) or steps[call].op != "CALL" or steps[call].taken != 2:
        return set()
    found = {k: values[k][1] for k in range(i + 1, call) if k in values and isinstance(values[k][1], type)}
    last = steps[call - 1]
    whole = (call - 1 in found and len(found) == 1) or (last.op == "BUILD_TUPLE" and last.taken == len(found))
    place = FrameSummary(code.co_filename, steps[i].line, code.co_name)
    of_values = (Tensor, int, float, bool, list, tuple, dict, str) if only_raises([place]) else (dict, str)
    plain = all(kind in of_values or (issubclass(kind, nn.Module) and type(kind) is type) for kind in found.values())
    return set(found) if whole and plain else set()


_OF_OTHERS = object()


def _names_in(steps: Sequence[Step], frame: FrameType) -> Iterator[tuple[int, str, Any]]:
    """Names that code asks for, where, and what they are: `F.relu` is one; of a value's attribute it is not known."""
    home: Any = None
    for i, step in enumerate(steps):
        name, value = str(step.value), None
        if step.op == "LOAD_GLOBAL":
            missing = frame.f_builtins.get(name, _MISSING)
            value = frame.f_globals.get(name, missing)
        elif step.op in ("LOAD_ATTR", "LOAD_SUPER_ATTR"):
            value = _OF_OTHERS if home is None else getattr(home, name, _MISSING)
        elif home is not None:
            yield i - 1, "", home  # a module itself, whose names could be asked for later
        is_home = (isinstance(value, ModuleType) and _is_looked_into(value)) or type(value) is logging.Logger
        home = value if is_home else None
        if step.op in ("LOAD_GLOBAL", "LOAD_ATTR", "LOAD_SUPER_ATTR") and home is None:
            yield i, name, value


_MISSING = object()


def _is_looked_into(module: ModuleType) -> bool:
    return module.__name__.split(".")[0] in ("torch", "math", "warnings", "logging")


@cache
def _of_modules() -> frozenset[str]:
    """Names of what torch's own modules have."""
    return frozenset((*dir(nn.Module), *vars(nn.Module())))


@cache
def _names_of_others() -> frozenset[str]:
    """Names of what values have that code may come by, besides what the network holds."""
    kinds = [v for v in vars(builtins).values() if isinstance(v, type)]
    kinds += [v for v in (*vars(nn).values(), *vars(types).values(), *vars(torch).values()) if isinstance(v, type)]
    returned = [v for v in vars(torch.return_types).values() if isinstance(v, type)]
    return _of_modules().union(*map(dir, [*kinds, *returned]))


@cache
def _heard_functions() -> frozenset[Any]:
    """Functions of torch that tell a tracer of each call."""
    found = get_overridable_functions()
    return frozenset(f for home, functions in found.items() if home is not Tensor for f in functions)


@cache
def _known_functions() -> frozenset[Any]:
    return _BUILTINS | _heard_functions() | _THE_SAME


@cache
def _heard_methods() -> frozenset[str]:
    return frozenset(name for name in dir(Tensor) if not name.startswith("_")) - _NO_TENSORS


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
