"""Conditions on images under which a program of torch.export is what its network's code does; read, and never run."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import combinations, product
from math import prod
from typing import Any

import torch

from memsr_compiler.quantities import say_count
from memsr_compiler.trace.views import NO_BOUND, USUAL_LEAST, tell_conditions, tell_sizes

AXES = ("batch", "channels", "height", "width")
_SIZE = re.compile(r"[A-Za-z_]\w*(?:\[(?:'\w*'|\d+)\])*\.size\(\)\[([0-3])\]")  # "L['x'].size()[2]", "x.size()[2]"
_LONGEST = 2**24  # pixels a side; what holds up to there holds for every image, but for a bound that is named
_SYMBOL = re.compile(r"[A-Za-z_]\w*")
_MOST_TEXT, _MOST_TERMS, _MOST_TOLD = 2000, 64, 4
_ROUNDING = ("trunc", "floor", "ceil", "sym_int", "int", "round")  # of whole numbers nothing
_CONVERTING = ("sym_float", "float")

Polynomial = Mapping[tuple[str, ...], Fraction]
"""A sum of products of sizes, {("height", "width"): 3, (): 1} for 3 h w + 1."""


def tell_exported(shape: Sequence[Any], guards: Iterable[str], who: str = "it") -> tuple[str, ...]:
    """Warn of a program that was exported for some images; words on what is assumed of it: see `Teacher.assumed`.

    shape    of the image, with symbols for sizes that are free; (C, H, W) too
    guards   what torch.export found out about these, "L['x'].size()[2] != 1080"
    who      the program
    """
    axes = axes_of(shape)
    if not axes:
        return ()
    words = (in_words(guard, axes) for guard in guards)
    conditions = list(dict.fromkeys([*_forms(shape), *filter(_is_open, words)]))
    sizes: tuple[str, ...] = ()
    if all(isinstance(side, int) for side in shape[-2:]):
        sizes = tell_sizes(shape[-2:], fixed=True, who=who)
        conditions = [words for words in conditions if "height" not in words and "width" not in words]
    if not conditions:
        return sizes
    told, left = conditions[:_MOST_TOLD], len(conditions) - _MOST_TOLD
    more = [say_count(left, "condition") + " more"] if left > 0 else []
    return *sizes, *tell_conditions(" and ".join([*told, *more]), who)


def axes_of(shape: Sequence[Any]) -> Sequence[str]:
    """The names of an image's axes, the last of them without a batch; none of what is no image."""
    return AXES[-len(shape) :] if len(shape) in (3, 4) else ()


def list_limits(axis: str, size: Any, least: float, most: float) -> Iterator[str]:
    """The least and the largest size of an axis that a program was exported for, as conditions."""
    if isinstance(size, int):
        yield f"{axis} == {size}"
        return
    if least > USUAL_LEAST:
        yield f"{axis} >= {least:.0f}"
    if most < math.inf:
        yield f"{axis} <= {most:.0f}"


def list_found(shape: Sequence[Any]) -> Iterator[str]:
    """Conditions that torch.export found out about the sizes of an image, which it keeps beside them."""
    kept: Any = None
    for axis, size in zip(axes_of(shape), shape, strict=False):
        least, most = 0.0, math.inf
        if isinstance(size, torch.SymInt):
            kept = size.node.shape_env  # one for all sizes of a program
            known = kept.var_to_range.get(size.node.expr)
            least, most = (least, most) if known is None else (float(known.lower), float(known.upper))
        yield from list_limits(axis, size, least, most)
    if kept is None:
        return
    from torch.utils._sympy.printers import PythonPrinter  # which takes half a second to load

    names, formulas = _names_of_symbols(shape), _formulas(shape)
    for symbol, formula in kept.replacements.items():  # of two sizes that are one, and of those that are 2*n
        names |= {str(symbol): axis for axis, other in formulas.items() if other == formula}
    for (axis, formula), (other, same) in combinations(formulas.items(), 2):
        if formula == same:
            yield f"{axis} == {other}"
    for guard in kept.guards:
        yield _SYMBOL.sub(lambda symbol: names.get(symbol[0], symbol[0]), PythonPrinter().doprint(guard.expr))


def in_words(guard: str, axes: Sequence[str] = AXES) -> str:
    """A condition with the names of axes, "height != 1080"; on one line, and without what divides assumptions."""
    words = _SIZE.sub(lambda size: axes[int(size[1])] if int(size[1]) < len(axes) else size[0], guard)[:_MOST_TEXT]
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
    names = _names_of_symbols(shape)
    for axis, formula in _formulas(shape).items():
        if not formula.is_Symbol:
            text = _SYMBOL.sub(lambda symbol: names.get(symbol[0], symbol[0]), str(formula))
            yield in_words(f"{axis} == {text}")


def _names_of_symbols(shape: Sequence[Any]) -> dict[str, str]:
    """Names for torch's symbols: the axis of which one is the size, or n, m, ..."""
    formulas = _formulas(shape)
    axes = {str(formula): axis for axis, formula in reversed(formulas.items()) if formula.is_Symbol}
    symbols = dict.fromkeys(str(symbol) for formula in formulas.values() for symbol in formula.free_symbols)
    return dict(zip((symbol for symbol in symbols if symbol not in axes), "nmkl", strict=False)) | axes


def _formulas(shape: Sequence[Any]) -> dict[str, Any]:
    sizes = zip(axes_of(shape), shape, strict=False)
    return {axis: size.node.expr for axis, size in sizes if not isinstance(size, int)}


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
