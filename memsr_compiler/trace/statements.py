"""Statements of a network's code: whether a line decides what is computed, can only raise, or only tells."""

from __future__ import annotations

import ast
import linecache
from functools import lru_cache
from traceback import FrameSummary


def answer_that_goes_on(place: FrameSummary) -> bool | None:
    """The answer to each question of a line that does nothing but raise with which it does not; None for another line.

    `assert x.shape[1] == 3` goes on where it is met, `if x.dim() != 4: raise` where it is not.
    """
    statement = _statement_at(place)
    if statement is None or not only_raises(place):
        return None
    test = statement.test
    turned = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        turned = isinstance(test.ops[0], ast.NotIn)  # which asks whether it is one of them
    others = [node for node in ast.walk(test) if isinstance(node, (ast.Not, ast.NotIn, ast.IfExp, ast.NamedExpr))]
    if len(others) > turned:
        return None  # one question is answered so, and another otherwise
    return isinstance(statement, ast.Assert) is not turned


def only_raises(place: FrameSummary) -> bool:
    """Whether a line is of an `assert`, or of an `if` that does nothing but raise."""
    statement = _statement_at(place)
    if isinstance(statement, ast.If):
        return all(isinstance(inner, ast.Raise) for inner in statement.body) and not statement.orelse
    return statement is not None


def only_tells(place: FrameSummary) -> bool:
    """Whether the texts of a line go to a person alone: it prints, logs, warns, or raises where nobody catches it."""
    statement, caught = _find_statement(place)
    if isinstance(statement, (ast.Raise, ast.If, ast.Assert)):
        return not caught and (isinstance(statement, ast.Raise) or only_raises(place))
    called = statement.value.func if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) else None
    return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in _TELLING


_TELLING = frozenset(("print", "debug", "info", "warning", "warn", "warning_once", "error", "exception", "critical"))


def _statement_at(place: FrameSummary) -> ast.If | ast.Assert | None:
    """The innermost statement that a line is of, where it is a decision of its own."""
    statement, caught = _find_statement(place)
    return statement if isinstance(statement, (ast.If, ast.Assert)) and not caught else None


def _find_statement(place: FrameSummary) -> tuple[ast.stmt | None, bool]:
    """The innermost statement that a line is of; whether what it raises may be caught, and something else done."""
    return _statement_in("".join(linecache.getlines(place.filename)), place.lineno or 0)


@lru_cache(64)  # a block that is repeated asks in the same lines, and a long file takes a while
def _statement_in(text: str, line: int) -> tuple[ast.stmt | None, bool]:
    try:
        code = ast.parse(text)
    except SyntaxError:  # of a notebook, say
        return None, False
    around = [node for node in ast.walk(code) if isinstance(node, ast.stmt) and _has_line(node, line)]
    last = max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)), default=None)
    return last, any(isinstance(node, ast.Try) and node.handlers for node in around)


def _has_line(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)
