"""Photographs zoomed out of and into, for a student to learn from beside themselves.

Zhang et al. 2023, arXiv 2309.14162 (data upcycling).  Out: made smaller, a photograph has finer structures for its
pixels, and is trained on as any other.  In: its own pixels are what is to be enlarged, and only the teacher says how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from memsr_compiler.images.files import crop_to_multiple
from memsr_compiler.images.resize import resize
from memsr_compiler.training.patches import RawPhotograph, write_raw

Zoom = Literal["none", "out", "in", "both"]

_SMALLER = 2  # times, where it is zoomed out


def zoom_photographs(
    photographs: Sequence[RawPhotograph],
    zoom: Zoom,
    *,
    scale: int,
    patch: int,
    on_image: Callable[[str], None] | None = None,
) -> list[RawPhotograph]:
    """The photographs and what is zoomed out of them, into them, or both, kept in the cache that they are in.

    patch     side of a patch of the small image, in pixels: what is zoomed out of and smaller than that, is left out
    on_image  hears of each photograph before it is zoomed out of or into

    Raises ExportError where the cache cannot be written.
    """
    ways: list[Callable[[RawPhotograph, int], RawPhotograph]] = []
    if zoom in ("out", "both"):
        ways.append(_zoom_out)
    if zoom in ("in", "both"):
        ways.append(_zoom_in)
    found = list(photographs)
    for way in ways:
        for photograph in photographs:
            if way is _zoom_out and min(_smaller_size(photograph, scale)) < patch * scale:
                continue
            if on_image is not None:
                on_image(photograph.name)
            found.append(way(photograph, scale))
    return found


def _smaller_size(photograph: RawPhotograph, scale: int) -> tuple[int, int]:
    """Height and width of what is zoomed out of it, a multiple of the scale."""
    height, width = (-(-side // _SMALLER) // scale * scale for side in photograph.size)
    return height, width


def _zoom_out(photograph: RawPhotograph, scale: int) -> RawPhotograph:
    stem = photograph.low.stem
    high, low = (photograph.low.with_name(f"{stem}-out-{part}.raw") for part in ("large", "small"))
    name = f"{photograph.name} (zoomed out)"
    made = replace(photograph, name=name, high=high, low=low, size=_smaller_size(photograph, scale))
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
