"""Types of an ONNX file's numbers: what is computed of them is rounded as every engine rounds it.

Folds compute floating point in float64, of which the result is then rounded to the file's own type.  For sums of two,
products, quotients and square roots that gives what computing in float32 or float16 would: float64 has more than
twice their digits.  Sums of many depend on the order that an engine adds them in, and are refused where that matters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from memsr_compiler.trace.onnx.tensors import Array
from memsr_compiler.trace.views import Batch, Size, Unreadable

FLOAT, HALF, DOUBLE, BRAIN, BOOL = 1, 10, 11, 16, 9
FLOATING = (FLOAT, HALF, DOUBLE, BRAIN)
HOLD_SIZES = (FLOAT, DOUBLE, 6, 7, 12, 13)
"""Types that hold the height and width of every image: int32, int64, uint32 and uint64 too."""
NUMPY = {
    **dict.fromkeys(FLOATING, "float64"), BOOL: "bool",
    2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 12: "uint32", 13: "uint64",
}  # fmt: skip
"""NumPy's types by TensorProto's numbers, the floating ones as they are held here."""


def round_to(a: Array, kind: int) -> Array:
    """Numbers as a type of ONNX holds them; floating ones in float64.  Sizes of the image are left as they are.

    Raises Unreadable for what the type does not hold, as the file's own number is infinite then.
    """
    if a.dtype == object or kind not in NUMPY:
        return a
    if (kind in FLOATING) != (a.dtype.kind == "f"):
        raise Unreadable("its operands are not of the types that it takes")
    if kind not in FLOATING:
        return a.astype(NUMPY[kind], copy=False)
    with np.errstate(all="ignore"):
        single = a.astype(np.float32)
        rounded = single if kind == FLOAT else _narrow(single, kind) if kind != DOUBLE else a
        beyond = np.isinf(single) | np.isinf(rounded)
    if bool((np.isfinite(a) & beyond).any()):
        raise Unreadable(f"its result is beyond what {_NAMES[kind]} holds")
    return rounded.astype(np.float64, copy=False)


_NAMES = {FLOAT: "float32", DOUBLE: "float32", HALF: "float16", BRAIN: "bfloat16"}


def _narrow(single: Array, kind: int) -> Array:
    """Numbers of float32 in a type of halves, to which engines come by way of float32 from others, too."""
    if kind == HALF:
        return single.astype(np.float16)
    return torch.from_numpy(single.copy()).bfloat16().float().numpy()


def are_plain(a: Array) -> Array:
    """Which of an array's objects are numbers, not sizes of the image or numbers of images."""
    of_each = np.frompyfunc(lambda value: not isinstance(value, (Size, Batch)), 1, 1)
    return np.asarray(of_each(a), dtype=bool)  # of a single object it is no array


def plain_numbers(a: Array) -> Array:
    """An array of Python's numbers in NumPy's type of them.  Raises Unreadable where there is none."""
    kinds = {type(value) for value in a.flat}
    if not kinds <= {int, float, bool}:
        raise Unreadable("it computes something of the size of the image that is not followed")
    return a.astype(np.float64 if float in kinds else bool if kinds == {bool} else np.int64)


_DIGITS, _DOUBLE_DIGITS, _SURE = 24, 53, 10  # float16 is added up in float32


def require_any_order(result: Array, sizes: Array, kind: int, *operands: Array | None) -> None:
    """Refuse a sum of many that is another one in another order of its terms: nobody knows an engine's.

    sizes      the same sum, of the absolute values of its terms
    operands   that the terms are made of: whole numbers are added up without rounding

    Raises Unreadable where what each addition rounds off may reach a thousandth of the largest result, as where a
    large constant is added and taken off.
    """
    digits = _DOUBLE_DIGITS if kind == DOUBLE else _DIGITS
    largest, most = (np.abs(array).max(initial=0.0) for array in (result, sizes))
    if not most > largest * 2.0 ** (digits - _SURE):  # nor NaN, which is refused where it is used
        return
    if most >= 2.0**digits or not all(o is None or np.array_equal(o, np.rint(o)) for o in operands):
        raise Unreadable(
            "its terms cancel, and what is left depends on the order that they are added in, which no engine promises"
        )


def cast_to(a: Array, kind: int) -> Array:
    """An array in another type.  Raises Unreadable where a whole number is to hold what it cannot, which is undefined.

    Whole numbers made smaller keep their last bits, as everywhere.
    """
    if kind in FLOATING:
        whole = a.dtype.kind in "iu" and kind != DOUBLE
        return round_to((a.astype(np.float32) if whole else a).astype(np.float64), kind)  # in one step from int64
    return as_type(a, np.dtype(NUMPY[kind]))


def as_type(a: Array, kind: np.dtype[Any]) -> Array:
    """The same by NumPy's name of a type of whole numbers, or bool."""
    if a.dtype.kind == "f" and kind.kind in "iu":
        least, most = np.iinfo(kind).min, np.iinfo(kind).max
        if not bool(((a > float(least) - 1) & (a < float(most) + 1)).all()):
            raise Unreadable(f"numbers that {kind} does not hold")
    return a.astype(kind)
