"""Names of what a PNG, JPEG, WebP or TIFF holds besides, which nobody here reads and no result keeps."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from PIL import ExifTags, TiffTags

from memsr_compiler.images.decoding.damage import find_jpeg_end

_SOS, _EOI, _ALONE = 0xDA, 0xD9, (0x01, *range(0xD0, 0xD9))
_MOST = 1_000  # names, of which a file of a gigabyte could hold a hundred million

# Kept, or told elsewhere, or of the pixels as they were: their packing, how exact they were, when they were changed.
_IN_PNG = (
    "IHDR", "PLTE", "IDAT", "IEND", "tRNS", "cHRM", "gAMA", "sRGB", "cICP", "mDCV", "cLLI", "iCCP", "eXIf", "pHYs",
    "tEXt", "zTXt", "iTXt", "acTL", "fcTL", "fdAT", "bKGD", "hIST", "sBIT", "sPLT", "tIME", "vpAg",
)  # fmt: skip
_IN_WEBP = ("VP8 ", "VP8L", "VP8X", "ALPH", "ANIM", "ANMF", "ICCP", "EXIF", "XMP ")
_IN_JPEG = (
    (0, b"JFIF\0"), (0, b"JFXX\0"), (1, b"Exif\0"), (1, b"http://ns.adobe.com/xap/1.0/\0"), (2, b"ICC_PROFILE\0"),
    (2, b"MPF\0"), (12, b"Ducky"), (13, b"Photoshop 3.0\0"), (14, b"Adobe"),
)  # fmt: skip
_CREDENTIALS = "Content Credentials (C2PA)"
_CHUNKS = {"caBX": _CREDENTIALS, "C2PA": _CREDENTIALS}
_FILMS = (b"mp42", b"mp41", b"isom", b"iso2", b"qt  ", b"avc1")  # brands of what phones write behind a JPEG
_SEGMENTS = {
    (1, b"http://ns.adobe.com/xmp/extension/"): "second part of its XMP",
    (2, b"urn:iso:std:iso:ts:21496:-1"): "gain map, for bright displays",
    (11, b"JP"): _CREDENTIALS,
}

# Of a TIFF: how its pixels are stored, and what is kept or told elsewhere.
TIFF_PIXELS = frozenset(
    (*range(254, 260), *range(262, 269), 273, 274, *range(277, 285), *range(288, 294), 296, 297, 317, *range(320, 329),
     332, 334, 336, *range(338, 348), *range(512, 533), 700, 33723, 34665, 34675, 34853, 40965, 45056)
)  # fmt: skip
_SRGB = {318: (0.3127, 0.329), 319: (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)}  # WhitePoint, PrimaryChromaticities
_CLOSE = 0.01  # nobody sees that
_TAGS = {
    34377: "block of Photoshop's settings",
    37724: "block of Photoshop's layers",
    330: "set of further pictures (SubIFDs)",
}


def find_other_parts(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of parts of a PNG, JPEG or WebP, each once; none of another file."""
    with open(path, "rb") as file:
        start = file.read(12)
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            names = _of_png(file)
        elif start.startswith(b"\xff\xd8"):
            names = _of_jpeg(file)
        elif start.startswith(b"RIFF") and start.endswith(b"WEBP"):
            names = _of_webp(file)
        else:
            return ()
        found: dict[str, None] = {}
        for name in filter(None, names):
            found[name] = None
            if len(found) == _MOST:
                break
        return tuple(found)


def name_other_tags(tags: Any, known: frozenset[int]) -> tuple[str, ...]:
    """Tags of a TIFF's first page that are not among the known ones, nor those of its pixels."""
    left = sorted(number for number in tags if number not in known | TIFF_PIXELS and not _is_srgb(number, tags[number]))
    return tuple(_TAGS.get(number, f"tag {name_tag(number)}") for number in left)


def _is_srgb(number: int, value: object) -> bool:
    """Whether a tag says of the colours what everybody assumes: ImageMagick writes those into every TIFF."""
    wanted = _SRGB.get(number, ())
    there = value if isinstance(value, tuple) and len(value) == len(wanted) else ()
    return bool(there) and all(abs(a - b) < _CLOSE for a, b in zip(there, wanted, strict=True))


def name_tag(number: int) -> str:
    """The name of a tag of TIFF or EXIF."""
    name = ExifTags.TAGS.get(number) or TiffTags.lookup(number).name
    return str(number) if name == "unknown" else name


def _of_png(file: BinaryIO) -> Iterator[str]:
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        letters = name.decode("latin1")
        if letters == "IEND":  # what phones write behind it is no chunk
            return
        yield "" if letters in _IN_PNG else _CHUNKS.get(letters, f"chunk {letters}")
        file.seek(length + 4, os.SEEK_CUR)


def _of_webp(file: BinaryIO) -> Iterator[str]:
    file.seek(4)
    end = 8 + int.from_bytes(file.read(4), "little")
    file.seek(12)
    while len(head := file.read(8)) == 8 and file.tell() <= end:
        name, length = struct.unpack("<4sI", head)
        letters = name.decode("latin1")
        yield "" if letters in _IN_WEBP else _CHUNKS.get(letters, f"chunk {letters.strip()}")
        file.seek(length + length % 2, os.SEEK_CUR)


def _of_jpeg(file: BinaryIO) -> Iterator[str]:
    file.seek(2)
    while len(marker := file.read(2)) == 2 and marker[0] == 0xFF and marker[1] not in (_SOS, _EOI):
        if marker[1] == 0xFF:
            file.seek(-1, os.SEEK_CUR)
        elif marker[1] not in _ALONE:
            length = max(int.from_bytes(file.read(2), "big") - 2, 0)
            start, following = file.read(min(length, 40)), file.tell() - min(length, 40) + length
            yield _name_segment(marker[1] - 0xE0, start) if 0xE0 <= marker[1] <= 0xEF else ""
            file.seek(following)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(b"ftyp", find_jpeg_end(data))
        yield "film behind the picture (motion photo)" if at >= 0 and data[at + 4 : at + 8] in _FILMS else ""


def _name_segment(number: int, start: bytes) -> str:
    if any(number == known and start.startswith(name) for known, name in _IN_JPEG):
        return ""
    for (known, name), words in _SEGMENTS.items():
        if number == known and start.startswith(name):
            return words
    letters = start.partition(b"\0")[0].decode("latin1")
    return f"segment APP{number}" + (f" ({letters})" if letters.isascii() and letters.isprintable() else "")
