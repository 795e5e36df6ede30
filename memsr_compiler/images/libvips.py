"""libvips, which decodes and encodes image files by rows: imported where it is needed, opened where damage is told."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput, MemsrError, first_line, say_missing, tells_of_memory
from memsr_compiler.images.formats import BY_LIBVIPS
from memsr_compiler.images.tiff.tags import (
    EXTRA,
    PHOTOMETRIC,
    PLANAR,
    SAMPLES,
    SEPARATE,
    TILE_WIDTH,
    UNSPECIFIED,
    read_numbers,
)
from memsr_compiler.quantities import say_count

FORMATS = {"uchar": np.uint8, "ushort": np.uint16}  # of pixels, those that are handled
LACKING = (
    "not configured",
    "not supported",
    "not implemented",
    "not been built in",
    "loading plugin",
    "Unsupported JPEG",
)  # in what libvips says of a file that it could not read were it whole
COLOURS = {"srgb": 3, "rgb": 3, "rgb16": 3, "b-w": 1, "grey16": 1}  # channels, by what the colours are called
BITS = ("bits-per-sample", "heif-bitdepth")  # of a channel; the latter in libvips before 8.15
LEVELS_IN_TIFF = (0, 1, 2, 3)  # what its numbers may be: grey with 0 for white, for black, RGB, places in a palette


@cache
def libvips() -> Any:
    """Import pyvips.  Raises MemsrError if it is not installed."""
    try:
        import pyvips
    except (ImportError, OSError):  # the second where the package is there and libvips is not
        raise MemsrError(say_missing("pyvips", "reads and writes images by rows")) from None
    logging.getLogger("pyvips").setLevel(logging.ERROR)  # what it warns of is damage, which is raised too
    pyvips.cache_set_max(0)  # it would hold files open that are done with
    return pyvips


def is_installed() -> bool:
    """Whether libvips is there."""
    try:
        libvips()
    except MemsrError:
        return False
    return True


def open_with_libvips(path: str | os.PathLike[str], *, strict: bool, **options: Any) -> Any:
    """Open a file to read it once from the top, whatever its name.

    strict   what libvips only warns of is damage: pixels that a decoder guesses; in a TIFF of tiles, of which it leaves
             black what it cannot decode, it always is

    Raises pyvips.Error where libvips does not know it, or takes it for a format that is not read, and InvalidInput
    where it cannot be read, or is a TIFF of two channels one after the other, whose rows libvips takes from the wrong
    places.
    """
    image = _open_by_name_or_handle(path, strict=strict, **options)
    if not strict and _is_tiff(image) and read_numbers(path, TILE_WIDTH):
        image = _open_by_name_or_handle(path, strict=True, **options)
    if _is_tiff(image) and (read_numbers(path, SAMPLES), read_numbers(path, PLANAR)) == ((2,), (SEPARATE,)):
        raise InvalidInput(f"{path}: its two channels are stored one after the other: save it interleaved, or as PNG")
    return _with_all_levels(image)


def _with_all_levels(image: Any) -> Any:
    """An image of 16 bits in which white is 65535; of an AVIF's 10 or 12 libvips fills up the lower ones with zeros."""
    bits = [image.get(name) for name in BITS if name in image.get_fields()]
    if image.format != "ushort" or not image.get("vips-loader").startswith("heifload") or not bits:
        return image
    white = 65536 - (1 << (16 - bits[0]))
    return (image * (65535 / white)).rint().cast("ushort")


def has_alpha(path: str | os.PathLike[str], image: Any, channels: int) -> bool:
    """Whether what comes after the channels of colour is alpha; in a TIFF it may be anything."""
    return image.bands > channels and not (_is_tiff(image) and read_numbers(path, EXTRA)[:1] == (UNSPECIFIED,))


def _is_tiff(image: Any) -> bool:
    return bool(image.get("vips-loader").startswith("tiffload"))


def find_loader(path: str | os.PathLike[str]) -> str:
    """The reader that libvips would take for a file, in its words: "tiffload"; "" where it knows none."""
    with _at_name_or_handle(path) as (_, found):
        return found


def _open_by_name_or_handle(path: str | os.PathLike[str], *, strict: bool, **options: Any) -> Any:
    options |= {"access": "sequential", "fail_on": "warning" if strict else "error"}
    with _at_name_or_handle(path) as (source, loader):
        if loader not in BY_LIBVIPS:
            raise libvips().Error(f"{path}: libvips would read it by {loader or 'nothing'}")
        if isinstance(source, str):
            return libvips().Image.new_from_file(source, **options)
        return libvips().Image.new_from_source(source, "", **options)


@contextlib.contextmanager
def _at_name_or_handle(path: str | os.PathLike[str]) -> Iterator[tuple[Any, str]]:
    """A file's name, or a source of libvips that reads it, and the reader that libvips would take.

    pyvips wants UTF-8, which half a surrogate pair, for a byte that is none, is not, and takes brackets for options.
    """
    vips, name = libvips(), str(path)
    vips.vips_lib.vips_error_clear()  # of what it said of other files, and raised nothing for
    if name.isprintable() and not name.endswith("]"):
        yield name, _say_loader(vips.vips_lib.vips_foreign_find_load(name.encode()))
        return
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from None
    try:
        source = vips.Source.new_from_descriptor(handle)
        yield source, _say_loader(vips.vips_lib.vips_foreign_find_load_source(source.pointer))
    finally:
        os.close(handle)  # libvips has one of its own


def _say_loader(pointer: Any) -> str:
    """A reader's name, also of files, from that of its class, a string of C."""
    vips = libvips()
    if pointer == vips.ffi.NULL:
        return ""
    kind = vips.type_from_name(vips.ffi.string(pointer).decode())
    return str(vips.nickname_find(kind)).removesuffix("_source")


def read_bands(path: str | os.PathLike[str], image: Any, rows: int) -> Iterator[NDArray[Any]]:
    """Pixels from the top, (h, W, C), at most `rows` rows each.  Raises InvalidInput where they cannot be decoded."""
    vips = libvips()
    region = vips.Region.new(image)
    for top in range(0, image.height, rows):
        height = min(rows, image.height - top)
        vips.vips_lib.vips_error_clear()
        try:
            raw = region.fetch(0, top, image.width, height)
        except vips.Error as error:
            reason = error.detail or error
            raise InvalidInput(f"{path}: {_say_why(reason)} ({first_line(reason)})") from None
        yield np.frombuffer(raw, FORMATS[image.format]).reshape(height, image.width, image.bands)


def _say_why(reason: object) -> str:
    if tells_of_memory(reason):
        return "there is not enough memory to decode it"
    lacking = any(words in str(reason) for words in LACKING)
    return "cannot be decoded by this libvips; save it in another way" if lacking else "is damaged"


def count_colours(path: str | os.PathLike[str], image: Any) -> int:
    """Channels of colour, 3 or 1; alpha comes on top.  Raises InvalidInput for pixels of a kind that is not handled."""
    channels = COLOURS.get(image.interpretation)
    if channels is None or image.format not in FORMATS or image.bands not in (channels, channels + 1):
        raise InvalidInput(
            f"{path}: has {say_count(image.bands, 'band')} of {image.format} in {image.interpretation}; RGB or grey "
            "of 8 or 16 bits is wanted, with or without alpha: convert it first"
        )
    meaning = read_numbers(path, PHOTOMETRIC) if _is_tiff(image) and image.format == "ushort" else ()
    if meaning and meaning[0] not in LEVELS_IN_TIFF:  # YCbCr, say, whose numbers libvips passes on as RGB
        raise InvalidInput(
            f"{path}: its pixels have 16 bits a channel and TIFF's photometric interpretation {meaning[0]} (6 is "
            "YCbCr, 8 CIE L*a*b*), which is not handled: save it as RGB or grey"
        )
    return channels
