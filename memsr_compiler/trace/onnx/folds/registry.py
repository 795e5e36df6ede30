"""Folds by name: what an ONNX operator computes of constants alone.

A fold is a function (node, operands) -> array or arrays; an operand is a NumPy array, or None if it is left out.
The other files of this folder hold the folds, and put them into `FOLDS` when they are imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.tensors import Array
from memsr_compiler.trace.views import BATCH, Batch, Unreadable

Fold = Callable[..., Any]
FOLDS: dict[str, Fold] = {}

COUNTS = "it computes with the number of images in a batch, and a plain network treats each image alone"

MAX_ELEMENTS = 2**25
"""The most elements that one computed constant may have."""


def fold_word(*names: str) -> Callable[[Fold], Fold]:
    """Put a function into FOLDS under these names of ONNX operators."""

    def attach(function: Fold) -> Fold:
        FOLDS.update(dict.fromkeys(names, function))
        return function

    return attach


def check_room(shape: Sequence[int]) -> None:
    """Refuse a result of this shape if it would be larger than MAX_ELEMENTS."""
    if prod(shape) > MAX_ELEMENTS:
        raise Unreadable(f"its result would have {prod(shape)} elements, more than {MAX_ELEMENTS}")


def list_numbers(array: Array) -> list[Any]:
    """The numbers of an array, in order, as Python's own."""
    numbers: list[Any] = array.reshape(-1).tolist()
    return numbers


def require_no_batch(*operands: Array) -> None:
    """Raises Unreadable where the number of images is among the numbers."""
    if any(isinstance(number, Batch) for o in operands if o.dtype == object for number in o.flat):
        raise Unreadable(COUNTS)


def list_integers(array: Array) -> list[int]:
    """The numbers of an array as integers.  Raises Unreadable where the number of images is among them."""
    require_no_batch(array)
    return [int(n) for n in list_numbers(array)]


def list_sizes(array: Array) -> list[int]:
    """The sizes of a constant's axes, of which the first may be the number of images: it is 1 here.

    What is the same for each image is held once.  Raises Unreadable where the number of images is anywhere else.
    """
    return [1, *list_integers(array[1:])] if is_for_each_image(array) else list_integers(array)


def is_for_each_image(sizes: Array) -> bool:
    """Whether the first of a constant's axes is to be the number of images."""
    return sizes.dtype == object and sizes.ndim == 1 and isinstance(sizes[0], Batch) and sizes[0] == BATCH


def read_axes(node: Node, operand: Array | None, rank: int) -> list[int] | None:
    """Axes as an attribute (older opsets) or an operand, counted from the front; None if there are none."""
    if operand is None and "axes" not in node.attributes:
        return None
    axes = node.integers("axes", []) if operand is None else list_integers(operand)
    if any(not -rank <= a < rank for a in axes):
        raise Unreadable(f"axes {axes} of {rank}")
    return [a % rank for a in axes]
