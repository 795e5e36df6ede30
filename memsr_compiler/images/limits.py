"""Limits of image formats, told before anything is computed."""

from __future__ import annotations

from pathlib import Path

from memsr_compiler.errors import InvalidInput

SIDES = {  # pixels, the most that a side may have, by file name extension
    ".png": 100_000_000,  # of libvips; the format itself has 2,147,483,647
    ".tif": 100_000_000,
    ".tiff": 100_000_000,
    ".jpg": 65_500,
    ".jpeg": 65_500,
    ".webp": 16_383,
}


def require_holds(path: Path, width: int, height: int) -> None:
    """Raise InvalidInput where the format of a file to be written cannot hold an image of that size."""
    suffix = path.suffix.lower()
    most = SIDES.get(suffix)
    if most is not None and max(width, height) > most:
        way = "write PNG or TIFF" if most < SIDES[".png"] else "cut the image into pieces"
        raise InvalidInput(
            f"{path}: the result would have {width:,} x {height:,} pixels, and {suffix} holds {most:,} a side at most: "
            f"{way}"
        )
