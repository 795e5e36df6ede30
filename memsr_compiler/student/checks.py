"""Checks of what a person gives, before any work begins."""

from __future__ import annotations

import math
from numbers import Integral, Real

from memsr_compiler.errors import InvalidInput


def require_whole(name: str, value: object, least: int, otherwise: str) -> None:
    """Raise InvalidInput unless the value is a whole number of at least that much.

    otherwise   what is wrong with a smaller one, in words
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidInput(f"{name}={value!r}: want a whole number, not {type(value).__name__}")
    if int(value) < least:
        raise InvalidInput(otherwise)


def require_number(name: str, value: object) -> None:
    """Raise InvalidInput unless the value is a number, which NaN is not."""
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(float(value)):
        raise InvalidInput(f"{name}={value!r}: want a number")


def require_range(name: str, value: object) -> None:
    """Raise InvalidInput unless the value is a pair of finite numbers, the smaller one first."""
    pair = value if isinstance(value, (tuple, list)) else ()
    for end in pair:
        require_number(name, end)
    if len(pair) != 2 or not all(map(math.isfinite, pair)) or not pair[0] < pair[1]:
        raise InvalidInput(f"{name}={value!r}: want the lowest and the highest value, (0, 1) or (0, 255)")
