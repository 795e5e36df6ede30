"""Chunks of a PNG that say what its numbers mean as colours, which libvips and Pillow drop: kept from PNG to PNG.

What an AVIF or HEIF says in the same numbers becomes one of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from memsr_compiler.images.decoding.boxes import read_colour_numbers
from memsr_compiler.images.encoding.pipe import pack_chunk

Chunk = tuple[bytes, bytes]  # name, content

NAMES = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI")
UNDER_PROFILE = (b"cHRM", b"gAMA", b"sRGB")  # an ICC profile says more
SRGB_CHROMATICITIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # of 100,000
CLOSE = 1000  # of 100,000: nobody sees that


def read_colour_chunks(path: str | os.PathLike[str]) -> tuple[Chunk, ...]:
    """Chunks of a PNG that stand before its pixels and tell of its colours; what amounts to one in an AVIF or HEIF."""
    chunks: list[Chunk] = []
    if (numbers := read_colour_numbers(path)) is not None:
        return ((b"cICP", bytes([*numbers, 0, 1])),)  # as RGB, in its full range
    with open(path, "rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            return ()
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name in (b"IDAT", b"IEND"):
                break
            if name in NAMES:
                chunks.append((name, file.read(length)))
                file.seek(4, os.SEEK_CUR)
            else:
                file.seek(length + 4, os.SEEK_CUR)
    return tuple(chunks)


def describe_colours(chunks: Sequence[Chunk], *, profile: bool) -> tuple[str, ...]:
    """Words on what the chunks say beyond what everyone assumes, sRGB.

    profile   the file has an ICC profile too, which stays
    """
    words = []
    for name, content in chunks:
        if profile and name in UNDER_PROFILE:
            continue
        if name == b"gAMA" and len(content) == 4:
            gamma = struct.unpack(">I", content)[0]
            if abs(gamma - 45455) > CLOSE:
                words.append(f"gamma {gamma / 100_000:g} (gAMA)")
        elif name == b"cHRM" and len(content) == 32:
            values = struct.unpack(">8I", content)
            if max(abs(a - b) for a, b in zip(values, SRGB_CHROMATICITIES, strict=True)) > CLOSE:
                words.append("primaries (cHRM)")
        elif name == b"cICP" and tuple(content) != (1, 13, 0, 1):
            words.append(f"colour space {'-'.join(map(str, content))} (cICP)")
        elif name in (b"mDCV", b"cLLI"):
            words.append(f"brightness of the display ({name.decode()})")
    return tuple(words)


def pack_chunks(chunks: Sequence[Chunk]) -> bytes:
    """The chunks as they stand in a PNG, each with its length and CRC."""
    return b"".join(pack_chunk(name, content) for name, content in chunks)
