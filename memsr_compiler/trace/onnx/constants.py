"""What an ONNX network computes without its image: weight algebra, and sizes.

Known values are NumPy arrays: float64, int64, bool, or objects where a height or width that stays free, a
`Size`, is among the numbers. What a small file may make of its constants is bounded.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import torch

from memsr_compiler.errors import first_line
from memsr_compiler.trace.onnx.file import Array, Node
from memsr_compiler.trace.views import Size, Unreadable

Fold = Callable[..., Any]
FOLDS: dict[str, Fold] = {}

MAX_ELEMENTS = 2**25
"""Of one computed constant."""

MISUSE = (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError, ArithmeticError)
"""What an operation raises when a file's node gives it operands that it cannot take."""


def fold(node: Node, operands: Sequence[Array | None]) -> tuple[Array, ...]:
    """The results of a node whose operands are all known; None is an operand left out.

    Raises Unreadable for an operation that is not in FOLDS, and for sizes that depend on whether the height
    is even.
    """
    if node.op not in FOLDS:
        raise Unreadable("it is not computed beforehand")
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused where it is used
            result = FOLDS[node.op](node, *operands)
    except MISUSE as error:
        raise Unreadable(f"it cannot be computed beforehand ({first_line(error)})") from None
    return tuple(settled(r) for r in (result if isinstance(result, tuple) else (result,)))


def settled(value: Any) -> Array:
    """As float64, int64 or bool; objects as they are only where there is a Size among them."""
    array = np.asarray(value)
    if array.dtype == object:
        kinds = {type(v) for v in array.flat}
        if Size in kinds or not kinds <= {int, float, bool}:
            return array
        return array.astype(np.float64 if float in kinds else bool if kinds == {bool} else np.int64)
    if array.dtype.kind == "f":
        return array.astype(np.float64, copy=False)
    return array if array.dtype == bool else array.astype(np.int64, copy=False)


def fold_word(*names: str) -> Callable[[Fold], Fold]:
    def attach(function: Fold) -> Fold:
        FOLDS.update(dict.fromkeys(names, function))
        return function

    return attach


def _room(shape: Sequence[int]) -> None:
    if prod(shape) > MAX_ELEMENTS:
        raise Unreadable(f"its result would have {prod(shape)} elements, more than {MAX_ELEMENTS}")


def listed(array: Array) -> list[Any]:
    """The numbers of an array, in order, as Python's own."""
    numbers: list[Any] = array.reshape(-1).tolist()
    return numbers


def _axes(node: Node, given: Array | None, rank: int) -> list[int] | None:
    """Axes as an attribute (older opsets) or an operand, counted from the front; None if there are none."""
    if given is None and "axes" not in node.attributes:
        return None
    axes = node.integers("axes", []) if given is None else [int(i) for i in listed(given)]
    if any(not -rank <= a < rank for a in axes):
        raise Unreadable(f"axes {axes} of {rank}")
    return [a % rank for a in axes]


# -- element by element ----------------------------------------------------------------------------


def _divided(a: Any, b: Any) -> Any:
    if isinstance(a, Size) and isinstance(b, Size):
        if a.symbol != b.symbol:
            raise Unreadable("the network divides a height by a width")
        ratio = a.factor / b.factor
        return int(ratio) if ratio.denominator == 1 else float(ratio)
    if isinstance(b, Size):
        raise Unreadable("the network divides by a size")
    if isinstance(a, Size):
        return a // b if isinstance(b, int) else a / b
    return a / b if isinstance(a, float) or isinstance(b, float) else int(a / b)


def _divide(a: Array, b: Array) -> Any:
    if object in (a.dtype, b.dtype):
        return np.frompyfunc(_divided, 2, 1)(a, b)
    if a.dtype.kind == "f":
        return a / b
    return torch.div(torch.from_numpy(a.copy()), torch.from_numpy(b.copy()), rounding_mode="trunc").numpy()


def _same(a: Any, b: Any) -> bool:
    """a == b, where that does not depend on the image's size."""
    if isinstance(a, Size) != isinstance(b, Size):
        if (b if isinstance(a, Size) else a) > 0:
            raise Unreadable("the network does something else at one size of image")
        return False
    if isinstance(a, Size) and a.symbol != b.symbol:
        raise Unreadable("the network asks whether the image is square")
    return bool(a == b)


def _equal(a: Array, b: Array) -> Any:
    return np.frompyfunc(_same, 2, 1)(a, b) if object in (a.dtype, b.dtype) else a == b


def _whole(a: Any) -> Any:
    if isinstance(a, Size) and a.factor.denominator != 1:
        raise Unreadable(f"{a} is rounded, which depends on whether it is even")
    return a if isinstance(a, Size) else int(a)


def _rounded(function: Callable[[Array], Array]) -> Fold:
    def compute(node: Node, a: Array) -> Any:
        return np.frompyfunc(_whole, 1, 1)(a) if a.dtype == object else function(a)

    return compute


def _elementwise(function: Callable[..., Any]) -> Fold:
    def compute(node: Node, *operands: Array) -> Any:
        _room(np.broadcast_shapes(*(o.shape for o in operands)))
        return function(*operands)

    return compute


def _variadic(function: Callable[..., Any]) -> Fold:
    return _elementwise(lambda *operands: reduce(function, operands))


FOLDS |= {
    "Add": _elementwise(operator.add),
    "Sub": _elementwise(operator.sub),
    "Mul": _elementwise(operator.mul),
    "Div": _elementwise(_divide),
    "Neg": _elementwise(operator.neg),
    "Abs": _elementwise(np.abs),
    "Sign": _elementwise(np.sign),
    "Sqrt": _elementwise(np.sqrt),
    "Exp": _elementwise(np.exp),
    "Reciprocal": _elementwise(lambda a: 1.0 / a),
    "Pow": _elementwise(lambda a, b: np.power(a, b.astype(a.dtype) if a.dtype.kind == "f" else b)),
    "Relu": _elementwise(lambda a: np.maximum(a, 0)),
    "Sum": _variadic(operator.add),
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Equal": _elementwise(_equal),
    "Less": _elementwise(operator.lt),
    "Greater": _elementwise(operator.gt),
    "And": _elementwise(np.logical_and),
    "Or": _elementwise(np.logical_or),
    "Not": _elementwise(np.logical_not),
    "Where": _elementwise(np.where),
    "Floor": _rounded(np.floor),
    "Ceil": _rounded(np.ceil),
    "Identity": _elementwise(lambda a: a),
}


@fold_word("Cast")
def cast(node: Node, a: Array) -> Any:
    """To any floating type: float64."""
    to = node.integer("to", 1)
    floating, integer, boolean = (1, 10, 11, 16), (2, 3, 4, 5, 6, 7, 12, 13), 9
    if to not in (*floating, *integer, boolean):
        raise Unreadable(f"a cast to type {to}")
    if a.dtype == object:
        kept = _whole if to in integer else lambda v: v if isinstance(v, Size) else float(v)
        return np.frompyfunc(kept, 1, 1)(a)
    return a.astype(np.float64 if to in floating else np.int64 if to in integer else np.bool_)


# -- shapes ----------------------------------------------------------------------------------------


@fold_word("Shape")
def shape(node: Node, a: Array) -> Any:
    return np.array(a.shape[node.integer("start", 0) : node.attributes.get("end")], dtype=np.int64)


@fold_word("Size")
def count(node: Node, a: Array) -> Any:
    return np.array(a.size)


@fold_word("Constant")
def constant(node: Node) -> Any:
    name, value = next(iter(node.attributes.items()))
    if name not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        raise Unreadable(f"a constant of kind {name}")
    return value if name == "value" else np.array(value, dtype=np.float64 if "float" in name else np.int64)


@fold_word("ConstantOfShape")
def constant_of_shape(node: Node, sizes: Array) -> Any:
    extent = [int(n) for n in listed(sizes)]
    _room(extent)
    value = node.attributes.get("value", np.zeros(1))
    return np.full(extent, value.reshape(()))


@fold_word("Reshape")
def reshape(node: Node, a: Array, target: Array) -> Any:
    sizes = [int(n) for n in listed(target)]
    if not node.integer("allowzero", 0):
        sizes = [a.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return a.reshape(sizes)


@fold_word("Flatten")
def flatten(node: Node, a: Array) -> Any:
    axis = node.integer("axis", 1)
    axis += a.ndim if axis < 0 else 0
    return a.reshape(prod(a.shape[:axis]), -1)


@fold_word("Transpose")
def transpose(node: Node, a: Array) -> Any:
    return a.transpose(node.integers("perm", list(range(a.ndim))[::-1]))


@fold_word("Squeeze")
def squeeze(node: Node, a: Array, axes: Array | None = None) -> Any:
    where = _axes(node, axes, a.ndim)
    return a.squeeze() if where is None else a.squeeze(tuple(where))


@fold_word("Unsqueeze")
def unsqueeze(node: Node, a: Array, axes: Array | None = None) -> Any:
    number = len(node.integers("axes", [])) if axes is None else axes.size
    return np.expand_dims(a, tuple(_axes(node, axes, a.ndim + number) or ()))


@fold_word("Concat")
def concat(node: Node, *parts: Array) -> Any:
    _room([sum(p.size for p in parts)])
    return np.concatenate(parts, axis=node.integer("axis", 0))


@fold_word("Gather")
def gather(node: Node, a: Array, index: Array) -> Any:
    axis = node.integer("axis", 0)
    _room([index.size, a.size // max(a.shape[axis], 1)])
    return np.take(a, index, axis=axis)


@fold_word("Slice")
def take_slice(
    node: Node, a: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Any:
    where = _axes(node, axes, a.ndim) if axes is not None else list(range(starts.size))
    pace = listed(steps) if steps is not None else [1] * starts.size
    keys = [slice(None)] * a.ndim
    for axis, *key in zip(where or [], listed(starts), listed(ends), pace, strict=True):
        keys[axis] = slice(*(int(k) for k in key))
    return a[tuple(keys)]


@fold_word("Split")
def split(node: Node, a: Array, sizes: Array | None = None) -> Any:
    axis = node.integer("axis", 0)
    parts = parted(node, a.shape[axis], sizes)
    return tuple(np.split(a, np.cumsum(parts)[:-1], axis=axis))


def parted(node: Node, width: int, sizes: Array | None) -> list[int]:
    """How many of `width` elements each result of a Split gets."""
    if sizes is not None or "split" in node.attributes:
        parts = node.integers("split", []) if sizes is None else [int(n) for n in listed(sizes)]
    else:
        number = node.integer("num_outputs", len(node.outputs))
        share = -(-width // number)
        parts = [min(share, width - i) for i in range(0, width, share)]
    if sum(parts) != width or len(parts) != len(node.outputs) or min(parts, default=0) < 0:
        raise Unreadable(f"a split of {width} into {parts}")
    return parts


@fold_word("Expand")
def expand(node: Node, a: Array, target: Array) -> Any:
    whole = np.broadcast_shapes(a.shape, tuple(int(n) for n in listed(target)))
    _room(whole)
    return np.broadcast_to(a, whole)


@fold_word("Tile")
def tile(node: Node, a: Array, times: Array) -> Any:
    repeats = [int(n) for n in listed(times)]
    _room([a.size, *repeats])
    return np.tile(a, repeats)


@fold_word("Range")
def span(node: Node, start: Array, stop: Array, step: Array) -> Any:
    first, last, pace = (o.item() for o in (start, stop, step))
    _room([max(0, int((last - first) / pace) + 1)])
    return np.arange(first, last, pace)


# -- weight algebra --------------------------------------------------------------------------------


def _reduction(function: Callable[..., Any]) -> Fold:
    def compute(node: Node, a: Array, axes: Array | None = None) -> Any:
        where = _axes(node, axes, a.ndim)
        if not where and node.integer("noop_with_empty_axes", 0):
            return a
        return function(a, axis=tuple(where) if where else None, keepdims=bool(node.integer("keepdims", 1)))

    return compute


FOLDS |= {
    "ReduceSum": _reduction(np.sum),
    "ReduceMean": _reduction(np.mean),
    "ReduceProd": _reduction(np.prod),
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "ReduceL2": _reduction(lambda a, **how: np.sqrt(np.sum(a * a, **how))),
    "ReduceSumSquare": _reduction(lambda a, **how: np.sum(a * a, **how)),
}


@fold_word("MatMul")
def matmul(node: Node, a: Array, b: Array) -> Any:
    _room([*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2] if a.ndim > 1 else 1, b.shape[-1]])
    return a @ b


@fold_word("Conv")
def conv(node: Node, a: Array, weight: Array, bias: Array | None = None) -> Any:
    """A kernel convolved with another: training-time branches, merged (ECBSR)."""
    pads = node.integers("pads", [0, 0, 0, 0])
    if node.text("auto_pad", "NOTSET") != "NOTSET" or len(pads) != 4 or min(pads) < 0:
        raise Unreadable("a convolution of constants padded in this way")
    _room([len(a), max(a.shape[1], len(weight)), a.shape[2] + pads[0] + pads[2], a.shape[3] + pads[1] + pads[3]])
    padded = torch.nn.functional.pad(torch.from_numpy(a.copy()), (pads[1], pads[3], pads[0], pads[2]))
    offset = None if bias is None else torch.from_numpy(bias.copy())
    steps, spread = node.integers("strides", [1, 1]), node.integers("dilations", [1, 1])
    kernel = torch.from_numpy(weight.copy())
    result = torch.nn.functional.conv2d(padded, kernel, offset, steps, 0, spread, node.integer("group", 1))
    return result.numpy()
