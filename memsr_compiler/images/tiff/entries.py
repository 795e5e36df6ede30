"""Entries of TIFF's directories, of which EXIF is made too: read as they stand, and added to a file, or to EXIF.

libvips writes of EXIF what it has names for, and of a TIFF no more than the pixels and a description.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

EXIF, GPS, INTEROP = 34665, 34853, 40965  # tags that say where a directory of further ones is
BYTE, ASCII, SHORT, LONG = 1, 2, 3, 4  # types of values
IN_APP1 = b"Exif\0\0"  # before EXIF in a JPEG
_PARENTS = {INTEROP: EXIF, EXIF: 0, GPS: 0}  # of directories, the inner before the outer
_BIG, _LONG8 = 43, 16  # the version of a BigTIFF, and the type of its places
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of a value
_WORDS = {**_SIZES, 5: 4, 10: 4}  # bytes that are turned together


@dataclass(frozen=True)
class Entry:
    """The type of a tag's values, and these, the lowest byte of each first."""

    kind: int
    content: bytes

    @property
    def text(self) -> bytes:
        """The content of a text, without what ends it."""
        return self.content.rstrip(b"\0")


Groups = Mapping[int, Mapping[int, Entry]]
"""Tags by their number, by the tag that says where they are; 0: the first directory."""


def read_entries(exif: bytes) -> dict[int, dict[int, Entry]]:
    """All that is in EXIF, to the first number that leads beyond its end."""
    data = exif.removeprefix(IN_APP1)
    end = "<" if data[:2] == b"II" else ">"
    groups: dict[int, dict[int, Entry]] = {}
    with contextlib.suppress(struct.error):
        groups[0] = dict(_read_directory(data, end, *struct.unpack_from(end + "I", data, 4)))
        for group in (EXIF, GPS, INTEROP):
            place = groups.get(_PARENTS[group], {}).get(group)
            if place is not None and len(place.content) == 4:
                groups[group] = dict(_read_directory(data, end, *struct.unpack("<I", place.content)))
    return groups


def is_whole(exif: bytes) -> bool:
    """Whether all that EXIF says that it has lies in it, and is of kinds that are known."""
    data = exif.removeprefix(IN_APP1)
    end = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    places, groups = [4], {*_PARENTS}  # at which it says where directories are, and of what; each is looked at once
    try:
        while places and end is not None:
            (at,) = struct.unpack_from(end + "I", data, places.pop())
            (count,) = struct.unpack_from(end + "H", data, at)
            for place in range(at + 2, at + 2 + 12 * count, 12):
                number, kind, many, value = struct.unpack_from(end + "HHII", data, place)
                size = _SIZES[kind] * many
                if size > 4 and value + size > len(data):
                    return False
                if number in groups:
                    groups.remove(number)
                    places.append(place + 8)
    except (struct.error, KeyError):
        return False
    return end is not None


def _read_directory(data: bytes, end: str, at: int) -> Iterator[tuple[int, Entry]]:
    (count,) = struct.unpack_from(end + "H", data, at)
    left = len(data)  # bytes of all values together, or some stand for several
    for place in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
        number, kind, many, value = struct.unpack_from(end + "HHII", data, place)
        size = _SIZES.get(kind, 0) * many
        begin = place + 8 if size <= 4 else value
        left -= size
        if 0 < size <= len(data) - begin and left >= 0:
            yield number, Entry(kind, _turned(data[begin : begin + size], kind, end))


def _turned(content: bytes, kind: int, end: str) -> bytes:
    """Values with the lowest byte first, or from there to the order of a file."""
    word = _WORDS[kind]
    return content if end == "<" or word == 1 else np.frombuffer(content, f">u{word}").astype(f"<u{word}").tobytes()


def add_to_exif(exif: bytes, more: Groups, most: int, without: Collection[int] = ()) -> bytes:
    """EXIF with those of these tags besides that it has not, and texts in place of others; as it was where it would be
    longer than `most`.

    without   tags that its first directory is not to have
    """
    there = read_entries(exif)
    lacking = {
        group: {
            number: entry for number, entry in entries.items() if _is_lacking(entry, there.get(group, {}).get(number))
        }
        for group, entries in more.items()
    }
    if not there or not (any(lacking.values()) or {*without} & {*there[0]}):
        return exif
    start = IN_APP1 if exif.startswith(IN_APP1) else b""
    file = io.BytesIO(exif.removeprefix(IN_APP1))
    add_entries(file, lacking, without)
    made = start + file.getvalue()
    return made if len(made) <= most else exif


def _is_lacking(entry: Entry, there: Entry | None) -> bool:
    return there is None or (entry.kind == ASCII and entry.text != there.text)


def add_entries(file: BinaryIO, more: Groups, without: Collection[int] = ()) -> None:
    """Add tags to a TIFF, or BigTIFF, in place of those that are there; directories that grow stand at its end then.

    without   tags that its first directory is not to have
    """
    _Directories(file).add(more, without)


class _Directories:
    """The directories of a TIFF that is open to be written to."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self.file = file
        self.end = "<" if file.read(2) == b"II" else ">"
        self.large = struct.unpack(self.end + "H", file.read(2))[0] == _BIG
        self.place, self.count, self.head = ("Q", "Q", "HHQ") if self.large else ("I", "H", "HHI")
        self.room = struct.calcsize(self.place)  # bytes, of a value that stands in its entry
        self.start = 8 if self.large else 4

    def add(self, more: Groups, without: Collection[int]) -> None:
        directories = {0: self._load(self._unpack(self.start))}
        for number in without:
            directories[0][0].pop(number, None)
        for group in reversed(_PARENTS):
            pointer = directories[_PARENTS[group]][0].get(group)
            directories[group] = ({}, bytes(self.room)) if pointer is None else self._load(self._unpack_from(pointer))
        changed = {group for group, entries in more.items() if entries}
        for group, parent in _PARENTS.items():
            if group in changed:
                at = self._write(*directories[group], more[group])
                directories[parent][0][group] = self._pack(group, Entry(LONG, struct.pack("<I", at)))
                changed.add(parent)
        at = self._write(*directories[0], more.get(0, {}))
        self.file.seek(self.start)
        self.file.write(struct.pack(self.end + self.place, at))

    def _unpack(self, at: int) -> int:
        self.file.seek(at)
        return int(struct.unpack(self.end + self.place, self.file.read(self.room))[0])

    def _unpack_from(self, entry: bytes) -> int:
        """Where the directory is that an entry leads to."""
        (kind,) = struct.unpack_from(self.end + "H", entry, 2)
        return int(struct.unpack_from(self.end + ("Q" if kind >= _LONG8 else "I"), entry, len(entry) - self.room)[0])

    def _load(self, at: int) -> tuple[dict[int, bytes], bytes]:
        """A directory's entries as they stand, and what comes behind them: where the next one is."""
        self.file.seek(at)
        (count,) = struct.unpack(self.end + self.count, self.file.read(struct.calcsize(self.count)))
        entries = [self.file.read(struct.calcsize(self.end + self.head) + self.room) for _ in range(count)]
        return {struct.unpack_from(self.end + "H", entry)[0]: entry for entry in entries}, self.file.read(self.room)

    def _pack(self, number: int, entry: Entry) -> bytes:
        """An entry; values that have no room in it are written."""
        content = _turned(entry.content, entry.kind, self.end)
        value = content.ljust(self.room, b"\0")
        if len(content) > self.room:
            value = struct.pack(self.end + self.place, self._go_to_end())
            self.file.write(content)
        many = len(content) // _SIZES[entry.kind]
        return struct.pack(self.end + self.head, number, entry.kind, many) + value

    def _write(self, entries: dict[int, bytes], following: bytes, more: Mapping[int, Entry]) -> int:
        """Write a directory, and say where."""
        entries |= {number: self._pack(number, entry) for number, entry in more.items()}
        at = self._go_to_end()
        self.file.write(struct.pack(self.end + self.count, len(entries)))
        self.file.write(b"".join(entries[number] for number in sorted(entries)) + following)
        return at

    def _go_to_end(self) -> int:
        at = self.file.seek(0, os.SEEK_END)
        self.file.write(bytes(-at % 8))
        return self.file.tell()
