"""Statements of a network's code: whether a line decides what is computed, can only raise, or only tells."""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import lru_cache, partial
from traceback import FrameSummary
from types import FrameType, FunctionType, MethodType
from typing import Any

from memsr_compiler.trace.own_code.own_files import is_foreign, is_pythons


class Line(FrameSummary):
    """A line of a frame, and what the names in it are."""

    def __init__(self, frame: FrameType, number: int | None) -> None:
        super().__init__(frame.f_code.co_filename, number, frame.f_code.co_name)
        self.names: Mapping[str, Any] = ChainMap(dict(frame.f_locals), frame.f_globals, frame.f_builtins)


Places = Sequence[FrameSummary]
"""The line of a network's code that is run, and those that called it, the innermost first."""


def answer_that_goes_on(places: Places) -> bool | None:
    """The answer to each question of a line that does nothing but raise with which it does not; None for another line.

    `assert x.shape[1] == 3` goes on where it is met, `if x.dim() != 4: raise` where it is not.
    """
    statement = _deciding_statement(places)
    if statement is None or not only_raises(places):
        return None
    test = statement.test
    turned = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        turned = isinstance(test.ops[0], ast.NotIn)  # which asks whether it is one of them
    others = [node for node in ast.walk(test) if isinstance(node, (ast.Not, ast.NotIn, ast.IfExp))]
    if len(others) > turned:
        return None  # one question is answered so, and another otherwise
    return isinstance(statement, ast.Assert) is not turned


def only_raises(places: Places) -> bool:
    """Whether a line is of an `assert`, or of an `if` that does nothing but raise, which nobody catches."""
    statement = _deciding_statement(places)
    if statement is None or not all(_does_nothing(node, places[0]) for node in ast.walk(statement.test)):
        return False
    if isinstance(statement, ast.If):
        return all(_ends_it(inner, places[0]) for inner in statement.body) and not statement.orelse
    return True


def _ends_it(statement: ast.stmt, place: FrameSummary) -> bool:
    """Whether a statement raises, and what Python itself does not catch: `for` ends at an IndexError."""
    if not isinstance(statement, ast.Raise):
        return False
    raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
    if not isinstance(raised, (ast.Name, ast.Attribute)):
        return False
    kind = _find(raised, place)
    kind = kind if isinstance(kind, type) else type(kind)
    return issubclass(kind, BaseException) and not issubclass(kind, _CAUGHT_BY_PYTHON)


_CAUGHT_BY_PYTHON = (AttributeError, GeneratorExit, LookupError, StopAsyncIteration, StopIteration)


def _find(node: ast.expr, place: FrameSummary) -> Any:
    """The object that a name is in a line, `print`, `self.logger.info`, without code being run; _UNKNOWN of others."""
    if isinstance(node, ast.Name):
        names = place.names if isinstance(place, Line) else vars(builtins)
        return names.get(node.id, _UNKNOWN)
    owner = _find(node.value, place) if isinstance(node, ast.Attribute) else _UNKNOWN
    if owner is _UNKNOWN or not isinstance(node, ast.Attribute):
        return _UNKNOWN
    inner = inspect.getattr_static(owner, "_modules", None)
    held = inner.get(node.attr, _UNKNOWN) if isinstance(inner, dict) else _UNKNOWN
    return inspect.getattr_static(owner, node.attr, held)


_UNKNOWN = object()


def _is_own(node: ast.expr, place: FrameSummary) -> bool:
    """Whether a line calls code of the network's own by this name, or what it gave the name to."""
    if isinstance(node, ast.Name) and node.id in _names_given("".join(linecache.getlines(place.filename))):
        return True
    called = _find(node, place)
    while isinstance(called, (staticmethod, classmethod, MethodType, partial)):
        called = called.func if isinstance(called, partial) else called.__func__
    if isinstance(called, FunctionType):
        return is_foreign(called.__code__.co_filename)
    kind = called if isinstance(called, type) else type(called)
    return kind.__module__.split(".")[0] not in ("builtins", "torch", "numpy")


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def refuses(places: Places) -> bool:
    """Whether a line can do nothing but refuse an image: as `only_raises`, or it raises, and nobody catches it."""
    statement = _find_statement(places[0])
    raises = statement is not None and _ends_it(statement, places[0]) and not _is_caught(places)
    return raises or only_raises(places)


def only_tells(places: Places) -> bool:
    """Whether the texts of a line go to a person alone: it prints, logs, warns, or raises where nobody catches it."""
    statement = _find_statement(places[0])
    if isinstance(statement, (ast.Raise, ast.If, ast.Assert)):
        if isinstance(statement, ast.Raise):
            return not _is_caught(places)
        return only_raises(places)
    called = statement.value.func if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) else None
    return called is not None and _last_name(called) in TELLING and not _is_own(called, places[0])


@lru_cache(64)
def _names_given(text: str) -> frozenset[str]:
    """Names to which code gives values in a file: `warn = kept.append` tells nobody."""
    try:
        code = ast.parse(text)
    except SyntaxError:  # of a notebook, say
        return frozenset()
    stored = {n.id for n in ast.walk(code) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    return frozenset(stored | {n.arg for n in ast.walk(code) if isinstance(n, ast.arg)})


def decides_by_number(places: Places) -> bool:
    """Whether a line that makes a number of a size compares that number, or its function does so elsewhere.

    A number is made by a call: `int(h) == 8`, `n = int(h)`.  Names to which it is given are followed in the function,
    and lines that do nothing but raise are passed over there.
    """
    statement = _find_statement(places[0])
    if statement is None or not _makes_number(statement):
        return False
    if any(map(_makes_number, _list_decided(statement))):
        return True
    names = _list_given(statement)
    lines = "".join(linecache.getlines(places[0].filename))
    functions = [n for n in _statements_around(lines, places[0].lineno or 0) if isinstance(n, _FUNCTIONS)]
    if not functions or not names:
        return False
    gives = [(node, given) for node in ast.walk(functions[-1]) if (given := _list_given(node))]
    for _ in range(_MOST_STEPS):
        names = names.union(*(given for node, given in gives if _reads(node, names)))
    passed = set() if _is_caught(places) else set(_list_demanded(functions[-1]))
    return any(_reads(part, names) for part in _list_decided(functions[-1]) if part not in passed)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_MOST_STEPS = 8  # from a name to the next


def _makes_number(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Name) and n.id in ("int", "float") for n in ast.walk(node))  # also `map(int, x.shape)`


def _reads(node: ast.AST, names: Set[str]) -> bool:
    return any(isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.id in names for n in ast.walk(node))


def _list_given(node: ast.AST) -> set[str]:
    """Names to which a statement gives values; none where it is another, or only holds statements."""
    if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return)):
        return set()
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _list_demanded(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of the conditions under which code does nothing but raise."""
    for n in ast.walk(node):
        if isinstance(n, ast.Assert) or (
            isinstance(n, ast.If) and not n.orelse and all(isinstance(inner, ast.Raise) for inner in n.body)
        ):
            yield from ast.walk(n.test)


def _list_decided(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of code by which it decides: what is compared, but with None, conditions, and keys of tables."""
    for n in ast.walk(node):
        if isinstance(n, ast.Compare) and not all(isinstance(op, (ast.Is, ast.IsNot)) for op in n.ops):
            yield n
        elif isinstance(n, (ast.If, ast.IfExp, ast.While, ast.Assert)) and not isinstance(n.test, ast.Compare):
            yield from [] if isinstance(n.test, ast.BoolOp) else [n.test]
        elif isinstance(n, ast.BoolOp):
            yield from (value for value in n.values if not isinstance(value, ast.Compare))
        elif isinstance(n, ast.Subscript) and not isinstance(n.slice, (ast.Slice, ast.Tuple)):
            yield n.slice
        elif isinstance(n, ast.Match):
            yield n.subject


TELLING = frozenset(("print", "debug", "info", "warning", "warn", "warning_once", "error", "exception", "critical"))
ASKING = frozenset((
    "abs", "all", "amax", "amin", "any", "bool", "dim", "float", "get_device", "hasattr", "int", "is_complex",
    "is_contiguous", "is_floating_point", "is_tensor", "isfinite", "isinf", "isinstance", "isnan", "issubclass", "item",
    "len", "list", "max", "mean", "min", "ndimension", "numel", "set", "size", "str", "sum", "tuple",
    "type", "format", "repr", "join", "range",
))  # fmt: skip


def _does_nothing(node: ast.AST, place: FrameSummary) -> bool:
    """Whether a part of a question leaves everything as it was, so that it only counts whether it is answered."""
    if isinstance(node, ast.Call):
        return _last_name(node.func) in ASKING and not _is_own(node.func, place)
    return not isinstance(node, (ast.Lambda, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom))


def _deciding_statement(places: Places) -> ast.If | ast.Assert | None:
    """The innermost statement that a line is of, where it is a decision of its own."""
    statement = _find_statement(places[0])
    return statement if isinstance(statement, (ast.If, ast.Assert)) and not _is_caught(places) else None


def _is_caught(places: Places) -> bool:
    """Whether what a line raises may be caught, by it or by its callers, and something else be done."""
    return any(_may_catch(place) for place in places)


def _may_catch(place: FrameSummary) -> bool:
    if not is_foreign(place.filename):
        return is_pythons(place.filename)  # a thread, whose errors wait for whoever asks, a stack of contexts
    lines = "".join(linecache.getlines(place.filename))
    return any(map(_catches, _statements_around(lines, place.lineno or 0)))


def _catches(node: ast.stmt) -> bool:
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return not all(map(_is_torchs, node.items))
    if not isinstance(node, _TRIES):
        return False
    leaves = (ast.Return, ast.Break, ast.Continue)  # in `finally` they end what was raised
    return bool(node.handlers) or any(isinstance(n, leaves) for s in node.finalbody for n in ast.walk(s))


_TRIES: tuple[type[ast.Try], ...] = (ast.Try, getattr(ast, "TryStar", ast.Try))


_CONTEXTS = frozenset((
    "autocast", "enable_grad", "inference_mode", "no_grad", "nullcontext", "record_function", "set_grad_enabled",
))  # fmt: skip
"""Of torch, and the one that does nothing, by names under which they are imported."""


def _is_torchs(item: ast.withitem) -> bool:
    """Whether a context is `torch.no_grad()`, `torch.autocast("cpu")` and the like, which catch nothing."""
    root: ast.AST = item.context_expr
    while isinstance(root, (ast.Call, ast.Attribute)):
        root = root.func if isinstance(root, ast.Call) else root.value
    last = item.context_expr.func if isinstance(item.context_expr, ast.Call) else item.context_expr
    return _last_name(last) in _CONTEXTS or (isinstance(root, ast.Name) and root.id == "torch")


def _find_statement(place: FrameSummary) -> ast.stmt | None:
    """The innermost statement that a line is of; None where several are in it."""
    lines = "".join(linecache.getlines(place.filename))
    around = _statements_around(lines, place.lineno or 0)
    last = max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)), default=None)
    if last is None:
        return None
    inner = set(ast.walk(last))
    return last if all(node in inner or last in set(ast.walk(node)) for node in around) else None


@lru_cache(64)  # a block that is repeated asks in the same lines, and a long file takes a while
def _statements_around(text: str, line: int) -> tuple[ast.stmt, ...]:
    try:
        code = ast.parse(text)
    except SyntaxError:  # of a notebook, say
        return ()
    return tuple(node for node in ast.walk(code) if isinstance(node, ast.stmt) and _has_line(node, line))


def _has_line(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)
