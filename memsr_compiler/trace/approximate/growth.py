"""By what a value grows with the image: a sum over pixels is so many times their mean, whatever they show.

Factors are numbers for images of `SIDES`, one for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from memsr_compiler.trace.fx.asked import SIDES
from memsr_compiler.trace.fx.needed import ALIASES, word_of

Factors: TypeAlias = tuple[float, ...]

ONE: Factors = (1.0,) * len(SIDES)
UNKNOWN: Factors = (math.nan,) * len(SIDES)
PRODUCTS = ("mul", "multiply", "div", "truediv", "divide")
ARITHMETIC = (*PRODUCTS, "add", "sub", "subtract", "rsub", "pow")
NORMS = ("norm", "vector_norm", "linalg_norm", "linalg_vector_norm")
_SUMS = ("sum", "nansum")
_MATRICES = ("matmul", "bmm", "mm", "einsum")
_OF_AXES = {"cumsum": 1, "softmax": -1}
_COUNTING = (*_SUMS, *NORMS, *_MATRICES, *_OF_AXES)
_ROOTS = {"sqrt": 0.5, "rsqrt": -0.5, "square": 2.0, "reciprocal": -1.0}
_LINEAR = (
    *ALIASES, "add", "sub", "subtract", "rsub", "neg", "negative", "abs", "relu", "leaky_relu", "mean", "amax", "amin",
    "adaptive_avg_pool2d", "avg_pool2d", "interpolate", "cat", "stack",
)  # fmt: skip
"""What gives so many times its result for so many times its operands."""
_FEW_PIXELS = 1e-3  # by so much N / (N - 1) is off 1 at the smallest of the sizes


def times(a: Factors, b: Factors) -> Factors:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def power(a: Factors, exponent: float) -> Factors:
    return tuple(x**exponent for x in a)


def are_one(factors: Factors) -> bool:
    """Whether factors are the same at all sizes."""
    return math.isclose(min(factors), max(factors), rel_tol=_FEW_PIXELS)


def multiply(node: fx.Node, held: Mapping[fx.Node, Factors], list_values: Callable[[fx.Node], list[Any]]) -> Factors:
    """Factors of what an operation makes of operands with these; UNKNOWN where it takes no factor out of them.

    list_values   a node's value at each size, of which the shapes are asked
    """
    name, given = word_of(node), list(held.values())
    if name in PRODUCTS and len(node.args) == 2:
        left, right = (held.get(a, ONE) if isinstance(a, fx.Node) else ONE for a in node.args)
        return times(left, power(right, -1) if "div" in name else right)
    if name in _ROOTS:
        return power(given[0], _ROOTS[name])
    if name == "pow" and isinstance(exponent := node.args[-1], (int, float)):
        return power(given[0], exponent)
    if name in _COUNTING and (name != "softmax" or are_one(given[0])):
        values = {n: list_values(n) for n in (*node.all_input_nodes, node)}
        if not all(values.values()):
            return UNKNOWN
        whole = _count(node, name, values)
        for factors in given:
            whole = times(whole, factors)
        return whole
    alike = all(are_one(times(factors, power(given[0], -1))) for factors in given)
    return given[0] if alike and (name in _LINEAR or are_one(given[0])) else UNKNOWN


def _count(node: fx.Node, name: str, values: Mapping[fx.Node, list[Any]]) -> Factors:
    """Numbers that an operation adds up, at each size; of a softmax, which shares out one, a part of it."""
    counts = []
    for i in range(len(SIDES)):
        at = {n: of_sizes[i] for n, of_sizes in values.items()}
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), at.__getitem__)
        counts.append(_count_einsum(*args) if name == "einsum" else _count_in(name, args, kwargs, at[node]))
    return tuple(counts)


def _count_in(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor) -> float:
    x: Tensor = args[0] if args else kwargs["input"]
    if name in _MATRICES:
        return x.shape[-1]
    if name in _SUMS:
        return x.numel() / result.numel()
    names = ("p", "ord") if name in NORMS else ("dim",)
    second = args[1] if len(args) > 1 else next((kwargs[k] for k in names if k in kwargs), None)
    if name not in NORMS:
        return math.nan if second is None else float(x.shape[second]) ** _OF_AXES[name]
    order = 2 if second in (None, "fro") else second
    return float((x.numel() / result.numel()) ** (1 / order)) if isinstance(order, (int, float)) and order else math.nan


def _count_einsum(equation: Any, *operands: Any) -> float:
    if not isinstance(equation, str):
        return math.nan
    terms, arrow, kept = equation.replace(" ", "").partition("->")
    lengths: dict[str, int] = {}
    for term, operand in zip(terms.split(","), tree_leaves(operands), strict=True):
        head, _, tail = term.partition("...")
        lengths.update(zip(head, operand.shape, strict=False))
        lengths.update(zip(reversed(tail), reversed(operand.shape), strict=False))
    kept = kept if arrow else "".join(letter for letter in lengths if terms.count(letter) == 1)
    return math.prod(length for letter, length in lengths.items() if letter not in kept)
