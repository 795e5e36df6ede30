"""Pixels for an inch that a file tells of, and pixels that are not square."""

from __future__ import annotations

import math
import os
import struct
from numbers import Rational
from typing import Any

from PIL import Image

from memsr_compiler.images.decoding.boxes import read_properties
from memsr_compiler.images.tiff.by_hand import find_layout

RESOLUTIONS, RESOLUTION_UNIT, UNITS = (282, 283), 296, {2: 1, 3: 2.54}  # tags, and what units are to an inch
JFIF_UNITS = {1: 1, 2: 2.54}  # and those of a JPEG
DENSEST = 1_000_000  # pixels for an inch; libvips takes 25 times as many, and prints are far below
UNKNOWN = 72.0, 72.0  # pixels for an inch, across and down, of an image that does not tell, as EXIF has it


def read_density(path: str | os.PathLike[str], file: Image.Image | None) -> tuple[float, float]:
    """Pixels for an inch, across and down, that an image which `open_image` opened tells of; else `UNKNOWN`.

    Where a file has numbers without a unit, they are of the shape of its pixels: see `say_shape`.
    """
    try:
        if file is not None and "dpi" in file.info and file.format not in ("JPEG", "MPO", "TIFF"):
            told = file.info["dpi"]
        else:
            tags = _tags_of(path, file)
            unit = UNITS.get(tags.get(RESOLUTION_UNIT, 2), 0)
            told = [tags[tag] * unit for tag in RESOLUTIONS if tag in tags]
            if len(told) < 2 and file is not None and file.format in ("JPEG", "MPO"):
                told = [number * JFIF_UNITS[file.info["jfif_unit"]] for number in file.info["jfif_density"]]
        across, down = map(float, told)
    except Exception:  # of whatever is damaged, or not there
        return UNKNOWN
    return (across, down) if all(0 < number < DENSEST for number in (across, down)) else UNKNOWN


def _tags_of(path: str | os.PathLike[str], file: Image.Image | None) -> Any:
    """The tags of a file's EXIF, or of a TIFF."""
    if file is None:
        layout = find_layout(path)
        return {} if layout is None else layout.tags
    if file.format == "TIFF":
        return file.tag_v2  # type: ignore[attr-defined]
    return Image.Image.getexif(file)  # not a PNG's own, which decodes it


def say_shape(path: str | os.PathLike[str], file: Image.Image | None) -> tuple[str, ...]:
    """A note on pixels that are not square, by what a JPEG, PNG, TIFF, GIF or AVIF says of them without an inch."""
    across = down = 1.0
    tags = getattr(file, "tag_v2", {})
    if file is not None and file.format in ("JPEG", "MPO") and file.info.get("jfif_unit") == 0:
        across, down = file.info["jfif_density"]
    elif file is not None and "aspect" in file.info:  # of a PNG: how many are as long as one another
        down, across = file.info["aspect"]
    elif tags.get(RESOLUTION_UNIT) == 1 and all(isinstance(tags.get(tag), Rational) for tag in RESOLUTIONS):
        down, across = (float(tags[tag]) for tag in RESOLUTIONS)
    elif file is not None and file.format == "GIF":
        with open(path, "rb") as content:
            stated = content.read(13)[12]
        across, down = (stated + 15, 64) if stated else (1, 1)
    elif file is not None and file.format == "AVIF":
        shape = next(iter(read_properties(path, b"pasp")), b"")
        across, down = struct.unpack_from(">2I", shape) if len(shape) >= 8 else (1, 1)
    words = f"has pixels of {across:g}:{down:g}, not square, which is not kept; its picture will look stretched"
    return (words,) if across != down and 0 < min(across, down) < math.inf else ()
