"""Image files opened, with none of their bytes damaged, and nothing decoded yet."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.files import require_file
from memsr_compiler.images.decoding.damage import require_undamaged, require_undamaged_tiff
from memsr_compiler.images.decoding.netpbm import count_images, require_no_level_above_white
from memsr_compiler.images.decoding.profiles import MOST
from memsr_compiler.images.formats import BY_LIBVIPS, WORDS, refuse, require_read, require_read_by_name
from memsr_compiler.images.libvips import find_loader, is_installed
from memsr_compiler.images.tiff.by_pillow import open_with_pillow, require_known_subsampling
from memsr_compiler.images.tiff.tags import (
    count_pages,
    is_tiff,
    require_flat,
    require_known_order,
    require_known_predictor,
    require_whole_picture,
)

ABOVE_WHITE = "Channel value too large for this mode:"  # in Pillow's words


@contextlib.contextmanager
def open_image(path: str | os.PathLike[str], most_pixels: int | None) -> Iterator[Image.Image | None]:
    """Open an image file, none of whose bytes are damaged; None where libvips alone may know it.

    most_pixels  more are refused before they are decoded; None: as many as make Pillow distrust a file, 179 million

    Raises InvalidInput, also for whatever goes wrong while it is open.
    """
    require_file(Path(path))
    try:
        require_read(path)
        require_undamaged(path)
        require_whole_picture(path)
        require_known_order(path)
        require_flat(path)
        require_known_predictor(path)
        with _at_most(most_pixels), warnings.catch_warnings():
            if is_tiff(path):
                warnings.filterwarnings("error", "Truncated File Read")  # of its tags; of EXIF, which is beside it
            try:
                file = open_with_pillow(path)
            except UnidentifiedImageError:
                _require_loader(path)
                if not (is_installed() or is_tiff(path)):
                    raise
                file = None
            if file is None:
                yield None
                return
            with file:
                if most_pixels is not None:
                    require_pixels(path, file.width, file.height, most_pixels)
                if file.format == "TIFF":
                    file.filename = ""  # else Pillow maps it, and takes width for height where it is to be turned
                    require_undamaged_tiff(path, file)
                    require_known_subsampling(file)
                if file.format == "PPM":
                    require_no_level_above_white(path)
                yield file
    except InvalidInput as error:
        raise error if str(error).startswith(f"{path}: ") else InvalidInput(f"{path}: {error}") from None
    except Exception as error:  # Pillow has no common base: a damaged file can raise nearly anything
        raise unreadable(path, error) from error


def _require_loader(path: str | os.PathLike[str]) -> None:
    """Raise InvalidInput for a file that Pillow does not know, and libvips, or its name, says of what format it is."""
    loader = find_loader(path) if is_installed() else ""
    if loader and loader not in BY_LIBVIPS:
        raise refuse(path, loader.removesuffix("load").upper())
    if not loader:
        require_read_by_name(path)


def count_frames(path: str | os.PathLike[str], file: Image.Image | None) -> int:
    """Pages or frames of an image that `open_image` opened.  Pages of a TIFF but the first may be of any kind."""
    if file is not None and file.format == "PPM":
        return count_images(path)
    return count_pages(path) if is_tiff(path) else getattr(file, "n_frames", 1)


def unreadable(path: str | os.PathLike[str], error: object) -> InvalidInput:
    if (level := str(error)).startswith(ABOVE_WHITE):  # of a PGM or PPM in digits, which Pillow looks at
        why = f"it has a level of{level.removeprefix(ABOVE_WHITE)}, above its maxval, which is white"
        return InvalidInput(f"{path}: is damaged ({why}); get it anew")
    silent = isinstance(error, AssertionError) and not str(error)  # Pillow's, of a palette that is not there, say
    reason = "its parts contradict each other" if silent else first_line(error)
    return InvalidInput(f"{path}: not a readable image ({reason}). Give {WORDS}.")


def require_pixels(path: str | os.PathLike[str], width: int, height: int, most: int) -> None:
    """Raise InvalidInput where an image has more pixels than `most`."""
    if width * height > most:
        raise InvalidInput(
            f"{path}: has {width:,} x {height:,} pixels, more than {most:,}: the limit guards against files that are "
            "made to fill disks; if it is meant, allow more with --max-pixels"
        )


@contextlib.contextmanager
def _at_most(pixels: int | None) -> Iterator[None]:
    """Make Pillow's own limits, which are globals, stand aside where others are: of pixels, of a PNG's profile."""
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    Image.MAX_IMAGE_PIXELS = before[0] if pixels is None else None
    PngImagePlugin.MAX_TEXT_CHUNK = max(before[1], MOST)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = before
