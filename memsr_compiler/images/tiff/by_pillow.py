"""TIFFs that Pillow takes for others than libtiff does: YCbCr as it stands, colour maps of 8 bits, one plane."""

from __future__ import annotations

import os
import threading
from typing import Any

from PIL import Image, ImageFile, ImagePalette, TiffImagePlugin

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.decoding.damage import UNCOMPRESSED, YCBCR, YCBCR_SUBSAMPLING, subsampling
from memsr_compiler.images.formats import open_read
from memsr_compiler.images.tiff.tags import (
    BITS,
    COMPRESSION,
    FILL_ORDER,
    PHOTOMETRIC,
    PLANAR,
    SAMPLE_FORMAT,
    SAMPLES,
    SEPARATE,
)

COLOUR_MAP = 320
SUBSAMPLINGS = ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2))  # libtiff knows 4 x 4 too, and errs at edges

# libtiff gives numbers in this machine's order of bytes; of 32 bits, and with signs, Pillow turns them once more
_NATIVE = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}

_SWITCH = threading.Lock()  # for a global one of Pillow


def open_with_pillow(path: str | os.PathLike[str]) -> ImageFile.ImageFile:
    """Open an image by Pillow; a TIFF so that libtiff decodes YCbCr, and with the colours of its palette.

    Pillow's own reader, of what is not compressed, knows neither pixels that share their colours nor the range that
    ReferenceBlackWhite tells.
    """
    file = open_read(path)
    tags = getattr(file, "tag_v2", {})
    bare = YCBCR_SUBSAMPLING not in tags and file.format == "TIFF" and subsampling(file) == (1, 1)
    if tags.get(PHOTOMETRIC) == YCBCR and tags.get(COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED and not bare:
        file.close()
        with _SWITCH:
            before = TiffImagePlugin.READ_LIBTIFF
            TiffImagePlugin.READ_LIBTIFF = True
            try:
                return open_read(path)
            finally:
                TiffImagePlugin.READ_LIBTIFF = before
    colours = tags.get(COLOUR_MAP, ()) if file.mode in ("P", "PA") else ()
    if colours and max(colours) < 256:  # of 16 bits all would be black: old programs wrote 8, and libtiff takes them so
        file.palette = ImagePalette.raw("RGB;L", bytes(colours))
    if file.format == "TIFF":
        file.tile = [_in_native_order(tile) for tile in file.tile]
    if tags.get(PLANAR) == SEPARATE and tags.get(SAMPLES, 1) == 1:
        file.tile = [_of_one_channel(tile, tags) for tile in file.tile]
    return file


def _in_native_order(tile: Any) -> Any:
    raw = tile[3][0]
    return with_raw_mode(tile, _NATIVE[raw]) if tile[0] == "libtiff" and raw in _NATIVE else tile


def _of_one_channel(tile: Any, tags: Any) -> Any:
    """A tile of the only plane; Pillow takes a letter of its raw mode for each: "L" of "L;I", so black for white."""
    how = (tags.get(PHOTOMETRIC, 0), tags.get(SAMPLE_FORMAT, (1,)), tags.get(FILL_ORDER, 1), tags.get(BITS, (1,)))
    _, raw = TiffImagePlugin.OPEN_INFO.get((tags.prefix, *how, ()), ("", ""))
    return with_raw_mode(tile, raw) if tile[0] == "raw" and raw else tile


def with_raw_mode(tile: Any, raw: str) -> Any:
    """A tile of Pillow's whose bytes are arranged in another way, in Pillow's words."""
    arguments = raw if isinstance(tile[3], str) else (raw, *tile[3][1:])
    return type(tile)(*tile[:3], arguments) if hasattr(tile, "_fields") else (*tile[:3], arguments)


def require_known_subsampling(file: Image.Image) -> None:
    """Raise InvalidInput for a TIFF in YCbCr whose pixels share their colours in a way that libtiff does not know."""
    across, down = subsampling(file)
    planes = file.tag_v2.get(PLANAR) == SEPARATE  # type: ignore[attr-defined]
    if (across, down) not in SUBSAMPLINGS or (planes and (across, down) != (1, 1)):
        where = ", in planes" if planes else ""
        raise InvalidInput(
            f"its pixels are YCbCr of which {across} x {down} share their colours{where}, which is not handled: save "
            "it as RGB"
        )
