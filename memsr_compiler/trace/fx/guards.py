"""Conditions on images under which a program of torch.export is what its network's code does; read, and never run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

from memsr_compiler.quantities import say_count
from memsr_compiler.trace.views import NO_BOUND, USUAL_LEAST, tell_conditions, tell_sizes

AXES = ("batch", "channels", "height", "width")
_SIZE = re.compile(r"[A-Za-z_]\w*(?:\[(?:'\w*'|\d+)\])*\.size\(\)\[([0-3])\]")  # "L['x'].size()[2]", "x.size()[2]"
_LONGEST = 2**24  # pixels a side; what holds up to there holds for every image, but for a bound that is named
_MOST_TEXT, _MOST_TERMS, _MOST_TOLD = 2000, 64, 4
_ROUNDING = ("trunc", "floor", "ceil", "sym_int", "int", "round")  # of whole numbers nothing
_CONVERTING = ("sym_float", "float")

Polynomial = Mapping[tuple[str, ...], Fraction]
"""A sum of products of sizes, {("height", "width"): 3, (): 1} for 3 h w + 1."""


def tell_exported(shape: Sequence[Any], guards: Iterable[str]) -> tuple[str, ...]:
    """Warn of a program that was exported for some images; words on what is assumed of it: see `Teacher.assumed`.

    shape    of the image, with symbols for sizes that are free
    guards   what torch.export found out about these, "L['x'].size()[2] != 1080"
    """
    if len(shape) != len(AXES):
        return ()
    conditions = list(dict.fromkeys([*_forms(shape), *filter(_is_open, map(in_words, guards))]))
    sizes: tuple[str, ...] = ()
    if all(isinstance(side, int) for side in shape[2:]):
        sizes = tell_sizes(shape[2:], fixed=True)
        conditions = [words for words in conditions if "height" not in words and "width" not in words]
    if not conditions:
        return sizes
    told, left = conditions[:_MOST_TOLD], len(conditions) - _MOST_TOLD
    more = [say_count(left, "condition") + " more"] if left > 0 else []
    return *sizes, *tell_conditions(" and ".join([*told, *more]))


def in_words(guard: str) -> str:
    """A condition with the names of axes, "height != 1080"; on one line, and without what divides assumptions."""
    words = _SIZE.sub(lambda size: AXES[int(size[1])], guard)[:_MOST_TEXT]
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        words = ast.unparse(ast.parse(words.strip(), mode="eval"))  # without needless parentheses
    return re.sub(r"[^ -:<-~]", "?", words)


def is_met_by_all(condition: str) -> bool:
    """Whether a condition on sizes, by the names of axes, is known to hold for all images but the very smallest.

    What it asks of the number of channels alone is the network's; a batch of one is usual for an export.
    """
    try:
        return len(condition) < _MOST_TEXT and _is_met(ast.parse(condition, mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return False


def _is_open(condition: str) -> bool:
    return not is_met_by_all(condition)


def _forms(shape: Sequence[Any]) -> Iterator[str]:
    """Sizes that are no free numbers: "height == 8*n".  Of two of one number torch.export says more, as guards."""
    formulas = {axis: size.node.expr for axis, size in zip(AXES, shape, strict=True) if not isinstance(size, int)}
    formulas = {axis: formula for axis, formula in formulas.items() if not formula.is_Symbol}
    symbols = dict.fromkeys(str(symbol) for formula in formulas.values() for symbol in formula.free_symbols)
    names = dict(zip(symbols, "nmkl", strict=False))
    for axis, formula in formulas.items():
        yield in_words(f"{axis} == " + re.sub(r"[A-Za-z_]\w*", lambda name: names.get(name[0], name[0]), str(formula)))


def _is_met(node: ast.expr) -> bool:
    if isinstance(node, ast.BoolOp):
        met = map(_is_met, node.values)
        return all(met) if isinstance(node.op, ast.And) else any(met)
    if not isinstance(node, ast.Compare):
        return False
    if {name.id for name in ast.walk(node) if isinstance(name, ast.Name)} == {"channels"}:
        return True
    operands = [node.left, *node.comparators]
    pairs = zip(operands, node.ops, operands[1:], strict=False)
    return all(_compares(_read(left), op, _read(right)) for left, op, right in pairs)


def _compares(left: Polynomial, op: ast.cmpop, right: Polynomial) -> bool:
    more, less = _add(left, _scale(right, -1)), _add(right, _scale(left, -1))
    if isinstance(op, ast.Eq):
        return not more or _ONE_IMAGE in (more, less)
    if isinstance(op, ast.NotEq):
        return _least(more) > 0 or _least(less) > 0
    if isinstance(op, (ast.Gt, ast.GtE)):
        return _least(more) > 0 or (isinstance(op, ast.GtE) and _least(more) == 0)
    if isinstance(op, (ast.Lt, ast.LtE)):
        return _least(less) > 0 or (isinstance(op, ast.LtE) and _least(less) == 0)
    return False


_ONE_IMAGE: Polynomial = {("batch",): Fraction(1), (): Fraction(-1)}


def _read(node: ast.expr) -> Polynomial:
    """A number as a sum of products of sizes.  Raises ValueError where it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return _clean({(): Fraction(node.value)})
    if isinstance(node, ast.Name) and node.id in AXES:
        return {(node.id,): Fraction(1)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _scale(_read(node.operand), -1)
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        value = _read(node.args[0])
        if name in _CONVERTING or (name in _ROUNDING and _is_whole(value)):
            return value
    if isinstance(node, ast.BinOp):
        return _combine(_read(node.left), node.op, _read(node.right))
    raise ValueError("no sum of products of sizes")


def _combine(left: Polynomial, op: ast.operator, right: Polynomial) -> Polynomial:
    if isinstance(op, ast.Add):
        return _add(left, right)
    if isinstance(op, ast.Sub):
        return _add(left, _scale(right, -1))
    if isinstance(op, ast.Mult) and len(left) * len(right) <= _MOST_TERMS:
        return _multiply(left, right)
    if isinstance(op, (ast.Div, ast.FloorDiv, ast.Mod)) and set(right) == {()}:
        quotient = _scale(left, 1 / right[()])
        if isinstance(op, ast.Div):
            return quotient
        if _is_whole(quotient):
            return {} if isinstance(op, ast.Mod) else quotient
    raise ValueError("no sum of products of sizes")


def _least(value: Polynomial) -> Fraction:
    """No more than a value is for an image of at least 2 by 2, and of no more than `_LONGEST` a side.

    The largest size that a program names for one axis, by Dim("h", max=...), is no other's, however large.
    """
    named = all(len(sizes) <= 1 and (not sizes or abs(times) == 1) for sizes, times in value.items()) and len(value) < 3
    longest = (NO_BOUND if named else _LONGEST) - USUAL_LEAST
    beyond: Polynomial = {}  # the same in terms of how much larger than 2 each size is
    for sizes, times in value.items():
        term: Polynomial = {(): times}
        for size in sizes:
            term = _multiply(term, {(size,): Fraction(1), (): Fraction(USUAL_LEAST)})
        beyond = _add(beyond, term)
    return sum((times * (longest ** len(sizes) if times < 0 else not sizes) for sizes, times in beyond.items()), _ZERO)


_ZERO = Fraction(0)


def _is_whole(value: Polynomial) -> bool:
    return all(times.denominator == 1 for times in value.values())


def _add(left: Polynomial, right: Polynomial) -> Polynomial:
    return _clean({sizes: left.get(sizes, _ZERO) + right.get(sizes, _ZERO) for sizes in {**left, **right}})


def _multiply(left: Polynomial, right: Polynomial) -> Polynomial:
    result: dict[tuple[str, ...], Fraction] = {}
    for (some, times), (others, more) in product(left.items(), right.items()):
        sizes = tuple(sorted((*some, *others)))
        result[sizes] = result.get(sizes, _ZERO) + prod((times, more))
    if any(len(sizes) > len(AXES) for sizes in result):
        raise ValueError("a product of many sizes")
    return _clean(result)


def _scale(value: Polynomial, times: Fraction | int) -> Polynomial:
    return {sizes: number * times for sizes, number in value.items()}


def _clean(value: Polynomial) -> Polynomial:
    return {sizes: number for sizes, number in value.items() if number}
