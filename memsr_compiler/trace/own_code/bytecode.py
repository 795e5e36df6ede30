"""The steps of a function's bytecode, under one name in every version of Python, and what stands around one of them."""

from __future__ import annotations

import dis
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

_SAYS_NOTHING = frozenset((
    "CACHE", "COPY_FREE_VARS", "EXTENDED_ARG", "KW_NAMES", "NOP", "NOT_TAKEN", "PRECALL", "PUSH_NULL", "RESUME",
))  # fmt: skip
_NAMES = {
    "BEFORE_WITH": "WITH", "SETUP_WITH": "WITH", "CALL_FUNCTION": "CALL", "CALL_METHOD": "CALL",
    "CALL_FUNCTION_KW": "CALL_KW", "LOAD_METHOD": "LOAD_ATTR", "DUP_TOP": "COPY", "ROT_TWO": "SWAP",
    "FORMAT_VALUE": "FORMAT", "FORMAT_SIMPLE": "FORMAT", "LOAD_FAST_CHECK": "LOAD_FAST",
    "LOAD_FAST_BORROW": "LOAD_FAST", "LOAD_SMALL_INT": "LOAD_CONST",
}  # fmt: skip
_TWO = re.compile(r"(LOAD|STORE)_FAST(?:_BORROW)?_(LOAD|STORE)_FAST(?:_BORROW)?")
_OPERATORS = {"BINARY_MODULO": "%", "INPLACE_ADD": "+=", "INPLACE_SUBTRACT": "-="}  # before Python 3.11
_PUSHES = ("LOAD_CONST", "LOAD_FAST", "LOAD_GLOBAL")
_GIVES_BACK = re.compile(r"COPY|SWAP|POP_(TOP|EXCEPT)|STORE_FAST\w*|CALL_INTRINSIC_1|LOAD_CONST|NOP|CACHE|EXTENDED_ARG")


class Step(NamedTuple):
    """One step.  taken: how many values, where it says so;  joined: whether code comes here from elsewhere."""

    op: str
    value: Any
    taken: int
    line: int
    at: int
    joined: bool


@lru_cache(4096)
def list_steps(code: CodeType) -> Sequence[Step]:
    """The steps that do something, in the order in which they stand."""
    found: list[Step] = []
    line, joined = code.co_firstlineno, False
    for step in dis.get_instructions(code):
        line = _line_of(step) or line
        joined = joined or step.is_jump_target
        if step.opname in _SAYS_NOTHING:
            continue
        name, value = _NAMES.get(step.opname, step.opname), step.argval
        if name == "BINARY_OP" or name in _OPERATORS:
            name, value = "BINARY_OP", _OPERATORS.get(name, step.argrepr)
        two = _TWO.fullmatch(step.opname)
        parts = [(f"{kind}_FAST", v) for kind, v in zip(two.groups(), value, strict=True)] if two else [(name, value)]
        for op, value in parts:
            found.append(Step(op, value, step.arg or 0, line, step.offset, joined))
            joined = False
    return tuple(found)


def _line_of(step: dis.Instruction) -> int | None:
    own = step.starts_line
    return getattr(step, "line_number", None) if isinstance(own, bool) else own  # of Python 3.13


@lru_cache(4096)
def catches(code: CodeType) -> bool:
    """Whether code catches what is raised in it, or does something else then: `try`, not `with`, whose context decides.

    Python's own handlers, around the names of a comprehension, or within a generator, raise it anew.
    """
    if not getattr(code, "co_exceptiontable", None):
        return False  # before Python 3.11 `try` is a step of its own
    steps = list(dis.get_instructions(code))
    at = {step.offset: i for i, step in enumerate(steps)}
    entries: Any = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    return not all(_raises_anew(steps[at[entry.target] :]) for entry in entries)


def _raises_anew(steps: Sequence[dis.Instruction]) -> bool:
    if steps[0].opname == "PUSH_EXC_INFO":
        return next(s.opname for s in steps[1:] if s.opname not in _SAYS_NOTHING) == "WITH_EXCEPT_START"
    ends = next(i for i, step in enumerate(steps) if step.opname == "RERAISE")
    return all(_GIVES_BACK.fullmatch(step.opname) for step in steps[:ends])


def list_reached(steps: Sequence[Step], decided: Callable[[Sequence[Step], int], bool | None]) -> set[int]:
    """Positions of steps that may run; `decided`: what is known of the value by which the step at a position jumps."""
    at = {step.at: i for i, step in reversed(list(enumerate(steps)))}
    offsets = sorted(at)
    reached, waiting = set[int](), [0, *(i for i, s in enumerate(steps) if s.op == "PUSH_EXC_INFO")]
    while waiting:
        i = waiting.pop()
        if i in reached or i >= len(steps):
            continue
        reached.add(i)
        step = steps[i]
        jumps = "JUMP" in step.op or step.op in ("FOR_ITER", "WITH")
        known = decided(steps, i) if re.fullmatch(r"POP_JUMP_\w*IF_(TRUE|FALSE)", step.op) else None
        taken = None if known is None else known is step.op.endswith("TRUE")
        if jumps and taken is not False and isinstance(step.value, int):
            waiting += [at[o] for o in offsets if o >= step.value][:1]  # where it goes may say nothing
        goes_on = step.op not in ("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE")
        always = step.op in ("JUMP_FORWARD", "JUMP_ABSOLUTE", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")
        if goes_on and not always and taken is not True:
            waiting.append(i + 1)
    return reached


def find_call(steps: Sequence[Step], name: int, allowed: Callable[[Sequence[Step], int], bool]) -> int | None:
    """Position of the call of what stands at a position, with operands that are pushed one by one, each `allowed`."""
    pushed = 0
    for i in range(name + 1, len(steps)):
        step = steps[i]
        if step.joined:
            return None
        if step.op in ("CALL", "CALL_KW"):
            return i if pushed == step.taken + (step.op == "CALL_KW") else None
        if not allowed(steps, i):
            return None
        pushed += step.op in _PUSHES
    return None


def own_name(code: CodeType, steps: Sequence[Step]) -> str:
    """The name that a method has for its object; "" where that may be another's."""
    name = code.co_varnames[0] if code.co_argcount else ""
    given = any(step.op in ("STORE_FAST", "DELETE_FAST") and step.value == name for step in steps)
    return "" if given or name in code.co_cellvars else name


def stands(steps: Sequence[Step], end: int, *forms: tuple[str, Any]) -> bool:
    """Whether these steps, by name and value (None: any), stand before a position, with no way into them."""
    found = steps[max(0, end - len(forms)) : end]
    return (
        len(found) == len(forms)
        and all(s.op == op and value in (None, s.value) for s, (op, value) in zip(found, forms, strict=True))
        and not any(s.joined for s in (*found[1:], *steps[end : end + 1]))
    )


def is_added_to(steps: Sequence[Step], i: int, own: str) -> bool:
    """Whether an attribute is kept here by `self.calls += 1`."""
    form = (
        ("LOAD_FAST", own),
        ("COPY", None),
        ("LOAD_ATTR", steps[i].value),
        ("LOAD_CONST", None),
        ("BINARY_OP", None),
    )
    return stands(steps, i, *form, ("SWAP", None)) and steps[i - 2].value in ("+=", "-=")


def is_cast(steps: Sequence[Step], i: int, own: str) -> bool:
    """Whether an attribute is kept here by `self.mean = self.mean.type_as(x)`, or `.to(...)`."""

    def begins(k: int) -> bool:
        form = (("LOAD_FAST", own), ("LOAD_ATTR", steps[i].value), ("LOAD_ATTR", steps[k].value))
        return steps[k].value in ("to", "type_as") and stands(steps, k + 1, *form)

    def allowed(steps: Sequence[Step], k: int) -> bool:
        return steps[k].op in ("LOAD_FAST", "LOAD_ATTR", "LOAD_CONST")

    return any(begins(k) and find_call(steps, k, allowed) == i - 2 for k in range(i))


def is_read_after(steps: Sequence[Step], i: int, own: str) -> bool:
    """Whether an attribute that is kept here is kept in each call, and read in this function afterwards only."""
    name = steps[i].value
    reads = [k for k, step in enumerate(steps) if step.op == "LOAD_ATTR" and step.value == name]
    always = not any(s.joined or "JUMP" in s.op or s.op in ("FOR_ITER", "WITH") for s in steps[: i + 1])
    return always and all(k > i and steps[k - 1].op == "LOAD_FAST" and steps[k - 1].value == own for k in reads)
