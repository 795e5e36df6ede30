"""Computing what an ONNX network computes without its image: weight algebra, and sizes.

Known values are NumPy arrays: float64 for all floating-point types, each number rounded to the file's own type, as its
engine computes weights too; whole numbers and bool in the file's own types, whose sums wrap around as there; or objects
where a height or width that stays free, a `Size`, or the number of images, a `Batch`, is among the numbers, which are
those of the file's type all the same.
What a small file may make of its constants is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from memsr_compiler.errors import first_line
from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.folds import algebra, elementwise, shape
from memsr_compiler.trace.onnx.folds.registry import COUNTS, FOLDS, check_room, is_for_each_image
from memsr_compiler.trace.onnx.folds.types import are_plain, plain_numbers, round_to
from memsr_compiler.trace.onnx.tensors import Array
from memsr_compiler.trace.views import Batch, Unreadable

VOCABULARY = (algebra, elementwise, shape)  # imported, their folds are in FOLDS

MISUSE = (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError, ArithmeticError)
"""Errors of an operation to which a file's node gives operands that it cannot take."""


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
        if any(operand is not None and operand.dtype == object for operand in operands):
            raise Unreadable("it computes something of the size of the image that is not followed") from None
        raise Unreadable(f"it cannot be computed beforehand ({first_line(error)})") from None
    return tuple(_as_array(r, node.type) for r in (result if isinstance(result, tuple) else (result,)))


def fold_rows(node: Node, operands: Sequence[Array | None], rows: Sequence[bool]) -> tuple[tuple[Array, ...], bool]:
    """The results of `fold`, and whether they have a row for each image: one is held, as all are the same.

    rows   which operands have

    Raises Unreadable where an operator makes something else of the rows together than of each alone.
    """
    results = fold(node, operands)
    sizes = operands[1] if node.op in ("Reshape", "Expand", "Tile") else None
    repeats = sizes is not None and is_for_each_image(sizes)
    if not repeats and not any(rows):
        return results, False
    if not repeats:
        others = _fold_three(node, operands, rows)
        if all(map(np.array_equal, results, others)):  # the first row, or the mean of all
            return results, False
        apart = all(
            one.ndim and np.array_equal(np.repeat(one, 3, axis=0), o) for one, o in zip(results, others, strict=True)
        )
    elif node.op == "Expand" and rows[0]:
        apart = not rows[1] and _rank(operands[0]) == results[0].ndim
    else:
        apart = not rows[1] and rows[0] == (node.op == "Reshape")
    if not apart or len(results[0]) != 1:
        raise Unreadable(COUNTS)
    return results, True


def _rank(operand: Array | None) -> int:
    return 0 if operand is None else operand.ndim


def _fold_three(node: Node, operands: Sequence[Array | None], rows: Sequence[bool]) -> tuple[Array, ...]:
    """The results for three rows, as alike as they are.  Raises Unreadable."""
    several = [o if o is None or not row else np.repeat(o, 3, axis=0) for o, row in zip(operands, rows, strict=True)]
    try:
        check_room([sum(o.size for o in several if o is not None)])
        return fold(node, several)
    except Unreadable:
        raise Unreadable(COUNTS) from None


def _as_array(value: Any, kind: int) -> Array:
    """The value as an array of that type of ONNX's; of objects only where a Size or Batch is among them."""
    array = np.asarray(value, dtype=object if isinstance(value, Batch) else None)
    if array.dtype != object:
        return round_to(array, kind)
    plain = are_plain(array)
    numbers = round_to(plain_numbers(array[plain]), kind) if plain.any() else array[plain]
    if plain.all():
        return numbers.reshape(array.shape)
    result = np.array(array)
    result[plain] = numbers.astype(object)
    return result
