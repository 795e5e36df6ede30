"""Folds that add up and multiply weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.folds.elementwise import of_no_batch
from memsr_compiler.trace.onnx.folds.registry import FOLDS, Fold, check_room, fold_word, read_axes
from memsr_compiler.trace.onnx.folds.types import require_any_order, round_to
from memsr_compiler.trace.onnx.tensors import Array
from memsr_compiler.trace.views import Unreadable


def _reduction(function: Callable[..., Any], *, whole: bool = True, sums: bool = False) -> Fold:
    """A fold over axes.

    whole   of whole numbers too, in their own type
    sums    it adds up terms of either sign, in an order that is the engine's own
    """

    def compute(node: Node, a: Array, axes: Array | None = None) -> Any:
        where = read_axes(node, axes, a.ndim)
        if not where and node.integer("noop_with_empty_axes", 0):
            return a
        if not whole and a.dtype.kind != "f":
            raise Unreadable("it is taken of whole numbers")
        over, keep = tuple(where) if where else None, bool(node.integer("keepdims", 1))
        result = function(a, axis=over, keepdims=keep)
        if sums and a.dtype.kind == "f":
            require_any_order(result, function(np.abs(a), axis=over, keepdims=keep), node.type, a)
        return result if a.dtype == object else np.asarray(result).astype(a.dtype)

    return compute


def _of_squares(fold: Fold) -> Fold:
    """The fold of squares, which are rounded to the file's type: those of tiny numbers are zero there."""
    return lambda node, a, *axes: fold(node, round_to(a * a, node.type) if a.dtype.kind == "f" else a, *axes)


FOLDS |= {
    "ReduceSum": _reduction(np.sum, sums=True),
    "ReduceMean": _reduction(np.mean, whole=False, sums=True),
    "ReduceProd": _reduction(np.prod),
    "ReduceMax": of_no_batch(_reduction(np.max)),
    "ReduceMin": of_no_batch(_reduction(np.min)),
    "ReduceL2": _of_squares(_reduction(lambda a, **how: np.sqrt(np.sum(a, **how)), whole=False)),
    "ReduceSumSquare": _of_squares(_reduction(np.sum, whole=False)),
}


@fold_word("MatMul")
def matmul(node: Node, a: Array, b: Array) -> Any:
    check_room([*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2] if a.ndim > 1 else 1, b.shape[-1]])
    result = a @ b
    if result.dtype.kind == "f":
        require_any_order(result, np.abs(a) @ np.abs(b), node.type, a, b)
    return result


@fold_word("Conv")
def conv(node: Node, a: Array, weight: Array, bias: Array | None = None) -> Any:
    """A kernel convolved with another: training-time branches, merged (ECBSR)."""
    pads = node.integers("pads", [0, 0, 0, 0])
    if node.text("auto_pad", "NOTSET") != "NOTSET" or len(pads) != 4 or min(pads) < 0:
        raise Unreadable("a convolution of constants padded in this way")
    check_room([len(a), max(a.shape[1], len(weight)), a.shape[2] + pads[0] + pads[2], a.shape[3] + pads[1] + pads[3]])
    operands = [operand if operand is None else torch.from_numpy(operand.copy()) for operand in (a, weight, bias)]
    steps, spread = node.integers("strides", [1, 1]), node.integers("dilations", [1, 1])

    def convolve(x: Any, kernel: Any, offset: Any) -> Array:
        padded = functional.pad(x, (pads[1], pads[3], pads[0], pads[2]))
        result: Array = functional.conv2d(padded, kernel, offset, steps, 0, spread, node.integer("group", 1)).numpy()
        return result

    result = convolve(*operands)
    sizes = convolve(*(None if o is None else o.abs() for o in operands))
    require_any_order(result, sizes, node.type, a, weight, bias)
    return result
