"""Damage that a file's own bytes tell of, before a pixel is decoded: lengths, ends and checksums.

Decoders go on where they can: libpng's reader in Pillow never looks at a checksum, libjpeg fills what is missing with
grey, and libtiff leaves a strip black.  So both readers ask here first.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.images.libvips import is_installed, libvips, open_with_libvips, read_bands
from memsr_compiler.images.tiff.tags import (
    BITS,
    COMPRESSION,
    FILL_ORDER,
    LOWEST_FIRST,
    PHOTOMETRIC,
    PLANAR,
    ROWS_PER_STRIP,
    SEPARATE,
    STRIP_BYTES,
    STRIPS,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TILES,
)

if TYPE_CHECKING:
    from PIL.Image import Image

Bytes = mmap.mmap | bytes
PIECE = 1 << 20  # bytes that are checked at a time
ROWS = 64  # that are decoded at a time

UNCOMPRESSED, JPEG, DEFLATE = 1, 7, (8, 32946)  # of TIFF's tag Compression
YCBCR, YCBCR_SUBSAMPLING = 6, 530
OLD_JPEG = 6

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # the end of JPEG's entropy-coded data
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length: TEM, RST0 to RST7, SOI
_EOI, _SOS, _LS = 0xD9, 0xDA, 0xF7


def require_undamaged(path: str | os.PathLike[str]) -> None:
    """Raise InvalidInput where the bytes of a PNG, JPEG or WebP are not whole; for TIFF: `require_undamaged_tiff`."""
    with open(path, "rb") as file:
        start = file.read(12)
        fault = None
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            fault = find_png_fault(file)
        elif start.startswith(b"\xff\xd8"):
            with _mapped(file) as data:
                fault = find_jpeg_fault(data)
        elif start.startswith(b"RIFF") and start.endswith(b"WEBP"):
            with _mapped(file) as data:
                fault = find_webp_fault(data)
    _require_no(fault, path)


def require_undamaged_tiff(path: str | os.PathLike[str], file: Image) -> None:
    """Raise InvalidInput where the first page of a TIFF, which Pillow has opened, is not whole."""
    with open(path, "rb") as content, _mapped(content) as data:
        fault = _find_tiff_fault(data, file)
    _require_no(fault, path)


def _mapped(file: BinaryIO) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _require_no(fault: str | None, path: str | os.PathLike[str]) -> None:
    if fault is not None:
        raise InvalidInput(f"{path}: is damaged ({fault}); get it anew from where it comes from")


def require_decodable(path: str | os.PathLike[str], *, strict: bool) -> None:
    """Raise InvalidInput for damage that libvips, if it is there, meets in a file which it knows.

    strict   also for what it only warns of, as of a JPEG's pixels that are guessed, which Pillow keeps to itself
    """
    if not is_installed():
        return
    try:
        image = open_with_libvips(path, strict=strict)
    except libvips().Error:
        return
    for _ in read_bands(path, image, ROWS):
        pass


def is_jpeg(file: Image) -> bool:
    """Whether a file's pixels are JPEG: its own, or those in a TIFF."""
    return file.format in ("JPEG", "MPO") or (file.format == "TIFF" and _tags(file).get(COMPRESSION) == JPEG)


def rows_of_strip(file: Image) -> int:
    """Rows that a TIFF keeps together and compressed; 0 for another file, and where pixels stand as they are."""
    if file.format != "TIFF" or _tags(file).get(COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED:
        return 0
    tags = _tags(file)
    rows: int = tags[TILE_HEIGHT] if TILES in tags else min(tags.get(ROWS_PER_STRIP, file.height), file.height)
    return rows


def find_png_fault(file: BinaryIO) -> str | None:
    """Fault of a PNG: a chunk that does not fit its CRC, or no end."""
    at = file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        crc = zlib.crc32(name)
        left = length
        while left and (piece := file.read(min(left, PIECE))):
            crc = zlib.crc32(piece, crc)
            left -= len(piece)
        stated = file.read(4)
        if left or len(stated) < 4:
            break
        if crc != struct.unpack(">I", stated)[0]:
            return f"the CRC of its chunk {name.decode('latin1')!r} at byte {at:,} is wrong"
        if name == b"IEND":
            return None
        at += length + 12
    return "it is cut off"


def find_jpeg_fault(data: Bytes) -> str | None:
    """Fault of a JPEG's structure: segments that do not follow each other, no end.  Raises InvalidInput for JPEG-LS."""
    return _walk_jpeg(data)[1]


def find_jpeg_end(data: Bytes) -> int:
    """Where a JPEG without fault ends; phones write a film behind it."""
    return _walk_jpeg(data)[0]


def _walk_jpeg(data: Bytes) -> tuple[int, str | None]:
    at = 2
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            return at, f"no marker where one should be, at byte {at:,}"
        marker = data[at + 1]
        if marker == 0xFF:  # any number of them may come before a marker
            at += 1
        elif marker == _EOI:
            return at + 2, None
        elif marker == _LS:  # within its pixels markers may stand that are none
            raise InvalidInput("is JPEG-LS, which is not handled: save it as PNG")
        elif marker in _ALONE:
            at += 2
        elif at + 4 > len(data):
            break
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
            if marker == _SOS:
                following = _MARKER.search(data, at)
                if following is None:
                    break
                at = following.start()
    return len(data), "it is cut off"


def find_webp_fault(data: Bytes) -> str | None:
    """Fault of a WebP: chunks that reach beyond its end."""
    if len(data) < 12:
        return "it is cut off"
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    at = 12
    while at + 8 <= min(end, len(data)):
        at += 8 + struct.unpack_from("<I", data, at + 4)[0]
        at += at % 2
    if end > len(data) or at > len(data) + 1:
        return "it is cut off"
    return None if at in (end, end + 1) else "its chunks do not fill it"


def _find_tiff_fault(data: mmap.mmap, file: Image) -> str | None:
    """Fault of a TIFF's first page: strips or tiles that are missing, beyond its end, or do not fit their checksum.

    Raises InvalidInput for deflate data that are there and whose bits are turned round.
    """
    tags = _tags(file)
    tiled = TILES in tags
    starts = _numbers(tags.get(TILES if tiled else STRIPS))
    lengths = _numbers(tags.get(TILE_BYTES if tiled else STRIP_BYTES))
    part = "tile" if tiled else "strip"
    compression = tags.get(COMPRESSION, UNCOMPRESSED)
    wanted = _bytes_of_parts(file, tiled)
    if not lengths and compression == UNCOMPRESSED:  # some old programs leave them out
        lengths = wanted
    if len(starts) < len(wanted) or len(lengths) < len(wanted):
        return f"it has {min(len(starts), len(lengths))} of {len(wanted)} {part}s"
    for i, (start, length, whole) in enumerate(zip(starts, lengths, wanted, strict=False)):
        if start + length > len(data):
            return f"{part} {i} lies beyond its end"
        if compression == UNCOMPRESSED and length < whole:
            return f"{part} {i} has {length:,} of {whole:,} bytes"
        if compression in DEFLATE and tags.get(FILL_ORDER) == LOWEST_FIRST:
            raise InvalidInput(
                "its pixels are compressed by deflate with the lowest bit of each byte first (FillOrder 2), an order "
                "that is not handled under compression: save it as PNG, or as TIFF without FillOrder"
            )
        if compression in DEFLATE:
            fault = _find_deflate_fault(data, start, length, whole)
            if fault:
                return f"{part} {i}: {fault}"
        if compression == JPEG and find_jpeg_fault(data[start : start + length]):
            return f"{part} {i}: its JPEG is cut off"
    return None


def _find_deflate_fault(data: mmap.mmap, start: int, length: int, whole: int) -> str | None:
    """Fault of a zlib stream, which ends with a checksum."""
    inflater = zlib.decompressobj()
    size = 0
    try:
        for at in range(start, start + length, PIECE):
            piece = data[at : min(at + PIECE, start + length)]
            while piece and not inflater.eof:
                size += len(inflater.decompress(piece, PIECE))
                piece = inflater.unconsumed_tail
        size += len(inflater.flush())
    except zlib.error as error:
        return first_line(error)
    if not inflater.eof or size < whole:
        return f"{size:,} of {whole:,} bytes in it"
    return None


def _bytes_of_parts(file: Image, tiled: bool) -> list[int]:
    """Bytes of each strip or tile of the first page when they are not compressed."""
    tags = _tags(file)
    width, height = (tags.get(256, file.width), tags.get(257, file.height))  # of the page, before it is turned
    if tiled:
        across, down = tags[TILE_WIDTH], tags[TILE_HEIGHT]
        rows = [down] * (-(-width // across) * -(-height // down))
    else:
        across, most = width, min(tags.get(ROWS_PER_STRIP, height), height) or height
        rows = [min(most, height - top) for top in range(0, height, most)]
    return [_bytes_of_rows(plane, across, down) for plane in _planes(file) for down in rows]


def _planes(file: Image) -> list[tuple[int, int, int]]:
    """Channels of a TIFF that are kept together, each time: bits of so many columns and rows, the smallest unit."""
    bits = _numbers(_tags(file).get(BITS, 1))
    separate = _tags(file).get(PLANAR) == SEPARATE
    across, down = subsampling(file)
    if (across, down) == (1, 1) or len(bits) != 3:
        return [(each, 1, 1) for each in (bits if separate else [sum(bits)])]
    if separate:
        return [(bits[0], 1, 1), *((each, across, down) for each in bits[1:])]
    return [(bits[0] * across * down + bits[1] + bits[2], across, down)]


def _bytes_of_rows(plane: tuple[int, int, int], width: int, rows: int) -> int:
    bits, across, down = plane
    return (-(-width // across) * bits + 7) // 8 * -(-rows // down)


def subsampling(file: Image) -> tuple[int, int]:
    """Columns and rows of a TIFF's pixels that share their colours, beside JPEG, which has words of its own for it."""
    tags = _tags(file)
    if tags.get(PHOTOMETRIC) != YCBCR or tags.get(COMPRESSION) in (JPEG, OLD_JPEG):
        return 1, 1
    if YCBCR_SUBSAMPLING not in tags and _is_as_long_as_pixels(file):  # earlier versions of Pillow left it out
        return 1, 1
    across, down = tags.get(YCBCR_SUBSAMPLING, (2, 2))  # TIFF 6.0, section 21
    return max(across, 1), max(down, 1)


def _is_as_long_as_pixels(file: Image) -> bool:
    tags = _tags(file)
    bits: int = tags.get(256, file.width) * tags.get(257, file.height) * sum(_numbers(tags.get(BITS, 1)))
    stored = sum(_numbers(tags.get(STRIP_BYTES)))
    return 8 * stored == bits and bool(tags.get(COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED)


def _tags(file: Image) -> dict[int, Any]:
    tags: dict[int, Any] = file.tag_v2  # type: ignore[attr-defined]
    return tags


def _numbers(value: object) -> Sequence[int]:
    """Numbers of a tag, which Pillow gives alone where it is one."""
    return () if value is None else value if isinstance(value, tuple) else (value,)
