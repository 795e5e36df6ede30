"""Sizes of images that a `.pt2` was exported for: what the network's code does at others, the file does not say."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.trace.fx.guards import axes_of, list_limits, tell_exported

_SIZE = re.compile(r"\bL\['\w+'\](\[\d+\])?\.size\(\)\[\d+\]")  # of forward(*args) "L['args'][0].size()[2]"
_CURVES = r"sqrt|a?cos|cosh|a?sin|a?sinh|a?tan|tanh|exp|log2?"
_FUNCTION = re.compile(
    rf"\b(math\.(trunc|floor|ceil|{_CURVES})|torch\.(sym_(float|int|max|min)|_sym_({_CURVES}))|abs|max|min|round)(?=\()"
)
_CONDITION_NAMES = frozenset({"size", "function"})  # what the two stand for
_CONDITION_NODES = (
    ast.Name, ast.Load, ast.Constant, ast.Call, ast.IfExp, ast.BoolOp, ast.And, ast.Or,
    ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
    ast.UnaryOp, ast.Not, ast.USub, ast.UAdd,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr, ast.BitXor,
)  # fmt: skip
_MOST_TEXT = 100_000
_EASY = frozenset(["Symbol", "Integer", "Rational", "Float", "Add", "Mul"])
_MOST_NESTED = 50_000  # in all, of depths to the third power: torch computes for two seconds


def require_short_sizes(program: Any) -> None:
    """Raises InvalidInput for expressions of sizes with which torch would be busy for minutes as it loads them.

    program   as its JSON is read

    What a division, a rest or a maximum within another costs grows with the third power of how deep they lie.
    """
    costs = (_measure_depth(ast.parse(text, mode="eval")) ** 3 for text in set(_list_expressions(program)))
    if sum(costs) > _MOST_NESTED:
        raise InvalidInput("its sizes are divisions within divisions, which take too long to compute; it is damaged")


def _list_expressions(program: Any) -> Iterator[str]:
    if isinstance(program, Mapping):
        for name, value in program.items():
            yield from [value] if name == "expr_str" else _list_expressions(value)
    elif isinstance(program, list):
        for value in program:
            yield from _list_expressions(value)


def _measure_depth(node: ast.AST) -> int:
    """Count the functions, other than sums and products, that lie within each other."""
    within = max(map(_measure_depth, ast.iter_child_nodes(node)), default=0)
    divides = isinstance(node, ast.BinOp) and isinstance(node.op, (ast.FloorDiv, ast.Mod, ast.Div, ast.Pow))
    called = isinstance(node, ast.Call) and ast.unparse(node.func) not in _EASY
    return within + (divides or called)


def is_condition(text: str) -> bool:
    """Whether a text is arithmetic of sizes, in which torch writes when a program is what its network's code does.

    As "2*L['x'].size()[3] == math.trunc(2.0*torch.sym_float(L['x'].size()[3]))".  Nobody computes it.  Other text is
    told of like code.
    """
    if len(text) > _MOST_TEXT:
        return False
    short = _FUNCTION.sub("function", _SIZE.sub("size", text)).strip()
    try:
        nodes = list(ast.walk(ast.parse(short, mode="eval").body))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(isinstance(node, _CONDITION_NODES) and _is_arithmetic(node) for node in nodes)


def _is_arithmetic(node: ast.AST) -> bool:
    """Whether a name, a number, a call or a power is one that torch writes, whatever it is given."""
    if isinstance(node, ast.Name):
        return node.id in _CONDITION_NAMES
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float))
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "function" and not node.keywords
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return any(isinstance(word, ast.Name) and word.id == "size" for word in ast.walk(node))
    return True


def say_sizes(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Warn of a program that was exported for some images; words on what is assumed of it: see `Teacher.assumed`."""
    images = frozenset(program.graph_signature.user_inputs)
    image = next((node.meta.get("val") for node in program.graph.nodes if node.name in images), None)
    if not isinstance(image, Tensor):
        return ()
    sizes = zip(axes_of(image.shape), image.shape, strict=False)
    limits = (limit for axis, size in sizes for limit in _limits(program, axis, size))
    return tell_exported(image.shape, [*limits, *program._guards_code])


def _limits(program: torch.export.ExportedProgram, axis: str, size: Any) -> Iterator[str]:
    known = None if isinstance(size, int) else program.range_constraints.get(size.node.expr)
    least, most = (0.0, math.inf) if known is None else (float(known.lower), float(known.upper))
    return list_limits(axis, size, least, most)
