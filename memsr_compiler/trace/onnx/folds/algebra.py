"""Folds that add up and multiply weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.folds.registry import FOLDS, Fold, check_room, fold_word, read_axes
from memsr_compiler.trace.onnx.tensors import Array
from memsr_compiler.trace.views import Unreadable


def _reduction(function: Callable[..., Any], *, whole: bool = True) -> Fold:
    """A fold over axes; `whole`: of whole numbers too, in their own type."""

    def compute(node: Node, a: Array, axes: Array | None = None) -> Any:
        where = read_axes(node, axes, a.ndim)
        if not where and node.integer("noop_with_empty_axes", 0):
            return a
        if not whole and a.dtype.kind != "f":
            raise Unreadable("it is taken of whole numbers")
        result = function(a, axis=tuple(where) if where else None, keepdims=bool(node.integer("keepdims", 1)))
        return result if a.dtype == object else np.asarray(result).astype(a.dtype)

    return compute


FOLDS |= {
    "ReduceSum": _reduction(np.sum),
    "ReduceMean": _reduction(np.mean, whole=False),
    "ReduceProd": _reduction(np.prod),
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "ReduceL2": _reduction(lambda a, **how: np.sqrt(np.sum(a * a, **how)), whole=False),
    "ReduceSumSquare": _reduction(lambda a, **how: np.sum(a * a, **how)),
}


@fold_word("MatMul")
def matmul(node: Node, a: Array, b: Array) -> Any:
    check_room([*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2] if a.ndim > 1 else 1, b.shape[-1]])
    return a @ b


@fold_word("Conv")
def conv(node: Node, a: Array, weight: Array, bias: Array | None = None) -> Any:
    """A kernel convolved with another: training-time branches, merged (ECBSR)."""
    pads = node.integers("pads", [0, 0, 0, 0])
    if node.text("auto_pad", "NOTSET") != "NOTSET" or len(pads) != 4 or min(pads) < 0:
        raise Unreadable("a convolution of constants padded in this way")
    check_room([len(a), max(a.shape[1], len(weight)), a.shape[2] + pads[0] + pads[2], a.shape[3] + pads[1] + pads[3]])
    padded = torch.nn.functional.pad(torch.from_numpy(a.copy()), (pads[1], pads[3], pads[0], pads[2]))
    offset = None if bias is None else torch.from_numpy(bias.copy())
    steps, spread = node.integers("strides", [1, 1]), node.integers("dilations", [1, 1])
    kernel = torch.from_numpy(weight.copy())
    result = torch.nn.functional.conv2d(padded, kernel, offset, steps, 0, spread, node.integer("group", 1))
    return result.numpy()
