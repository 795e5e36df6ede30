"""XMP, EXIF, IPTC and the resolution of a PSD, which Pillow gives as Photoshop's resources, by their numbers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeAlias

from memsr_compiler.images import iptc
from memsr_compiler.images.png_texts import EXIF_IN_APP1, Found

Resources: TypeAlias = Sequence[tuple[int, bytes, bytes]]  # number, name, content

_RESOLUTION, _IPTC, _PROFILE, _EXIF, _XMP = 1005, 1028, 1039, 1058, 1060
_OF_FILE = (1057, 1061)  # who wrote it, and a sum by which XMP and IPTC are known to agree


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
