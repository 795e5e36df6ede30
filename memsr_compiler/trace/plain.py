"""Code that can ask nothing which a tracer does not hear, known by its forms.

What is no tensor to torch.fx, or is caught, no list of questions holds in full.  So code is trusted that calls modules,
functions of torch that tell a tracer of each call, and other code that runs, computes, and loops; none other is.
"""

from __future__ import annotations

import dis
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import get_overridable_functions

from memsr_compiler.trace.own_files import is_foreign

_STEPS = re.compile(
    r"RESUME|NOP|CACHE|EXTENDED_ARG|PRECALL|CALL(_FUNCTION|_METHOD)?(_KW|_EX|_FUNCTION_EX)?|KW_NAMES|PUSH_NULL|COPY|SWAP"
    r"|GEN_START|POP_(TOP|ITER|JUMP_\w+)|ROT_\w+|DUP_TOP\w*|RETURN_(VALUE|CONST)|JUMP_\w+|NOT_TAKEN|TO_BOOL|RAISE_VARARGS"
    r"|FOR_ITER|GET_ITER|END_FOR|UNPACK_SEQUENCE|UNPACK_EX|(BINARY|INPLACE|UNARY)_\w+|COMPARE_OP|IS_OP|CONTAINS_OP"
    r"|BUILD_(LIST|TUPLE|SLICE|MAP|CONST_KEY_MAP|STRING)|FORMAT_(VALUE|SIMPLE|WITH_SPEC)|CONVERT_VALUE|LIST_(APPEND|EXTEND|TO_TUPLE)|CALL_INTRINSIC_1|DICT_MERGE"
    r"|LOAD_(CONST|SMALL_INT|GLOBAL|ATTR|METHOD|SUPER_ATTR|CLOSURE|DEREF|FAST\w*|ASSERTION_ERROR|COMMON_CONSTANT)"
    r"|STORE_(FAST\w*|DEREF|SUBSCR|SLICE)|MAKE_(CELL|FUNCTION)|SET_FUNCTION_ATTRIBUTE|COPY_FREE_VARS"
)
_GLOBAL, _ATTRIBUTE = ("LOAD_GLOBAL",), ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
_BUILTINS = frozenset([range, len, zip, enumerate, super, reversed, sum, max, min, abs, list, tuple, int, float, bool])
_NO_TENSORS = frozenset((
    "apply_", "backward", "grad", "grad_fn", "map2_", "map_", "name", "names", "record_stream",
    "register_hook", "register_post_accumulate_grad_hook", "retain_grad",
))  # fmt: skip
"""Names of a tensor whose values are None, or run code, where a tracer makes one more tensor of them."""
_METHODS = frozenset((
    "append", "children", "extend", "forward", "get_submodule", "insert", "items", "keys", "named_children", "training",
    "values", "__init__",
))  # fmt: skip
_PLAIN = (int, float, str, type(None), slice, range, torch.dtype, torch.device, torch.Size, Tensor, nn.Module)


class PlainCode:
    """Whether all code that is noted is of known forms, in a network with these modules."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._held = dict[str, list[Any]]()
        for module in model.modules():
            own: Iterable[Mapping[str, Any]] = (vars(module), module._modules, module._parameters, module._buffers)
            kinds = [vars(kind) for kind in type(module).__mro__ if not kind.__module__.startswith("torch.")]
            for name, value in (pair for values in (*own, *kinds) for pair in values.items()):
                self._held.setdefault(name, []).append(value)
        self._codes = dict[CodeType, bool]()

    def holds(self, frame: FrameType) -> bool:
        """Whether a function that is called is of known forms, and given nothing else."""
        code = frame.f_code
        if code not in self._codes:
            self._codes[code] = self._is_plain(frame)
        return self._codes[code] and all(
            self._is_known(value)
            for name, value in frame.f_locals.items()
            if name != ".0"  # of a comprehension
        )

    def forwards(self) -> bool:
        """Whether all that runs when modules are called is functions that a tracer runs too, of whoever's."""
        patched = any(isinstance(v, FunctionType) and is_foreign(v.__code__.co_filename) for v in vars(Tensor).values())
        called = all(
            getattr(type(self._model), name) is getattr(nn.Module, name) for name in ("__call__", "_call_impl")
        )
        functions = all(isinstance(value, (FunctionType, MethodType)) for value in self._held.get("forward", ()))
        return called and functions and not patched

    def _is_plain(self, frame: FrameType) -> bool:
        code = frame.f_code
        steps = list(dis.get_instructions(code))
        if getattr(code, "co_exceptiontable", None) or not all(_STEPS.fullmatch(step.opname) for step in steps):
            return False
        if any(step.opname == "IS_OP" and before.argval is not None for before, step in pairwise(steps)):
            return False  # a symbol is nothing else than itself, `(x.shape[2] > 100) is True`
        return all(self._is_known_name(*found) for found in _names_in(steps, frame))

    def _is_known_name(self, name: str, value: Any) -> bool:
        """Whether a name may stand in the code; `value`: what it is, or _OF_OTHERS for that of a value at run time."""
        if value is not _OF_OTHERS:
            return self._is_known(value)
        held = self._held.get(name, ())
        return (bool(held) or name in _METHODS or name in _heard_methods()) and all(map(self._is_known, held))

    def _is_known(self, value: Any, depth: int = 4) -> bool:
        if isinstance(value, (staticmethod, classmethod, MethodType)):
            value = value.__func__
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, FunctionType):
            return value in _heard_functions() or is_foreign(value.__code__.co_filename)  # what runs of it is noted
        if isinstance(value, type):
            return (_is_hashable(value) and value in _BUILTINS) or issubclass(value, (nn.Module, BaseException))
        if isinstance(value, (list, tuple, set, frozenset)) and type(value) is not torch.Size:
            return depth > 0 and all(self._is_known(inner, depth - 1) for inner in value)
        if isinstance(value, dict):
            return depth > 0 and all(self._is_known(inner, depth - 1) for inner in (*value, *value.values()))
        return isinstance(value, _PLAIN) or (_is_hashable(value) and value in _BUILTINS | _heard_functions())


_OF_OTHERS = object()


def _names_in(steps: Iterable[dis.Instruction], frame: FrameType) -> Iterator[tuple[str, Any]]:
    """Names that code asks for, and what they are: `F.relu` is one; of an attribute of a value it is not known."""
    module: ModuleType | None = None
    for step in steps:
        name, value = str(step.argval), None
        if step.opname in _GLOBAL:
            missing = frame.f_builtins.get(name, _MISSING)
            value = frame.f_globals.get(name, missing)
        elif step.opname in _ATTRIBUTE:
            value = _OF_OTHERS if module is None else getattr(module, name, _MISSING)
        elif step.opname in ("PUSH_NULL", "CACHE", "EXTENDED_ARG"):
            continue
        module = value if isinstance(value, ModuleType) and _is_torchs(value) else None
        if step.opname in (*_GLOBAL, *_ATTRIBUTE) and module is None:
            yield name, value


_MISSING = object()


def _is_torchs(module: ModuleType) -> bool:
    return module.__name__.split(".")[0] == "torch" or module.__name__ == "math"


@cache
def _heard_functions() -> frozenset[Any]:
    """Functions of torch that tell a tracer of each call."""
    found = get_overridable_functions()
    return frozenset(f for home, functions in found.items() if home is not Tensor for f in functions)


@cache
def _heard_methods() -> frozenset[str]:
    return frozenset(name for name in dir(Tensor) if not name.startswith("_")) - _NO_TENSORS


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
