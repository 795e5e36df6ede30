"""Code that goes one way, for tensors and for tracers alike, known by its forms.

What code takes out of tensors is heard as it runs (tensors_only).  Nobody hears what only a tracer is told otherwise,
since a proxy is no tensor and has every attribute; what code would catch at another size; and what it keeps for its
next run.  So code is trusted that calls what `KnownValues` knows, and other code that runs, computes, and loops; none
other is.  What a function does not come to, since an attribute of the network rules it out, is not looked at.
"""

from __future__ import annotations

import builtins
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from traceback import FrameSummary
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, fx, nn

from memsr_compiler.trace.fx.programs import is_graph_alone
from memsr_compiler.trace.own_code.bytecode import (
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
from memsr_compiler.trace.own_code.known_values import KnownValues, of_modules, poses, runs_by_functions
from memsr_compiler.trace.own_code.own_files import is_foreign
from memsr_compiler.trace.own_code.statements import only_raises

_STEPS = re.compile(
    r"CALL(_KW|_EX|_FUNCTION_EX)?|COPY|SWAP|WITH(_EXCEPT_START)?|PUSH_EXC_INFO|POP_(EXCEPT|BLOCK)|RERAISE"
    r"|RETURN_GENERATOR|YIELD_VALUE|(SET|MAP)_ADD|SET_UPDATE|DICT_UPDATE|BUILD_SET"
    r"|GEN_START|POP_(TOP|ITER|JUMP_\w+)|ROT_\w+|DUP_TOP\w*|RETURN_(VALUE|CONST)|JUMP_\w+|NOT_TAKEN|TO_BOOL|RAISE_VARARGS"
    r"|FOR_ITER|GET_ITER|END_FOR|UNPACK_SEQUENCE|UNPACK_EX|(BINARY|INPLACE|UNARY)_\w+|COMPARE_OP|IS_OP|CONTAINS_OP"
    r"|BUILD_(LIST|TUPLE|SLICE|MAP|CONST_KEY_MAP|STRING)|FORMAT(_WITH_SPEC)?|CONVERT_VALUE"
    r"|LIST_(APPEND|EXTEND|TO_TUPLE)|CALL_INTRINSIC_1|DICT_MERGE"
    r"|LOAD_(CONST|GLOBAL|ATTR|SUPER_ATTR|CLOSURE|DEREF|FAST\w*|ASSERTION_ERROR|COMMON_CONSTANT)"
    r"|STORE_(ATTR|FAST\w*|DEREF|SUBSCR|SLICE)|MAKE_(CELL|FUNCTION)|SET_FUNCTION_ATTRIBUTE"
)


class KnownCode:
    """Whether all code that is noted is of known forms, in a network with these modules."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._values = KnownValues(model)
        self._codes = dict[CodeType, bool]()
        self._of_modules = dict[CodeType, str]()
        self._kept = dict[str, CodeType]()
        self._read, self._read_so = set[str](), set[str]()  # names of attributes, and how they begin
        self._ruled_out = dict[str, bool]()

    def holds(self, frame: FrameType) -> bool:
        """Whether a function that is called is of known forms, and given nothing else."""
        code, given = frame.f_code, frame.f_locals
        if code not in self._codes:
            self._codes[code] = self._is_plain(frame)
        known = self._codes[code] and all(
            self._values.is_known(value)
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
        graphs = all(is_graph_alone(program, self._values.is_known, self._values.is_known_name) for program in programs)
        functions = all(isinstance(value, (FunctionType, MethodType)) for value in self._values.held("forward"))
        hidden = any(
            isinstance(vars(kind).get(name), property) for kind in self._values.kinds for name in self._values.parts
        )
        kinds = all(map(runs_by_functions, self._values.kinds))
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
        late = any(bool(value) is not out for name, out in self._ruled_out.items() for value in self._values.held(name))
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
        if value is not _OF_OTHERS:
            return self._values.is_known(value) and not poses(name, value)
        return self._is_known_name(name)

    def _rules_out(self, steps: Sequence[Step], i: int) -> bool | None:
        """The sign, in all modules, of the attribute by which a step jumps (`if self.debug:`); None of other values."""
        before = i - (steps[i - 1].op == "TO_BOOL")
        if not stands(steps, before, ("LOAD_FAST", None), ("LOAD_ATTR", None)):
            return None
        name = str(steps[before - 1].value)
        if (sign := self._values.find_sign(name)) is not None:
            self._ruled_out[name] = sign
        return sign

    def _may_keep(self, code: CodeType, steps: Sequence[Step], i: int, own: str) -> bool:
        """Whether what a step keeps in an attribute decides nothing unheard.

        A constant in another type does not (`self.mean = self.mean.type_as(x)`), nor what the same function keeps anew
        before it reads it, nor what is only added to (`self.calls += 1`), or not read at all: see `find_remembering`.
        """
        name = str(steps[i].value)
        if not own or name in of_modules() or self._of_modules.setdefault(code, own) != own:
            return False
        held = self._values.held(name)
        if is_added_to(steps, i, own):
            self._kept[name] = code
            reads = sum(step.op == "LOAD_ATTR" and step.value == name for step in steps)
            return reads == 1 and all(isinstance(v, (int, float)) for v in held)
        if not stands(steps, i, ("LOAD_FAST", own)):
            return False
        if held and all(isinstance(v, Tensor) for v in held) and is_cast(steps, i, own):
            return True
        self._kept[name] = code
        return name not in self._values.parts and is_read_after(steps, i, own)

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
        return self._values.are_names_known(begins)

    def _is_known_name(self, name: str) -> bool:
        """Whether the name of an attribute, of a value at run time, may stand in the code."""
        kept = name in self._kept and not self._values.held(name)
        return kept or self._values.is_known_name(name)


def _is_module_alone(value: Any) -> bool:
    """Whether it is a module of which only its own code reads the attributes; layers of torch read theirs."""
    kinds = type(value).__mro__
    return isinstance(value, nn.Module) and all(k is nn.Module or not k.__module__.startswith("torch.") for k in kinds)


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
