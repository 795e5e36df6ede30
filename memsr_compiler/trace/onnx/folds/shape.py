"""Folds that make, cut, join and rearrange constants, and ask for their shapes."""

from __future__ import annotations

import operator
from math import prod
from typing import Any

import numpy as np

from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.folds.registry import (
    COUNTS,
    check_room,
    fold_word,
    is_for_each_image,
    list_integers,
    list_numbers,
    list_sizes,
    read_axes,
    require_no_batch,
)
from memsr_compiler.trace.onnx.tensors import Array
from memsr_compiler.trace.views import Unreadable


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
    require_no_batch(sizes)
    extent = [operator.index(n) for n in list_numbers(sizes)]
    check_room(extent)
    value = node.attributes.get("value", np.zeros(1))
    return np.full(extent, value.reshape(()))


@fold_word("Reshape")
def reshape(node: Node, a: Array, target: Array) -> Any:
    sizes = list_sizes(target)
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
    where = read_axes(node, axes, a.ndim)
    return a.squeeze() if where is None else a.squeeze(tuple(where))


@fold_word("Unsqueeze")
def unsqueeze(node: Node, a: Array, axes: Array | None = None) -> Any:
    number = len(node.integers("axes", [])) if axes is None else axes.size
    return np.expand_dims(a, tuple(read_axes(node, axes, a.ndim + number) or ()))


@fold_word("Concat")
def concat(node: Node, *parts: Array) -> Any:
    check_room([sum(p.size for p in parts)])
    return np.concatenate(parts, axis=node.integer("axis", 0))


@fold_word("Gather")
def gather(node: Node, a: Array, index: Array) -> Any:
    axis = node.integer("axis", 0)
    check_room([index.size, a.size // max(a.shape[axis], 1)])
    return np.take(a, index, axis=axis)


@fold_word("Slice")
def take_slice(
    node: Node, a: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Any:
    where = read_axes(node, axes, a.ndim) if axes is not None else list(range(starts.size))
    pace = list_integers(steps) if steps is not None else [1] * starts.size
    keys = [slice(None)] * a.ndim
    for axis, *key in zip(where or [], list_integers(starts), list_integers(ends), pace, strict=True):
        keys[axis] = slice(*key)
    return a[tuple(keys)]


@fold_word("Split")
def split(node: Node, a: Array, sizes: Array | None = None) -> Any:
    axis = node.integer("axis", 0)
    parts = split_sizes(node, a.shape[axis], sizes)
    return tuple(np.split(a, np.cumsum(parts)[:-1], axis=axis))


def split_sizes(node: Node, width: int, sizes: Array | None) -> list[int]:
    """Numbers of elements, `width` together, that the results of a Split get."""
    if sizes is not None or "split" in node.attributes:
        parts = node.integers("split", []) if sizes is None else list_integers(sizes)
    else:
        number = node.integer("num_outputs", len(node.outputs))
        share = -(-width // number)
        parts = [min(share, width - i) for i in range(0, width, share)]
    if sum(parts) != width or len(parts) != len(node.outputs) or min(parts, default=0) < 0:
        raise Unreadable(f"a split of {width} into {parts}")
    return parts


def _require_one_row(a: Array, sizes: Array) -> None:
    """Refuse to repeat for each image what is no single row: it has the axis that is to be the number of images."""
    if is_for_each_image(sizes) and (a.ndim > sizes.size or (a.ndim == sizes.size and len(a) != 1)):
        raise Unreadable(COUNTS)


@fold_word("Expand")
def expand(node: Node, a: Array, target: Array) -> Any:
    _require_one_row(a, target)
    whole = np.broadcast_shapes(a.shape, tuple(list_sizes(target)))
    check_room(whole)
    return np.broadcast_to(a, whole)


@fold_word("Tile")
def tile(node: Node, a: Array, times: Array) -> Any:
    _require_one_row(a, times)
    repeats = list_sizes(times)
    check_room([a.size, *repeats])
    return np.tile(a, repeats)


_EXACT = 2**24  # up to which float32 holds all whole numbers


@fold_word("Range")
def span(node: Node, start: Array, stop: Array, step: Array) -> Any:
    first, last, pace = (o.item() for o in (start, stop, step))
    check_room([max(0, int((last - first) / pace) + 1)])
    if start.dtype.kind == "f" and not all(float(n).is_integer() and abs(n) <= _EXACT for n in (first, last, pace)):
        raise Unreadable("it counts in fractions, which some engines add up, rounding each time, and others multiply")
    return np.arange(first, last, pace).astype(start.dtype)
