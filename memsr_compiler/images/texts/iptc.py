"""IPTC, captions and keywords of the press: where a TIFF, JPEG and PNG have it, and how they hold it.

libvips hands what stands in one kind of file to another as it is, where it is something else, and cuts a TIFF's off.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from memsr_compiler.images.formats import open_read
from memsr_compiler.images.texts.png_texts import PROFILE, Chunk, read_profile, unpack

IN_TIFF, RESOURCES_IN_TIFF = 33723, 34377  # tags; the latter is of Photoshop
KEYWORD = PROFILE + "iptc"  # of a PNG's text, as ImageMagick writes it
IN_JPEG = b"Photoshop 3.0\0"  # what the segment begins with
MOST_IN_JPEG = 65_000  # bytes
_SIGNATURE, _IPTC = b"8BIM", 0x0404  # of Photoshop's resources
_MARK = b"\x1c"  # what each of its entries begins with


def find_in_jpeg(file: BinaryIO) -> tuple[bytes, bool]:
    """The IPTC of a JPEG, and whether there are other resources of Photoshop's; none of another file."""
    file.seek(0)
    if file.read(2) != b"\xff\xd8":
        return b"", False
    resources = open_read(file).info.get("photoshop", {})
    return whole(resources.get(_IPTC, b"")), any(number != _IPTC for number in resources)


def find_in_tiff(tags: Any) -> bytes:
    """The IPTC among the tags of a TIFF, whatever type of numbers they call it."""
    found = whole(_bytes_of(tags, IN_TIFF))
    resources = _find_resources(_bytes_of(tags, RESOURCES_IN_TIFF))
    return found or next((whole(content) for number, content in resources if number == _IPTC), b"")


def find_in_png(chunks: tuple[Chunk, ...]) -> bytes:
    """The IPTC among the texts of a PNG."""
    for keyword, text in map(unpack, chunks):
        if keyword == KEYWORD and text:
            profile = read_profile(text).removeprefix(IN_JPEG)
            resources = _find_resources(profile)
            found = next((content for number, content in resources if number == _IPTC), profile)
            return whole(found)
    return b""


def pack_for_jpeg(iptc: bytes) -> bytes:
    """A segment's content."""
    return IN_JPEG + _as_resource(iptc)


def pack_for_png(iptc: bytes) -> Chunk:
    """A text, as ImageMagick and ExifTool read it."""
    content = _as_resource(iptc)
    digits = content.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return b"zTXt", KEYWORD.encode() + b"\0\0" + zlib.compress(f"\niptc\n{len(content):8}\n{lines}\n".encode())


def _as_resource(iptc: bytes) -> bytes:
    return _SIGNATURE + struct.pack(">HHI", _IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


def _find_resources(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of Photoshop's resources, to the first that does not fit."""
    at = 0
    while content[at : at + 4] == _SIGNATURE and at + 7 <= len(content):
        name = content[at + 6] + 1
        head = at + 6 + name + name % 2
        if head + 4 > len(content):
            return
        (number,), (length,) = struct.unpack_from(">H", content, at + 4), struct.unpack_from(">I", content, head)
        yield number, content[head + 4 : head + 4 + length]
        at = head + 4 + length + length % 2


def _bytes_of(tags: Any, number: int) -> bytes:
    """A tag's bytes as they stand in the file: Pillow gives one number of them, where it expects one."""
    content: bytes = tags._tagdata.get(number, b"")
    return content


def whole(iptc: bytes) -> bytes:
    """The same, if it begins as IPTC does, also where its bytes were turned round as those of numbers; else nothing."""
    if not iptc.startswith(_MARK) and iptc[3:4] == _MARK and len(iptc) % 4 == 0:
        count = len(iptc) // 4
        iptc = struct.pack(f">{count}I", *struct.unpack(f"<{count}I", iptc))
    return iptc if iptc.startswith(_MARK) else b""
