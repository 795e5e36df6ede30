"""Texts of a PNG and comments of a JPEG, found by the lengths that stand before each part: no pixel is decoded.

Both are chunks of a PNG here, as they stand in one, so that a PNG keeps them to the byte.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

Chunk = tuple[bytes, bytes]  # name, content

COMMENT = "Comment"
XMP = "XML:com.adobe.xmp"
PROFILE = "Raw profile type "  # before EXIF, XMP or IPTC in hexadecimal digits, by ImageMagick and ExifTool
MOST = 1 << 24  # bytes of all texts, compressed or not
MOST_TEXTS = 10_000  # that are read of a file
MOST_IN_JPEG = 65_533  # bytes of a comment
_NAMES, _EXIF = (b"tEXt", b"zTXt", b"iTXt"), b"eXIf"
_DAMAGED = MOST // 8  # bytes for which a text counts that cannot be unpacked, which may take as long as the longest
_KEYWORD = 80  # bytes, with the zero behind it
EXIF_IN_APP1, _XMP_IN_APP1 = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_SOS, _COM, _ALONE = 0xDA, 0xFE, (0x01, *range(0xD0, 0xDA))


@dataclass(frozen=True)
class Found:
    """Texts as chunks of a PNG.

    exif, xmp   what is that in truth
    lost        keywords of what cannot be kept
    others      names of what else there is beside the pixels, which is not kept
    """

    chunks: tuple[Chunk, ...] = ()
    exif: bytes = b""
    xmp: bytes = b""
    lost: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def find_texts(path: str | os.PathLike[str]) -> Found:
    """The texts of a PNG or JPEG; none of another file."""
    with open(path, "rb") as file:
        start = file.read(8)
        if start == b"\x89PNG\r\n\x1a\n":
            return _sort(_read_chunks(file))
        if start.startswith(b"\xff\xd8"):
            file.seek(2)
            comments = list(_read_comments(file))
            texts = [text for comment in comments if b"\0" not in (text := comment.removesuffix(b"\0"))]
            lost = (COMMENT,) if len(texts) < len(comments) else ()  # numbers of a program, say
            return Found(tuple(pack_comment(text) for text in texts if text), lost=lost)
    return Found()


def unpack(chunk: Chunk) -> tuple[str, str | None]:
    """Keyword and text of a chunk; None for a text that is damaged, or too long."""
    name, content = chunk
    keyword, (_, _, rest) = _keyword_of(chunk), content.partition(b"\0")
    packed, coding = name == b"zTXt", "latin1"
    if name == b"iTXt":
        packed, coding = rest[:1] == b"\1", "utf-8"
        rest = rest[1:2] + rest[2:].split(b"\0", 2)[-1] if packed else rest[2:].split(b"\0", 2)[-1]
    try:
        text = (_inflate(rest[1:]) if packed else rest).decode(coding)
    except (zlib.error, UnicodeDecodeError):
        return keyword, None
    return keyword, text


def _keyword_of(chunk: Chunk) -> str:
    return chunk[1][:_KEYWORD].partition(b"\0")[0].decode("latin1")


def pack_comments(chunks: Sequence[Chunk]) -> bytes:
    """The comments among texts, as segments of a JPEG, which says nothing of how letters are written."""
    segments = []
    for chunk in chunks:
        keyword, text = unpack(chunk)
        if text is not None and fits_jpeg(keyword, text):
            letters = text.encode("utf-8" if chunk[0] == b"iTXt" else "latin1")
            segments.append(bytes([0xFF, _COM]) + struct.pack(">H", 2 + len(letters)) + letters)
    return b"".join(segments)


def fits_jpeg(keyword: str, text: str) -> bool:
    """Whether a text is a comment, and short enough for a JPEG."""
    return keyword.lower() == COMMENT.lower() and len(text.encode()) <= MOST_IN_JPEG


def _read_chunks(file: BinaryIO) -> Iterator[Chunk]:
    """The chunks with texts, behind the pixels too, and EXIF that stands there, where libvips and Pillow do not look.

    Of those that are too long, or many, together, the first bytes.
    """
    total = count = 0
    wanted: tuple[bytes, ...] = _NAMES
    while count <= MOST_TEXTS and len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        following = file.tell() + length + 4
        if name == b"IDAT":
            wanted = (*_NAMES, _EXIF)
        if name in wanted:
            total, count = total + length, count + 1
            whole = total <= MOST and count <= MOST_TEXTS
            yield name, file.read(length) if whole else file.read(min(length, _KEYWORD)).partition(b"\0")[0]
        file.seek(following)


def _sort(chunks: Iterator[Chunk]) -> Found:
    kept: list[Chunk] = []
    exif = xmp = b""
    lost: dict[str, None] = {}
    unpacked = 0
    for chunk in chunks:
        if chunk[0] == _EXIF:
            exif = exif or EXIF_IN_APP1 + chunk[1]
            continue
        if b"\0" not in chunk[1] or unpacked > MOST:
            lost[_keyword_of(chunk)] = None
            continue
        keyword, text = unpack(chunk)
        unpacked += _DAMAGED if text is None else len(text)
        profile = read_profile(text) if text is not None and keyword.startswith(PROFILE) else b""
        if keyword == XMP and text and not xmp:
            xmp = text.encode("latin1" if chunk[0] == b"zTXt" else "utf-8")
        elif profile.startswith(_XMP_IN_APP1) and not xmp:
            xmp = profile.removeprefix(_XMP_IN_APP1)
        elif keyword == PROFILE + "xmp" and profile and not xmp:
            xmp = profile
        elif profile.startswith(EXIF_IN_APP1) and not exif:
            exif = profile
        else:
            kept.append(chunk)
    return Found(tuple(kept), exif, xmp, tuple(lost))


def read_profile(text: str) -> bytes:
    """The bytes of "Raw profile type": its name and length stand on lines of their own; b"" for what is none."""
    try:
        _, _, length, digits = text.split("\n", 3)
        profile = bytes.fromhex(digits)
        return profile if len(profile) == int(length) else b""
    except ValueError:
        return b""


def _inflate(packed: bytes) -> bytes:
    inflater = zlib.decompressobj()
    text = inflater.decompress(packed, MOST)
    if not inflater.eof:
        raise zlib.error("cut off, or too long")
    return text


def _read_comments(file: BinaryIO) -> Iterator[bytes]:
    """The comments before a JPEG's pixels; of those that are too long, or many, together, two zeros."""
    total = count = 0
    while count <= MOST_TEXTS and len(marker := file.read(2)) == 2 and marker[0] == 0xFF and marker[1] != _SOS:
        if marker[1] == 0xFF:
            file.seek(-1, os.SEEK_CUR)
        elif marker[1] not in _ALONE:
            length = int.from_bytes(file.read(2), "big")
            following = file.tell() + max(length - 2, 0)
            if marker[1] == _COM:
                total, count = total + length, count + 1
                yield file.read(max(length - 2, 0)) if total <= MOST and count <= MOST_TEXTS else b"\0\0"
            file.seek(following)


def pack_comment(comment: bytes) -> Chunk:
    """A comment as a text of a PNG: its letters are UTF-8, or else taken for Latin-1."""
    if comment.isascii():
        return b"tEXt", COMMENT.encode() + b"\0" + comment
    try:
        comment.decode()
    except UnicodeDecodeError:
        return b"tEXt", COMMENT.encode() + b"\0" + comment
    return b"iTXt", COMMENT.encode() + b"\0\0\0\0\0" + comment
