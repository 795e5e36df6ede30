"""Photographs zoomed out of and into, for a student to learn from beside themselves.

Zhang et al. 2023, arXiv 2309.14162 (data upcycling).  Out: made smaller, a photograph has finer structures for its
pixels, and is trained on as any other.  In: its own pixels are what is to be enlarged, and only the teacher says how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from memsr_compiler.images.files import crop_to_multiple
from memsr_compiler.images.resize import resize
from memsr_compiler.training.patches import RawPhotograph, write_raw

Zoom = Literal["none", "out", "in", "both"]

_SMALLER = 2  # times, where it is zoomed out


def zoom_photographs(
    photographs: Sequence[RawPhotograph], zoom: Zoom, *, scale: int, patch: int
) -> list[RawPhotograph]:
    """The photographs and what is zoomed out of them, into them, or both, kept in the cache that they are in.

    patch   side of a patch of the small image, in pixels: what is zoomed out of and smaller than that, is left out

    Raises ExportError where the cache cannot be written.
    """
    found = list(photographs)
    if zoom in ("out", "both"):
        smaller = (_zoom_out(photograph, scale) for photograph in photographs if _is_twice(photograph, scale))
        found += [photograph for photograph in smaller if min(photograph.size) >= patch * scale]
    if zoom in ("in", "both"):
        found += [_zoom_in(photograph, scale) for photograph in photographs]
    return found


def _is_twice(photograph: RawPhotograph, scale: int) -> bool:
    return min(photograph.size) >= _SMALLER * scale


def _zoom_out(photograph: RawPhotograph, scale: int) -> RawPhotograph:
    height, width = (-(-side // _SMALLER) // scale * scale for side in photograph.size)
    stem = photograph.low.stem
    high, low = (photograph.low.with_name(f"{stem}-out-{part}.raw") for part in ("large", "small"))
    name = f"{photograph.name} (zoomed out)"
    made = replace(photograph, name=name, high=high, low=low, size=(height, width))
    if not made.is_whole(scale):
        pixels = crop_to_multiple(resize(photograph.open_high(), 1 / _SMALLER), scale)
        write_raw(low, np.ascontiguousarray(resize(pixels, 1 / scale)).data)
        write_raw(high, np.ascontiguousarray(pixels).data)
    return made


def _zoom_in(photograph: RawPhotograph, scale: int) -> RawPhotograph:
    """The middle of a photograph, as large as its small version: so labels take as long, and as much of the disk."""
    low = photograph.low.with_name(f"{photograph.low.stem}-in.raw")
    made = replace(photograph, name=f"{photograph.name} (zoomed in)", high=None, low=low)
    if not made.is_whole(scale):
        pixels = photograph.open_high()
        height, width = (side // scale for side in photograph.size)
        top, left = ((side - part) // 2 for side, part in zip(photograph.size, (height, width), strict=True))
        write_raw(low, np.ascontiguousarray(pixels[top : top + height, left : left + width]).data)
    return made
