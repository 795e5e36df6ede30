"""Folds that work element by element."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch

from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.folds.registry import COUNTS, FOLDS, Fold, check_room, fold_word, require_no_batch
from memsr_compiler.trace.onnx.folds.types import (
    BOOL,
    FLOATING,
    HOLD_SIZES,
    NUMPY,
    are_plain,
    as_type,
    cast_to,
    plain_numbers,
    round_to,
)
from memsr_compiler.trace.onnx.tensors import Array
from memsr_compiler.trace.views import BATCH, Batch, Size, Unreadable


def _multiply_sizes(a: Any, b: Any) -> Any:
    if isinstance(a, (Size, Batch)) and isinstance(b, (Size, Batch)) and type(a) is not type(b):
        raise Unreadable(COUNTS)  # the product would be a size
    return a * b


def _multiply(a: Array, b: Array) -> Any:
    return np.frompyfunc(_multiply_sizes, 2, 1)(a, b) if object in (a.dtype, b.dtype) else a * b


def _divide_sizes(a: Any, b: Any) -> Any:
    if isinstance(a, Size) and isinstance(b, Size):
        if a.symbol != b.symbol:
            raise Unreadable("the network divides a height by a width")
        ratio = a.factor / b.factor
        return int(ratio) if ratio.denominator == 1 else float(ratio)
    if isinstance(b, Size):
        raise Unreadable("the network divides by a size")
    if isinstance(a, Size):
        return a // b if isinstance(b, int) else a / b
    if isinstance(a, Batch) and isinstance(b, int) and b and a % (b if isinstance(b, Batch) else BATCH * b) == 0:
        return a // b  # half of the number of images is another number
    if isinstance(a, Batch) or isinstance(b, Batch):
        raise Unreadable(COUNTS)
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _divide(a: Array, b: Array) -> Any:
    if object in (a.dtype, b.dtype):
        return np.frompyfunc(_divide_sizes, 2, 1)(a, b)
    if a.dtype.kind == "f":
        return a / b
    return torch.div(torch.from_numpy(a.copy()), torch.from_numpy(b.copy()), rounding_mode="trunc").numpy()


def _same(a: Any, b: Any) -> bool:
    """a == b, where that does not depend on the image's size, or on how many there are."""
    if isinstance(a, Batch) != isinstance(b, Batch):
        if (b if isinstance(a, Batch) else a) > 0:
            raise Unreadable(COUNTS)
        return False
    if isinstance(a, Size) != isinstance(b, Size):
        if (b if isinstance(a, Size) else a) > 0:
            raise Unreadable("the network does something else at one size of image")
        return False
    if isinstance(a, Size) and a.symbol != b.symbol:
        raise Unreadable("the network asks whether the image is square")
    return bool(a == b)


def _equal(a: Array, b: Array) -> Any:
    return np.frompyfunc(_same, 2, 1)(a, b) if object in (a.dtype, b.dtype) else a == b


def _require_whole(a: Any) -> Any:
    if isinstance(a, Size) and a.factor.denominator != 1:
        raise Unreadable(f"{a} is rounded, which depends on whether it is even")
    return a


def _map_objects(a: Array, of_numbers: Callable[[Array], Array], of_size: Callable[[Any], Any]) -> Array:
    """The objects' plain numbers as one function makes them, and sizes and numbers of images as another does."""
    plain, result = are_plain(a), np.array(a)
    if plain.any():
        result[plain] = of_numbers(plain_numbers(a[plain])).astype(object)
    if not plain.all():
        result[~plain] = np.frompyfunc(of_size, 1, 1)(a[~plain])
    return result


def _rounding(function: Callable[[Array], Array]) -> Fold:
    def compute(node: Node, a: Array) -> Any:
        return _map_objects(a, function, _require_whole) if a.dtype == object else function(a)

    return compute


def _elementwise(function: Callable[..., Any]) -> Fold:
    def compute(node: Node, *operands: Array) -> Any:
        check_room(np.broadcast_shapes(*(o.shape for o in operands)))
        return function(*operands)

    return compute


def of_no_batch(fold: Fold) -> Fold:
    """The fold, refused for numbers of images, of which it makes something else."""

    def compute(node: Node, *operands: Array) -> Any:
        require_no_batch(*operands)
        return fold(node, *operands)

    return compute


def _variadic(function: Callable[..., Any]) -> Fold:
    return _elementwise(lambda *operands: reduce(function, operands))


def _sum(node: Node, *operands: Array) -> Any:
    """One after another, and rounded each time: a constant that is added and taken off again leaves its mark."""
    check_room(np.broadcast_shapes(*(o.shape for o in operands)))
    return reduce(lambda a, b: round_to(np.asarray(a + b), node.type), operands)


def _modulo(node: Node, a: Array, b: Array) -> Any:
    check_room(np.broadcast_shapes(a.shape, b.shape))
    return np.fmod(a, b) if node.integer("fmod", 0) else np.mod(a, b)


def _power(a: Array, b: Array) -> Any:
    if "O" in (a.dtype.kind, b.dtype.kind) or a.dtype.kind == b.dtype.kind == "f":
        return np.power(a, b)
    return as_type(np.power(a.astype(np.float64), b.astype(np.float64)), a.dtype)


FOLDS |= {
    "Add": of_no_batch(_elementwise(operator.add)),
    "Sub": of_no_batch(_elementwise(operator.sub)),
    "Mul": _elementwise(_multiply),
    "Div": _elementwise(_divide),
    "Mod": of_no_batch(_modulo),
    "Neg": of_no_batch(_elementwise(operator.neg)),
    "Abs": of_no_batch(_elementwise(np.abs)),
    "Sign": of_no_batch(_elementwise(np.sign)),
    "Sqrt": of_no_batch(_elementwise(np.sqrt)),
    "Exp": of_no_batch(_elementwise(np.exp)),
    "Reciprocal": of_no_batch(_elementwise(lambda a: 1.0 / a)),
    "Pow": of_no_batch(_elementwise(_power)),
    "Relu": of_no_batch(_elementwise(lambda a: np.maximum(a, 0))),
    "Sum": of_no_batch(_sum),
    "Max": of_no_batch(_variadic(np.maximum)),
    "Min": of_no_batch(_variadic(np.minimum)),
    "Equal": _elementwise(_equal),
    "Less": of_no_batch(_elementwise(operator.lt)),
    "Greater": of_no_batch(_elementwise(operator.gt)),
    "And": _elementwise(np.logical_and),
    "Or": _elementwise(np.logical_or),
    "Not": _elementwise(np.logical_not),
    "Where": _elementwise(np.where),
    "Floor": _rounding(np.floor),
    "Ceil": _rounding(np.ceil),
    "Round": _rounding(np.rint),
    "Identity": _elementwise(lambda a: a),
}


@fold_word("Clip")
def clip(node: Node, a: Array, low: Array | None = None, high: Array | None = None) -> Any:
    """The constant within its bounds, as weights are before they are rounded to few levels."""
    require_no_batch(a, *(bound for bound in (low, high) if bound is not None))
    above = a if low is None else np.maximum(a, low)
    return above if high is None else np.minimum(above, high)


@fold_word("Cast")
def cast(node: Node, a: Array) -> Any:
    """The constant in another type, rounded to it."""
    to = node.integer("to", 1)
    if to not in NUMPY:
        raise Unreadable(f"a cast to type {to}")
    if a.dtype == object:
        return _map_objects(a, lambda numbers: cast_to(numbers, to), lambda size: _cast_size(size, to))
    return cast_to(a, to)


def _cast_size(size: Any, to: int) -> Any:
    """A size of the image, or a number of images, in a type that holds all that images have; true, as none is zero."""
    if to == BOOL:
        return True
    if to not in HOLD_SIZES:
        raise Unreadable("a size of the image is cast to a type that does not hold all sizes")
    return size if to in FLOATING else _require_whole(size)
