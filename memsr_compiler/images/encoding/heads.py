"""Beginnings of image files, changed as libvips writes them: pieces more before the pixels, and more in EXIF."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from memsr_compiler.images.tiff.entries import IN_APP1

Edit = Callable[[bytes], bytes]

_SOS = b"\xff\xda"


class Head:
    """The beginning of a PNG or JPEG, whose pieces are kept until its pixels come.

    more   pieces of a file to stand behind its first one, a PNG's IHDR or a JPEG's first segment
    edit   what is made of its EXIF
    """

    def __init__(self, png: bool, more: bytes, edit: Edit) -> None:
        self._png, self._more, self._edit = png, more, edit
        self._kept = bytearray()
        self._done = False

    def take(self, piece: bytes) -> bytes:
        """The bytes to be written now that this piece has come."""
        if self._done:
            return piece
        self._kept += piece
        starts = _split_png(self._kept) if self._png else _split_jpeg(self._kept)
        if starts is None:
            return b""
        self._done = True
        edited = [self._edit_piece(bytes(self._kept[begin:end])) for begin, end in pairwise(starts)]
        return b"".join([*edited[:2], self._more, *edited[2:], self._kept[starts[-1] :]])

    def _edit_piece(self, piece: bytes) -> bytes:
        if self._png:
            if piece[4:8] != b"eXIf":
                return piece
            content = b"eXIf" + self._edit(piece[8:-4])
            return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
        if not piece.startswith(b"\xff\xe1") or piece[4:10] != IN_APP1:
            return piece
        content = self._edit(piece[4:])
        return piece[:2] + struct.pack(">H", len(content) + 2) + content


def _split_png(data: bytearray) -> list[int] | None:
    """Where signature and chunks before the pixels begin, and where these do; None where they have not come yet."""
    starts, at = [0], 8
    while len(data) >= at + 8:
        starts.append(at)
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            return starts
        at += 12 + length
    return None


def _split_jpeg(data: bytearray) -> list[int] | None:
    """The same of a JPEG's segments."""
    starts, at = [0], 2
    while len(data) >= at + 4:
        starts.append(at)
        if data[at : at + 2] == _SOS:
            return starts
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def edit_webp(path: Path, edit: Edit) -> None:
    """Put in a WebP's EXIF, which stands behind its pixels, what is made of it, without a JPEG's mark before it."""
    with open(path, "r+b") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name != b"EXIF":
                file.seek(length + length % 2, os.SEEK_CUR)
                continue
            at = file.tell() - 8
            content = file.read(length)
            file.seek(length % 2, os.SEEK_CUR)
            behind = file.read()
            made = edit(content).removeprefix(IN_APP1)
            file.seek(at)
            file.write(name + struct.pack("<I", len(made)) + made + bytes(len(made) % 2) + behind)
            file.truncate()
            size = file.tell()
            file.seek(4)
            file.write(struct.pack("<I", size - 8))
            return
