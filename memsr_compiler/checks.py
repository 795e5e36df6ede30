"""Checks of what a person gives in Python, before any work begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import signature
from numbers import Integral, Real

from memsr_compiler.errors import InvalidInput

MOST_THREADS = 1024  # of an engine: OpenMP ends the whole process where it cannot have as many as it was told


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


def require_size(size: object) -> None:
    """Raise InvalidInput for what is no width and height of an image."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise InvalidInput(f"size={size!r}: want (width, height) in pixels, (960, 540) say")
    for side in size:
        require_whole("size", side, 1, f"an image of {size[0]}x{size[1]} pixels has no pixel")


def require_align(align: object) -> None:
    """Raise InvalidInput for what is no multiple that widths can be padded to."""
    if isinstance(align, bool) or not isinstance(align, Integral) or align < 1:
        raise InvalidInput(f"widths cannot be aligned to {align}; take 1 or more")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise InvalidInput for what is none of two or more choices."""
    if value not in choices:
        several = "neither" if len(choices) == 2 else "none of"
        raise InvalidInput(f"{name} '{value}' is {several} {(' nor ' if len(choices) == 2 else ', ').join(choices)}")


def require_listener(name: str, value: object, *hears: str) -> None:
    """Raise InvalidInput for what is no function that can be told these things, and is not None either."""
    if value is None:
        return
    wanted = f"{name}: want a function that takes {' and '.join(hears) or 'nothing'}"
    if not callable(value):
        raise InvalidInput(f"{wanted}, or None, not {type(value).__name__}")
    try:
        signature(value).bind(*hears)
    except TypeError as error:
        raise InvalidInput(f"{wanted}; this one cannot be called so: {error}") from None
    except ValueError:  # of some functions written in C nobody can say
        return


def require_threads(threads: object) -> None:
    """Raise InvalidInput for what is no number of threads that an engine can be told; None leaves it to the engine."""
    if threads is None:
        return
    require_whole(
        "threads", threads, 1, f"threads={threads}: want a whole number from 1 up, or None, the engine's choice"
    )
    if threads > MOST_THREADS:  # type: ignore[operator]
        raise InvalidInput(f"threads={threads}: want {MOST_THREADS} or fewer; more than cores there are wins nothing")
