"""PBM, PGM and PPM by their own bytes: how many images stand one behind the other, and levels above white.

Pillow reads the first image, and takes a level above the one that the header calls white for white.
"""

from __future__ import annotations

import mmap
import os
import re
from typing import NamedTuple

import numpy as np

from memsr_compiler.errors import InvalidInput

CHANNELS = {b"4": 1, b"5": 1, b"6": 3}  # of the kinds that are not written in digits, which hold one image each
_GAP = rb"(?=[\s#])\s*(?:#[^\r\n]*[\r\n]\s*){0,1000}"  # a repeated group takes memory for each time
_HEAD = re.compile(rb"P(?:(4)%b(\d{1,9})%b(\d{1,9})|([56])%b(\d{1,9})%b(\d{1,9})%b(\d{1,5}))\s" % ((_GAP,) * 5))
_MOST = 1 << 16  # images that are counted
_PIECE = 1 << 20  # levels that are looked at at a time


class _Levels(NamedTuple):
    """Where an image's numbers begin and end, and which of them is white: 0 where they are bits."""

    begin: int
    end: int
    white: int


def count_images(path: str | os.PathLike[str]) -> int:
    """The images in a PBM, PGM or PPM."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        count, at = 0, 0
        while count < _MOST and (levels := _read_head(data, at)) is not None:
            count, at = count + 1, levels.end
        return max(count, 1)


def require_no_level_above_white(path: str | os.PathLike[str]) -> None:
    """Raise InvalidInput where a level of the first image is above the one that its header calls white."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        levels = _read_head(data, 0)
        if levels is None or levels.white in (0, 255, 65535):
            return
        kind = np.dtype(">u2" if levels.white > 255 else np.uint8)
        for at in range(levels.begin, levels.end, _PIECE * kind.itemsize):
            piece = data[at : min(at + _PIECE * kind.itemsize, levels.end)]
            highest = np.frombuffer(piece, kind, len(piece) // kind.itemsize).max(initial=0)
            if highest > levels.white:
                fault = f"it has a level of {highest:,}, above its maxval {levels.white:,}, which is white"
                raise InvalidInput(f"is damaged ({fault}); get it anew")


def _read_head(data: mmap.mmap, at: int) -> _Levels | None:
    found = _HEAD.match(data, at)
    if found is None:
        return None
    kind, *numbers = (part for part in found.groups() if part is not None)
    width, height, white = (*map(int, numbers), 0)[:3]
    bits = 1 if kind == b"4" else 16 if white > 255 else 8
    return _Levels(found.end(), found.end() + (width * CHANNELS[kind] * bits + 7) // 8 * height, white)
