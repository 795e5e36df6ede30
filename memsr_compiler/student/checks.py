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
