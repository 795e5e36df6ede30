"""Numbers as people write them: 1.2M parameters, 40MB."""

from __future__ import annotations

import re
from collections.abc import Mapping

from memsr_compiler.errors import InvalidInput

_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BYTES = {"": 1, "b": 1} | {
    f"{letter}{unit}": base**power
    for power, letter in enumerate("kmgt", 1)
    for unit, base in (("b", 1000), ("ib", 1024))
}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:e\+?[0-9]{1,2})?|\.[0-9]+) ?([a-z]*)", re.IGNORECASE)


def count(option: str, text: str) -> int:
    """'1.2M' -> 1_200_000.  Raises InvalidInput."""
    return _parsed(option, text, _COUNTS, "a number such as 800000, 1.2M or 3G")


def size_in_bytes(option: str, text: str) -> int:
    """'40MB' -> 40_000_000, '40MiB' -> 41_943_040.  Raises InvalidInput."""
    return _parsed(option, text, _BYTES, "a size such as 40MB, 1.5GB or 64MiB")


def whole_numbers(option: str, text: str) -> list[int]:
    """'16,24,32' -> [16, 24, 32], each 1 or more.  Raises InvalidInput."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 and int(part) for part in parts):
        raise InvalidInput(f"--{option} {text}: want whole numbers from 1 up with commas between, as in 16,24,32")
    return [int(part) for part in parts]


def fractions(option: str, text: str) -> list[float]:
    """'0.02,0.05' -> [0.02, 0.05], each above 0 and below 1.  Raises InvalidInput."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < 1 for number in numbers):
        raise InvalidInput(f"--{option} {text}: want numbers between 0 and 1, as in --{option} 0.02,0.05,0.1")
    return numbers


def _parsed(option: str, text: str, units: Mapping[str, int], wanted: str) -> int:
    found = _AMOUNT.fullmatch(text.strip())
    if found is None or found[2].lower() not in units:
        raise InvalidInput(f"--{option} {text}: want {wanted}")
    amount = round(float(found[1]) * units[found[2].lower()])
    if amount < 1:
        raise InvalidInput(f"--{option} {text}: is nothing; want {wanted}")
    return amount
