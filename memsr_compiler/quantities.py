"""Quantities as people write them: 1.2M parameters, 24MB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from memsr_compiler.errors import InvalidInput

Amount: TypeAlias = "int | str"
"""A number from 1 up, or text such as "1.2M" or "24MB"."""

COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BYTES = {"": 1, "b": 1} | {
    f"{letter}{unit}": base**power
    for power, letter in enumerate("kmgt", 1)
    for unit, base in (("b", 1000), ("ib", 1024))
}
A_COUNT = "a number such as 800000, 1.2M or 3G"
A_SIZE = "a size such as 40MB, 1.5GB or 64MiB"

_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:e\+?[0-9]{1,2})?|\.[0-9]+) ?([a-z]*)", re.IGNORECASE)


def count(name: str, amount: Amount) -> int:
    """'1.2M' -> 1_200_000; a whole number is itself.  Raises InvalidInput, in which `name` is what it was given for."""
    return _whole(name, amount, COUNTS, A_COUNT)


def size_in_bytes(name: str, amount: Amount) -> int:
    """'40MB' -> 40_000_000, '40MiB' -> 41_943_040; a whole number is itself.  Raises InvalidInput as `count`."""
    return _whole(name, amount, BYTES, A_SIZE)


def say_count(number: int, noun: str, several: str = "") -> str:
    """A number of things in words: "1 image", "2,000 images"; `several` where it is no plural in s: "batches"."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def parse_amount(text: str, units: Mapping[str, int]) -> int:
    """The number in a text, in these units.  Raises ValueError for text that is none, and for less than 1."""
    parts = _AMOUNT.fullmatch(text.strip())
    if parts is None or parts[2].lower() not in units:
        raise ValueError(f"{text}: no quantity")
    amount = round(float(parts[1]) * units[parts[2].lower()])
    if amount < 1:
        raise ValueError(f"{text}: is nothing")
    return amount


def _whole(name: str, amount: Amount, units: Mapping[str, int], wanted: str) -> int:
    try:
        number = parse_amount(amount, units) if isinstance(amount, str) else int(amount)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or not (isinstance(amount, str) or number == amount):
        raise InvalidInput(f"{name} {amount!r}: want a whole number from 1 up, or {wanted}")
    return number
