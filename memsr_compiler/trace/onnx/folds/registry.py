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
from memsr_compiler.trace.views import Unreadable

Fold = Callable[..., Any]
FOLDS: dict[str, Fold] = {}

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


def read_axes(node: Node, operand: Array | None, rank: int) -> list[int] | None:
    """Axes as an attribute (older opsets) or an operand, counted from the front; None if there are none."""
    if operand is None and "axes" not in node.attributes:
        return None
    axes = node.integers("axes", []) if operand is None else [int(i) for i in list_numbers(operand)]
    if any(not -rank <= a < rank for a in axes):
        raise Unreadable(f"axes {axes} of {rank}")
    return [a % rank for a in axes]
