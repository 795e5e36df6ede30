"""Values of options as people write them: 1.2M, 40MB, 480x270.  What is no such value is refused before any work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import typer

from memsr_compiler.quantities import A_COUNT, A_SIZE, BYTES, COUNTS, parse_amount

_SIDE = 10**6  # pixels; no image is wider or higher


class WrongValue(typer.BadParameter):
    """A value that its option cannot have.  The command line adds which option that is, and the file it came from."""

    def __init__(self, value: object, wanted: str) -> None:
        super().__init__(f"{value}: want {wanted}")

    def format_message(self) -> str:
        """'--max-params many: want a number such as 1.2M'."""
        return f"{self.param.opts[0]} {self.message}" if self.param else self.message


class Size(NamedTuple):
    """Width and height of an image, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def parse_size(text: object) -> Size:
    """'480x270' -> Size(480, 270).  Raises WrongValue."""
    width, x, height = str(text).partition("x")
    if not (x and _is_whole(width) and _is_whole(height) and max(int(width), int(height)) <= _SIDE):
        raise WrongValue(text, "WIDTHxHEIGHT, as in 480x270")
    return Size(int(width), int(height))


def parse_count(text: object) -> int:
    """'1.2M' -> 1_200_000.  Raises WrongValue."""
    return _parse_amount(text, COUNTS, A_COUNT)


def parse_bytes(text: object) -> int:
    """'40MB' -> 40_000_000, '40MiB' -> 41_943_040.  Raises WrongValue."""
    return _parse_amount(text, BYTES, A_SIZE)


def parse_whole_numbers(text: object) -> tuple[int, ...]:
    """'16,24,32' -> (16, 24, 32), each 1 or more.  Raises WrongValue."""
    parts = [part.strip() for part in str(text).split(",")]
    if not all(map(_is_whole, parts)):
        raise WrongValue(text, "whole numbers from 1 up with commas between, as in 16,24,32")
    return tuple(map(int, parts))


def parse_fractions(text: object) -> tuple[float, ...]:
    """'0.02,0.05' -> (0.02, 0.05), each above 0 and below 1.  Raises WrongValue."""
    try:
        numbers = tuple(float(part) for part in str(text).split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < 1 for number in numbers):
        raise WrongValue(text, "numbers between 0 and 1, as in 0.02,0.05,0.1")
    return numbers


def parse_tile(text: object) -> str:
    """'auto', 'off', or a number of pixels.  Raises WrongValue."""
    if text not in ("auto", "off") and not _is_whole(str(text)):
        raise WrongValue(text, "auto, off, or a number of pixels")
    return str(text)


def check_number(wanted: str, fits: Callable[[float], bool] = math.isfinite) -> Callable[[float | None], float | None]:
    """Make a check of an option's value, if it has one: a finite number that fits.  It raises WrongValue."""

    def check(value: float | None) -> float | None:
        try:
            good = value is None or (math.isfinite(value) and fits(value))
        except OverflowError:  # a whole number beyond all others
            good = False
        if not good:
            raise WrongValue(value, wanted)
        return value

    return check


def check_range(value: tuple[float, float] | None) -> tuple[float, float] | None:
    """Check the value of --input-range, if it has one.  Raises WrongValue."""
    if value is not None and not (all(map(math.isfinite, value)) and value[0] < value[1]):
        raise WrongValue(" ".join(f"{end:g}" for end in value), "an input range, LOW before HIGH: 0 1 or 0 255")
    return value


def _is_whole(text: str) -> bool:
    """Whether a text is a number from 1 on that is not absurdly long."""
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0


def _parse_amount(text: object, units: Mapping[str, int], wanted: str) -> int:
    try:
        return parse_amount(str(text), units)
    except ValueError:
        raise WrongValue(text, wanted) from None
