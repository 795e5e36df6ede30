"""Comments, XMP and EXIF of a GIF and a JPEG 2000, which neither libvips nor Pillow gives, and names of what else is
in them.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

from PIL import Image

from memsr_compiler.images.decoding.boxes import find_box, find_boxes
from memsr_compiler.images.texts.png_texts import COMMENT, EXIF_IN_APP1, MOST, MOST_TEXTS, Found, pack_comment
from memsr_compiler.images.tiff.tags import ORIENTATION

_GIF = (b"GIF87a", b"GIF89a")
_EXTENSION, _IMAGE, _COMMENT, _APPLICATION = 0x21, 0x2C, 0xFE, 0xFF
_XMP_IN_GIF, _XMP_END = b"XMP DataXMP", 258  # bytes behind XMP, by which it ends as other extensions do
_READ_ELSEWHERE = (b"ICCRGBG1012", b"NETSCAPE2.0", b"ANIMEXTS1.0")  # a profile; how often frames are shown

_JP2, _CODESTREAM = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_COM, _SOT = 0xFF64, 0xFF90
_LOST = b"\0 "  # in place of what is no text, or too long
_LATIN = 1  # a comment's kind; of 0 it is numbers
_OF_CODECS = (b"Created by OpenJPEG", b"Creator: JasPer", b"Kakadu-", b"Kdu-Layer-Info:")  # of the pixels' packing
_XMP, _EXIF, _IPTC, _GEO = (
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"),
    b"JpgTiffExif->JP2",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"),
    bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"),
)
_UUIDS = {_IPTC: "IPTC", _GEO: "place on earth (GeoJP2)"}
_OF_PIXELS = (b"jP  ", b"ftyp", b"jp2h", b"jp2c", b"rreq", b"free", b"skip")  # boxes


def find_other_texts(path: str | os.PathLike[str]) -> Found | None:
    """The texts of a GIF or JPEG 2000, as far as it is whole; None of another file."""
    with open(path, "rb") as file:
        start = file.read(12)
        if not start.startswith((*_GIF, _CODESTREAM)) and start != _JP2:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _of_gif(data) if start.startswith(_GIF) else _of_jpeg_2000(data, start == _JP2)


def _sort(comments: Iterator[bytes], xmp: bytes, exif: bytes, others: list[str]) -> Found:
    """Texts as chunks of a PNG, each once; of those that are too long, or many, together, that they are lost."""
    kept, total, lost = dict.fromkeys([b""]), 0, False
    for comment in comments:
        text = comment.rstrip(b"\0")
        total += len(text)
        if b"\0" in text or total > MOST or len(kept) > MOST_TEXTS:
            lost = True
        else:
            kept[text] = None
    chunks = tuple(pack_comment(text) for text in kept if text)
    return Found(chunks, exif, xmp, (COMMENT,) if lost else (), tuple(dict.fromkeys(others)))


def _of_gif(data: mmap.mmap) -> Found:
    comments: list[bytes] = []
    xmp, others, total = b"", [], 0
    for label, begin, end in _find_extensions(data):
        if label == _COMMENT and len(comments) <= MOST_TEXTS:
            total += end - begin
            comments.append(_join(data, begin, end) if total <= MOST else _LOST)
        elif label == _APPLICATION:
            name = data[begin + 1 : begin + 12]
            if name == _XMP_IN_GIF and not xmp and end - begin < MOST:
                xmp = data[begin + 12 : end - _XMP_END + 1]
            elif name not in _READ_ELSEWHERE:
                others.append(f"extension {name.decode('latin1').strip()}")
        elif label == 1:
            others.append("text that is to be drawn over it")
    return _sort(iter(comments), xmp, b"", others)


def _find_extensions(data: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Extensions of a GIF: what they are, and where their blocks begin and end."""
    try:
        at = 13 + _table(data[10])
        while data[at] in (_EXTENSION, _IMAGE):
            extension = data[at] == _EXTENSION
            begin = at + 2 if extension else at + 11 + _table(data[at + 9])
            end = begin
            while data[end]:
                end += 1 + data[end]
            if extension:
                yield data[at + 1], begin, end
            at = end + 1
    except IndexError:
        return


def _table(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _join(data: mmap.mmap, begin: int, end: int) -> bytes:
    pieces = []
    while begin < end:
        pieces.append(data[begin + 1 : begin + 1 + data[begin]])
        begin += 1 + data[begin]
    return b"".join(pieces)


def _of_jpeg_2000(data: mmap.mmap, boxed: bool) -> Found:
    xmp = exif = b""
    others = []
    stream = find_box(data, (0, len(data)), b"jp2c") if boxed else (0, len(data))
    for name, (begin, end) in find_boxes(data, (0, len(data))) if boxed else ():
        kind = data[begin : begin + 16] if name == b"uuid" else b""
        content = data[begin + 16 : end] if end - begin < MOST else b""
        if kind == _XMP and content and not xmp:
            xmp = content
        elif kind == _EXIF and content and not exif:
            exif = EXIF_IN_APP1 + content.removeprefix(EXIF_IN_APP1)
            others += ["orientation (in EXIF, which most programs pass over)"] if _is_turned(exif) else []
        elif name not in _OF_PIXELS:
            others.append(_UUIDS.get(kind, f"box {name.decode('latin1').strip()}"))
    return _sort(_read_comments(data, stream or (0, 0)), xmp, exif, others)


def _is_turned(exif: bytes) -> bool:
    """Whether EXIF says that the picture is to be turned."""
    try:
        tags = Image.Exif()
        tags.load(exif)
        return bool(tags.get(ORIENTATION, 1) != 1)
    except Exception:  # of whatever is damaged, which is told elsewhere
        return False


def _read_comments(data: mmap.mmap, span: tuple[int, int]) -> Iterator[bytes]:
    """Comments in the main header of a JPEG 2000; of numbers two zeros."""
    at, end = span[0] + 2, span[1]
    while at + 6 <= end:
        marker, length, kind = struct.unpack_from(">3H", data, at)
        if marker == _SOT:
            return
        text = data[at + 6 : min(at + 2 + length, end)]
        if marker == _COM and not text.startswith(_OF_CODECS):
            yield text if kind == _LATIN else _LOST
        at += 2 + max(length, 2)
