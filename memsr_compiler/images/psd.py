"""XMP, EXIF, IPTC and the resolution of a PSD, which Pillow gives as Photoshop's resources, by their numbers.

And its channels, of which Pillow takes the first ones, and says nothing of others.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images import iptc
from memsr_compiler.images.png_texts import EXIF_IN_APP1, Found

Resources: TypeAlias = Sequence[tuple[int, bytes, bytes]]  # number, name, content

_RESOLUTION, _IPTC, _PROFILE, _EXIF, _XMP = 1005, 1028, 1039, 1058, 1060
_OF_FILE = (1057, 1061)  # who wrote it, and a sum by which XMP and IPTC are known to agree

_CHANNELS, _KIND, _MULTICHANNEL = 12, 24, 7  # where the header says how many there are, and of which kind
_PACKED = 1  # rows in PackBits, of which the lengths come first


def count_channels(path: str | os.PathLike[str]) -> int:
    """Channels of a file, alpha and those besides among them.  Raises InvalidInput where none is of a known colour."""
    with open(path, "rb") as file:
        header = file.read(_KIND + 2)
    channels, kind = (int.from_bytes(header[at : at + 2], "big") for at in (_CHANNELS, _KIND))
    if kind == _MULTICHANNEL:
        raise InvalidInput("its channels are of inks of their own (Photoshop's Multichannel): save it as RGB")
    return channels


def with_offsets(path: str | os.PathLike[str], tiles: Sequence[Any], channels: int, height: int) -> list[Any]:
    """Tiles of Pillow's, begun where the pixels do: it takes the lengths of packed rows of further channels for pixels.

    channels, height   of the file
    """
    with open(path, "rb") as file:
        file.seek(_KIND + 2)
        for _ in range(3):  # colours, resources and layers
            file.seek(int.from_bytes(file.read(4), "big"), os.SEEK_CUR)
        packed = int.from_bytes(file.read(2), "big") == _PACKED
        start = file.tell() + 2 * channels * height
    shift = start - tiles[0][2] if packed and tiles else 0
    moved = [(*tile[:2], tile[2] + shift, tile[3]) for tile in tiles]
    return [type(old)(*new) if hasattr(old, "_fields") else new for old, new in zip(tiles, moved, strict=True)]


def find_texts(resources: Resources) -> Found:
    """EXIF, XMP and IPTC among an image's resources, as other files hold them."""
    first = _first_of(resources)
    exif, press = first.get(_EXIF, b""), iptc.whole(first.get(_IPTC, b""))
    others = set(first) - {_RESOLUTION, _IPTC, _PROFILE, _EXIF, _XMP, *_OF_FILE}
    return Found(
        (iptc.pack_for_png(press),) if press else (),
        EXIF_IN_APP1 + exif if exif else b"",
        first.get(_XMP, b""),
        others=("block of Photoshop's settings",) if others else (),
    )


def find_density(resources: Resources) -> list[float]:
    """Pixels for an inch, across and down; nothing where there are none."""
    content = _first_of(resources).get(_RESOLUTION, b"")
    return [number / (1 << 16) for number in struct.unpack_from(">I4xI", content)] if len(content) >= 12 else []


def _first_of(resources: Resources) -> dict[int, bytes]:
    return {number: content for number, _, content in reversed(resources)}
