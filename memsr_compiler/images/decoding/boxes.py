"""Boxes of ISO files, in which JPEG 2000, AVIF and HEIF keep what they say of their colours beside the pixels."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

Bytes = mmap.mmap | bytes
Span = tuple[int, int]  # where something begins, and where it ends

_MOST = 1 << 12  # boxes in one
SAID_BY_ALL = ((1, 13), (1, 2), (2, 13), (2, 2))  # primaries and transfer of sRGB, or nothing (2)


def find_boxes(data: Bytes, span: Span) -> Iterator[tuple[bytes, Span]]:
    """Boxes one after the other, each its name and where its content is; to the first that does not fit."""
    at, end = span
    for _ in range(_MOST):
        if at + 8 > end:
            return
        length, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1 and at + 16 <= end:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        elif length == 0:  # the last one
            length = end - at
        if not head <= length <= end - at:
            return
        yield name, (at + head, at + length)
        at += length


def find_box(data: Bytes, span: Span, *names: bytes) -> Span | None:
    """Where the content of a box in a box ... is; None where it is not there."""
    for wanted in names:
        found = next((inner for name, inner in find_boxes(data, span) if name == wanted), None)
        if found is None:
            return None
        # Some have a version and flags before the boxes that they hold.
        span = (found[0] + 4 * (wanted == b"meta"), found[1])
    return span


def read_colour_numbers(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Primaries and transfer function, by the numbers of ITU-T H.273, that an AVIF or HEIF states in a box `nclx`.

    None for another file, where nothing is stated, or there is an ICC profile, which outdoes it, and for what amounts
    to sRGB, which all assume.
    """
    properties = read_properties(path, b"colr")
    if any(each.startswith((b"prof", b"rICC")) for each in properties):
        return None
    stated = [struct.unpack_from(">2H", each, 4) for each in properties if each[:4] == b"nclx" and len(each) >= 8]
    numbers = next(iter(stated), (2, 2))
    return None if numbers in SAID_BY_ALL or max(numbers) > 255 else (int(numbers[0]), int(numbers[1]))


def read_properties(path: str | os.PathLike[str], name: bytes) -> list[bytes]:
    """Contents of boxes of that name that an AVIF or HEIF has of the picture which is shown; none of another file."""
    with open(path, "rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return [data[begin:end] for begin, end in _properties_of_picture(data, name)]
            except (struct.error, IndexError):
                return []


def _properties_of_picture(data: mmap.mmap, name: bytes) -> list[Span]:
    """Boxes of that name that belong to the picture which is shown.

    Raises struct.error or IndexError where numbers are missing.
    """
    meta = find_box(data, (0, len(data)), b"meta")
    if meta is None:
        return []
    shown, owned, every = (
        find_box(data, meta, *names) for names in ((b"pitm",), (b"iprp", b"ipma"), (b"iprp", b"ipco"))
    )
    if shown is None or owned is None or every is None:
        return []
    (picture,) = struct.unpack_from(">I" if data[shown[0]] else ">H", data[slice(*shown)], 4)
    boxes = list(find_boxes(data, every))
    places = [place for place in _places_of_properties(data[slice(*owned)], picture) if 0 < place <= len(boxes)]
    return [boxes[place - 1][1] for place in places if boxes[place - 1][0] == name]


def _places_of_properties(owned: bytes, picture: int) -> list[int]:
    """Properties of a picture, numbered from 1, by the box `ipma`."""
    version, flags, count = struct.unpack_from(">B3sI", owned, 0)
    number = ">I" if version else ">H"
    each = ">H" if flags[2] & 1 else ">B"
    at = 8
    for _ in range(min(count, len(owned))):
        (owner,) = struct.unpack_from(number, owned, at)
        (several,) = struct.unpack_from(">B", owned, at + struct.calcsize(number))
        at += struct.calcsize(number) + 1
        step = struct.calcsize(each)
        if owner == picture:
            mask = (1 << 8 * step - 1) - 1  # the highest bit says whether a reader must know it
            return [struct.unpack_from(each, owned, at + i * step)[0] & mask for i in range(several)]
        at += several * step
    return []
