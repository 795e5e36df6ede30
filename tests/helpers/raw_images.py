"""Image files byte by byte: kinds that no library at hand writes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def write_tiff(
    path: Path,
    pixels: NDArray[Any],
    *,
    photometric: int = 1,
    extra: Sequence[int] = (),
    planes: bool = False,
    big_endian: bool = False,
    bits: int | None = None,
    raw: bytes | None = None,
    pack: Callable[[bytes], bytes] = bytes,
    more: Sequence[tuple[int, int, list[int]]] = (),
) -> None:
    """Write an uncompressed TIFF of one strip (a strip a plane): pixels (H, W) or (H, W, C) of any numeric dtype.

    raw   bytes of the strip, if others than the pixels
    pack  what is made of the bytes of each strip
    more  further tags, or others in place of these: number, 3 or 4 for 16 or 32 bits, and what it holds
    """
    end = ">" if big_endian else "<"
    several = pixels.reshape(*pixels.shape[:2], -1)
    height, width, channels = several.shape
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    stored = several.astype(several.dtype.newbyteorder(">" if big_endian else "<"))
    strips = [stored[..., i].tobytes() for i in range(channels)] if planes else [stored.tobytes()]
    strips = [pack(strip) for strip in (strips if raw is None else [raw])]
    tags = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits or 8 * pixels.dtype.itemsize] * channels),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, [0] * len(strips)),
        (277, 3, [channels]),
        (278, 4, [height]),
        (279, 4, [len(strip) for strip in strips]),
        (284, 3, [2 if planes else 1]),
        *([(338, 3, list(extra))] if extra else []),
        (339, 3, [kind] * channels),
    ]
    tags = sorted([*(tag for tag in tags if tag[0] not in [other[0] for other in more]), *more])
    longer = 8 + 2 + 12 * len(tags) + 4
    sizes = {3: ("H", 2), 4: ("I", 4)}
    first = longer + sum(n for _, t, v in tags if (n := sizes[t][1] * len(v)) > 4)
    starts = [first + sum(map(len, strips[:i])) for i in range(len(strips))]
    head, tail = b"", b""
    for number, code, values in tags:
        packed = struct.pack(f"{end}{len(values)}{sizes[code][0]}", *(starts if number == 273 else values))
        head += struct.pack(f"{end}HHI", number, code, len(values))
        head += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{end}I", longer + len(tail))
        tail += packed if len(packed) > 4 else b""
    start = (b"MM" if big_endian else b"II") + struct.pack(f"{end}HI", 42, 8) + struct.pack(f"{end}H", len(tags))
    path.write_bytes(start + head + bytes(4) + tail + b"".join(strips))


def append_page(path: Path, tags: Sequence[tuple[int, int]]) -> None:
    """Append a page to a little-endian TIFF of one: numbers of 32 bits, by their tags."""
    content = path.read_bytes()
    content += bytes(len(content) % 2)
    (entries,) = struct.unpack_from("<H", content, 8)
    following = 10 + 12 * entries
    packed = b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in tags)
    page = struct.pack("<H", len(tags)) + packed + bytes(4)
    path.write_bytes(content[:following] + struct.pack("<I", len(content)) + content[following + 4 :] + page)


def write_png(
    path: Path,
    levels: NDArray[Any],
    *,
    bits: int,
    colour: int,
    before: Sequence[tuple[bytes, bytes]] = (),
    interlaced: bool = False,
) -> None:
    """Write a PNG of levels (H, W, C) of any depth, with these chunks before its pixels."""
    several = levels.reshape(*levels.shape[:2], -1)
    height, width, _ = several.shape
    passes = [several]
    if interlaced:  # Adam7: first row and column, and the steps
        steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        passes = [several[y::dy, x::dx] for y, x, dy, dx in steps]
    raw = b"".join(_pack_row(row, bits) for part in passes if part.size for row in part)
    header = struct.pack(">2I5B", width, height, bits, colour, 0, 0, int(interlaced))
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def _pack_row(row: NDArray[Any], bits: int) -> bytes:
    if bits >= 8:
        return b"\0" + row.astype(f">u{bits // 8}").tobytes()
    digits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - bits :]
    return b"\0" + np.packbits(digits.ravel()).tobytes()
