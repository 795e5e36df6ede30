"""Damage to the bytes of a file: bits, runs and lengths, and the numbers and brackets that formats are made of."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Literal

Damage = Callable[[bytes, int, int, random.Random], bytes]  # content, start and end of a piece of it

_ORDERS: tuple[Literal["little"], Literal["big"]] = ("little", "big")
_LONGEST = 300  # bytes of a piece
_NUMBER = re.compile(rb"-?\d+")
_TEXTS = (
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"null",
    b"99999999999999999999",
    b"9" * 5000,
    b'"',
    b"[" * 3000,
    b"{}",
    b"\xff",
)
_VARINTS = (b"\x00", b"\x7f", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x80\x20")


def mutate(content: bytes, rng: random.Random) -> bytes:
    """The content, damaged in one way or two; half of the places are near its ends, where headers are."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        if not content:
            break
        part = rng.choice((rng.random(), rng.random(), rng.random() / 10, 1 - rng.random() / 10))
        start = min(int(part * len(content)), len(content) - 1)
        end = min(len(content), start + rng.choice((1, 2, 4, 8, rng.randint(1, _LONGEST))))
        content = rng.choice(_DAMAGES)(content, start, end, rng)
    return content


def _flip(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    return content[:start] + bytes([content[start] ^ 1 << rng.randrange(8)]) + content[start + 1 :]


def _fill(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    return content[:start] + rng.choice((b"\0", b"\xff")) * (end - start) + content[end:]


def _scramble(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    return content[:start] + rng.randbytes(end - start) + content[end:]


def _cut_off(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    return content[:start]


def _remove(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    return content[:start] + content[end:]


def _insert(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    return content[:start] + rng.randbytes(end - start) + content[start:]


def _repeat(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    return content[:end] + content[start:]


def _append(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    return content + content[start:end]


def _swap(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    later = rng.randint(end, len(content))
    return content[:start] + content[end:later] + content[start:end] + content[later:]


def _set_number(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    """A whole number of 2, 4 or 8 bytes, the largest, the smallest, or one more."""
    size, order = rng.choice((2, 4, 8)), _ORDERS[rng.randrange(2)]
    most = 1 << 8 * size
    before = int.from_bytes(content[start : start + size], order)
    number = rng.choice((0, 1, before + 1, before * 2, most - 1, most // 2)) % most
    return content[:start] + number.to_bytes(size, order) + content[start + size :]


def _set_varint(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    """A number as protobuf writes them, which is as long as its high bits say."""
    end = start
    while end < len(content) - 1 and content[end] & 0x80 and end - start < 9:
        end += 1
    return content[:start] + rng.choice(_VARINTS) + content[end + 1 :]


def _set_text(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    """A number in digits, from here on the first, or what stands here."""
    found = _NUMBER.search(content, start) or _NUMBER.search(content)
    if found is not None and rng.random() < 0.8:
        start, end = found.span()
    return content[:start] + rng.choice(_TEXTS) + content[end:]


_DAMAGES: tuple[Damage, ...] = (
    _flip, _flip, _fill, _scramble, _cut_off, _remove, _insert, _repeat, _append, _swap, _set_number, _set_number,
    _set_varint, _set_text,
)  # fmt: skip
