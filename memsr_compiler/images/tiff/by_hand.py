"""TIFFs of numbers that Pillow does not know, 12 bits in RGB or floating-point ones of 16 and 64, unpacked by NumPy.

Their strips and tiles are compressed as bytes, so Pillow decompresses each as a grey image of 8 bits.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.images.formats import open_read
from memsr_compiler.images.tiff.tags import (
    BITS,
    COMPRESSION,
    EXTRA,
    FILL_ORDER,
    HEIGHT,
    PACKBITS,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS_PER_STRIP,
    SAMPLE_FORMAT,
    SAMPLES,
    SEPARATE,
    STRIP_BYTES,
    STRIPS,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TILES,
    WIDTH,
    is_tiff,
)

UNSIGNED, SIGNED, FLOATING, UNDEFINED = 1, 2, 3, 4
PLAIN, DEFLATE, OLD_DEFLATE = 1, 8, 32946
OF_BYTES = (PLAIN, 5, DEFLATE, OLD_DEFLATE, PACKBITS, 34925, 50000)  # with LZW, PackBits, LZMA and Zstandard
BY_FLOATS = 3  # a predictor
GREYS, RGB = (0, 1), 2  # photometric interpretations
_BIG = b"\x2b"
MOST = 1 << 28  # pixels of a tile: as many as an image has that is read unasked
_PIECES = 64  # rows that are unpacked at a time

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """The first page of a TIFF, as its tags tell."""

    tags: Any
    end: str
    width: int
    height: int
    samples: int
    bits: int
    floating: bool

    @property
    def colours(self) -> int:
        return 3 if self.tags.get(PHOTOMETRIC) == RGB else 1

    @property
    def extra(self) -> tuple[int, ...]:
        """Kinds of the channels beside the colours: 1 alpha, which the colours are times, 2 alpha, 0 anything."""
        return tuple(self.tags.get(EXTRA, ()))


def read_directory(file: BinaryIO, group: int | None = None) -> Any:
    """The tags of a TIFF's first page, whether Pillow knows its pixels or not.

    group   tag of the first page, EXIF say, that tells where the tags are which are meant instead
    """
    file.seek(0)
    head = file.read(8)
    if _BIG in head[2:4]:
        head += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    if group is None:
        return tags
    further = TiffImagePlugin.ImageFileDirectory_v2(head, group=group)
    file.seek(tags[group])
    further.load(file)
    return further


def find_layout(path: str | os.PathLike[str]) -> Layout | None:
    """The layout of a file that Pillow does not know; None for what is no TIFF, or has numbers that libvips takes.

    Raises InvalidInput for numbers that nobody can take for levels, and says why.
    """
    if not is_tiff(path):
        return None
    with open(path, "rb") as file:
        tags = read_directory(file)
    bits, kinds = set(tags.get(BITS, (1,))), set(tags.get(SAMPLE_FORMAT, (UNSIGNED,)))
    if bits in ({8}, {16}) and kinds <= {UNSIGNED, UNDEFINED}:
        return None
    _require_levels(bits, kinds, tags)
    layout = Layout(
        tags,
        ">" if tags.prefix == b"MM" else "<",
        tags[WIDTH],
        tags[HEIGHT],
        tags.get(SAMPLES, 1),
        min(bits),
        kinds == {FLOATING},
    )
    _require_known(layout)
    return layout


def _require_levels(bits: set[int], kinds: set[int], tags: Any) -> None:
    depth = " or ".join(map(str, sorted(bits)))
    if len(bits) > 1 or len(kinds) > 1:
        raise InvalidInput(f"its channels have numbers of different kinds, of {depth} bits: save it with 8 or 16 bits")
    if kinds == {SIGNED}:
        raise InvalidInput(
            f"its pixels are whole numbers of {depth} bits with a sign, and nothing says which of them are black and "
            "white: save it without signs, with 8 or 16 bits"
        )
    if kinds <= {UNSIGNED, UNDEFINED} and min(bits) > 16:
        raise InvalidInput(
            f"its pixels are whole numbers of {depth} bits, and nothing says which of them is white: save it with 8 or "
            "16 bits"
        )
    if not kinds <= {UNSIGNED, UNDEFINED, FLOATING}:
        raise InvalidInput("its pixels are complex numbers, which are no levels: save it with 8 or 16 bits")
    if kinds == {FLOATING} and not bits <= {16, 32, 64}:
        raise InvalidInput(f"its pixels are floating-point numbers of {depth} bits, not 16, 32 or 64: save it with 32")
    if kinds == {FLOATING} and tags.get(SAMPLES, 1) > 1:
        raise InvalidInput(
            f"its pixels are floating-point numbers in {tags[SAMPLES]} channels, which may be light or levels, and "
            "nothing says which: save it with 8 or 16 bits"
        )


def _require_known(layout: Layout) -> None:
    """Raise InvalidInput for what is packed in a way that is not handled, or makes no picture."""
    tags = layout.tags
    meaning, way, ahead = tags.get(PHOTOMETRIC), tags.get(COMPRESSION, PLAIN), tags.get(PREDICTOR, 1)
    if meaning not in (*GREYS, RGB):
        raise InvalidInput(
            f"its pixels have {layout.bits} bits and TIFF's photometric interpretation {meaning}, which is not "
            "handled: save it as RGB or grey, with 8 or 16 bits"
        )
    if way not in OF_BYTES or ahead not in ((1, BY_FLOATS) if layout.floating else (1,)):
        raise InvalidInput(
            f"its pixels have {layout.bits} bits and are compressed in a way that is not handled for these (TIFF's "
            f"compression {way}, predictor {ahead}): save it with deflate, without predictor"
        )
    sides = (layout.width, layout.height, *(tags.get(tag, 1) for tag in (ROWS_PER_STRIP, TILE_WIDTH, TILE_HEIGHT)))
    if min(sides) < 1 or layout.samples < layout.colours:
        raise InvalidInput("is damaged (it tells of no pixels, or of too few channels); get it anew")


def read_numbers_of(path: str | os.PathLike[str], layout: Layout) -> Pixels:
    """The numbers of a file, (H, W, samples): uint16, or float64.  Raises InvalidInput where it is damaged."""
    planes = layout.samples if layout.tags.get(PLANAR) == SEPARATE else 1
    each = layout.samples // planes
    numbers = np.empty((layout.height, layout.width, layout.samples), np.float64 if layout.floating else np.uint16)
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        places = list(_find_chunks(layout))
        wanted = len(places) * planes
        tiled = TILES in layout.tags
        starts = layout.tags[TILES if tiled else STRIPS]
        lengths = layout.tags[TILE_BYTES if tiled else STRIP_BYTES]
        if max(rows * columns for _, _, rows, columns in places) > MOST:
            raise InvalidInput("is damaged (its tiles are larger than any); get it anew")
        if len(starts) < wanted or len(lengths) < wanted:
            raise InvalidInput(f"is damaged ({len(starts)} of {wanted} parts are there); get it anew")
        for i in range(wanted):
            plane, (top, left, rows, columns) = i // len(places), places[i % len(places)]
            file.seek(starts[i])
            row_bytes = -(-columns * each * layout.bits // 8)
            raw = _decompress(file.read(min(lengths[i], size)), layout, row_bytes, rows)
            if len(raw) < row_bytes * rows:
                raise InvalidInput(f"is damaged (part {i} has {len(raw):,} of {row_bytes * rows:,} bytes); get it anew")
            there = numbers[top : top + rows, left : left + columns, plane : plane + each]
            high, wide, _ = there.shape
            packed = np.frombuffer(raw, np.uint8, row_bytes * rows).reshape(rows, row_bytes)[:high]
            for row in range(0, high, _PIECES):
                piece = _unpack(packed[row : row + _PIECES], layout, columns * each)
                there[row : row + _PIECES] = piece.reshape(len(piece), columns, each)[:, :wide]
    return numbers


def _find_chunks(layout: Layout) -> Iterator[tuple[int, int, int, int]]:
    """Place and size of strips, or of tiles, which go beyond the edges."""
    if TILES in layout.tags:
        width, height = layout.tags[TILE_WIDTH], layout.tags[TILE_HEIGHT]
        for top in range(0, layout.height, height):
            for left in range(0, layout.width, width):
                yield top, left, height, width
        return
    height = layout.tags.get(ROWS_PER_STRIP, layout.height)
    for top in range(0, layout.height, height):
        yield top, 0, min(height, layout.height - top), layout.width


def _unpack(packed: Pixels, layout: Layout, count: int) -> Pixels:
    """The numbers of packed rows, (h, count)."""
    if not layout.floating:
        digits = np.unpackbits(packed, axis=1, count=count * layout.bits).reshape(len(packed), count, layout.bits)
        return digits @ (1 << np.arange(layout.bits - 1, -1, -1)).astype(np.uint16)
    size = layout.bits // 8
    if layout.tags.get(PREDICTOR, 1) == BY_FLOATS:  # differences of bytes, the uppermost of all numbers first
        planes = np.add.accumulate(packed, axis=1, dtype=np.uint8).reshape(len(packed), size, count)
        packed = np.ascontiguousarray(planes.swapaxes(1, 2)).reshape(len(packed), -1)
    end = ">" if layout.tags.get(PREDICTOR, 1) == BY_FLOATS else layout.end
    return np.ascontiguousarray(packed).view(f"{end}f{size}")[:, :count]


def _decompress(packed: bytes, layout: Layout, width: int, height: int) -> bytes:
    """The bytes of a strip or tile, as a grey image of 8 bits is decompressed."""
    way, order = layout.tags.get(COMPRESSION, PLAIN), layout.tags.get(FILL_ORDER, 1)
    if (way, order) == (PLAIN, 1):
        return packed
    if way in (DEFLATE, OLD_DEFLATE) and order == 1:  # in which libtiff writes of damage to standard error
        try:
            return zlib.decompressobj().decompress(packed, width * height + 1)  # to the end, where the checksum is
        except zlib.error as error:
            raise InvalidInput(f"is damaged ({first_line(error)}); get it anew from where it comes from") from None
    values = {WIDTH: width, HEIGHT: height, BITS: 8, COMPRESSION: way, PHOTOMETRIC: 1, FILL_ORDER: order}
    head = b"II*\0" + struct.pack("<IH", 8, 10)
    after = 8 + 2 + 12 * 10 + 4
    values |= {STRIPS: after, SAMPLES: 1, ROWS_PER_STRIP: height, STRIP_BYTES: len(packed)}
    entries = b"".join(struct.pack("<HHII", number, 4, 1, values[number]) for number in sorted(values))
    with open_read(io.BytesIO(head + entries + bytes(4) + packed)) as grey:
        return bytes(grey.tobytes())
