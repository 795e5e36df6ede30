"""Image files read and written by rows, so that a photograph never has to be in memory as a whole.

libvips decodes and encodes.  Its writers ask for rows where ours come when they are ready, so the rows go through a
pipe, as an uncompressed PNG that is never on disk, to a writer in a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import ExportError, InvalidInput, MemsrError, first_line, say_missing
from memsr_compiler.files import require_file
from memsr_compiler.images.files import read_image, require_pixels
from memsr_compiler.images.pipe import Pipe, PngPieces, Writer
from memsr_compiler.images.resize import enlarge_rows
from memsr_compiler.locks import temporary_file

Pixels = NDArray[Any]

ROWS = 32  # that are read at a time where nobody says
MOST_PIXELS = 1 << 28  # of an image that is read, unless more are allowed: 16,384 x 16,384
WRITTEN: dict[str, dict[str, Any]] = {  # file name extensions, and how such files are written
    ".png": {},
    ".tif": {"compression": "deflate", "predictor": "horizontal", "bigtiff": True},
    ".tiff": {"compression": "deflate", "predictor": "horizontal", "bigtiff": True},
    ".jpg": {"Q": 95},
    ".jpeg": {"Q": 95},
    ".webp": {"Q": 95},
}
SAVERS = {  # what libvips calls the writers
    ".png": "pngsave",
    ".tif": "tiffsave",
    ".tiff": "tiffsave",
    ".jpg": "jpegsave",
    ".jpeg": "jpegsave",
    ".webp": "webpsave",
}
EIGHT_BIT = (".jpg", ".jpeg", ".webp")
OPAQUE = (".jpg", ".jpeg")
KEPT = ("icc-profile-data", "xmp-data", "iptc-data", "orientation")  # and whatever begins with exif-
COLOURS = {"srgb": 3, "rgb": 3, "rgb16": 3, "b-w": 1, "grey16": 1}
PEAKS = {"uchar": np.uint8, "ushort": np.uint16}


@cache
def _vips() -> Any:
    """Import pyvips.  Raises MemsrError if it is not installed."""
    try:
        import pyvips
    except (ImportError, OSError):  # the second where the package is there and libvips is not
        raise MemsrError(say_missing("pyvips", "reads and writes images by rows")) from None
    pyvips.cache_set_max(0)  # it would hold files open that are done with
    return pyvips


@dataclass(frozen=True)
class RowFile:
    """An image file, opened: its pixels can be had once, from the top.

    channels  3 RGB, 1 grey; alpha comes on top;   dtype   uint8 or uint16
    pages     of the file, or frames; all but the first are left out
    most_pixels   that were allowed
    """

    path: Path
    width: int
    height: int
    channels: int
    alpha: bool
    dtype: type[np.uint8] | type[np.uint16]
    pages: int
    most_pixels: int

    @staticmethod
    def open(path: Path, *, most_pixels: int = MOST_PIXELS) -> RowFile:
        """Open an image file.

        Raises InvalidInput for what is no image, has too many pixels, or pixels of a kind that is not handled.
        """
        require_file(path)
        image = _open(path, most_pixels)
        require_pixels(path, image.width, image.height, most_pixels)
        channels = COLOURS.get(image.interpretation)
        if channels is None or image.format not in PEAKS or image.bands not in (channels, channels + 1):
            raise InvalidInput(
                f"{path}: has {image.bands} bands of {image.format} in {image.interpretation}; RGB or grey of 8 or 16 "
                "bits is wanted, with or without alpha: convert it first"
            )
        alpha, dtype, pages = image.bands > channels, PEAKS[image.format], image.get_n_pages()
        return RowFile(path, image.width, image.height, channels, alpha, dtype, pages, most_pixels)

    def bands(self, rows: int) -> Iterator[Pixels]:
        """The colours, (h, width, channels), at most `rows` rows each.  Raises InvalidInput where it is damaged."""
        yield from self._read(0, self.channels, rows)

    def _read(self, first: int, count: int, rows: int) -> Iterator[Pixels]:
        vips = _vips()
        image = _open(self.path, self.most_pixels).extract_band(first, n=count)
        try:
            region = vips.Region.new(image)
            for top in range(0, image.height, rows):
                height = min(rows, image.height - top)
                raw = np.frombuffer(region.fetch(0, top, image.width, height), self.dtype)
                yield raw.reshape(height, image.width, count)
        except vips.Error as error:
            raise InvalidInput(f"{self.path}: is damaged ({first_line(error.detail or error)})") from None

    def _alpha(self, scale: int) -> Iterator[Pixels]:
        for rows in enlarge_rows(self._read(self.channels, 1, ROWS), scale):
            yield np.rint(np.clip(rows, 0, np.iinfo(self.dtype).max)).astype(self.dtype)

    def save(
        self,
        path: Path,
        bands: Iterable[Pixels],
        scale: int,
        on_rows: Callable[[int], None] | None = None,
        on_whole: Callable[[Path], None] | None = None,
    ) -> None:
        """Write this image's enlarged pixels, `scale` times as large, with its own alpha (enlarged by bicubic
        interpolation), ICC profile, EXIF, XMP, IPTC, orientation and resolution.

        bands     (h, scale * width, channels), in this image's dtype, from the top
        on_rows   hears of each how many rows it has
        on_whole  hears where the file is, before it takes its name; what it raises is raised, and there is no file

        The file appears whole or not at all.  Raises ExportError where it cannot be written.
        """
        pipe = Pipe()
        alpha = RowBuffer(self._alpha(scale)) if self.alpha and path.suffix.lower() not in OPAQUE else None
        png = PngPieces(self.width * scale, self.channels + (alpha is not None), self.dtype)
        with _explain_errors(path), temporary_file(path.parent) as (staged, _):
            writer = Writer(lambda: self._encode(pipe, staged, path.suffix.lower()))
            try:
                writer.start()
                pipe.put(png.start(self.height * scale), writer)
                for band in bands:
                    pixels = band if alpha is None else np.concatenate([band, alpha.take(len(band))], axis=2)
                    pipe.put(png.rows(pixels), writer)
                    if on_rows is not None:
                        on_rows(len(band))
                pipe.put(png.end(), writer)
                pipe.put(b"", writer)
                writer.finish()
            finally:
                pipe.abort()
                writer.join()
            with open(staged, "rb+") as written:
                os.fsync(written.fileno())
            if on_whole is not None:
                on_whole(staged)
            os.replace(staged, path)

    def _encode(self, pipe: Pipe, staged: Path, suffix: str) -> None:
        """Encode and write the file, in the writer's thread."""
        vips = _vips()
        source = vips.SourceCustom()
        source.on_read(pipe.read)
        image = vips.Image.pngload_source(source, access="sequential", fail_on="truncated", unlimited=True)
        original = _open(self.path, self.most_pixels)
        image = image.copy(xres=original.xres, yres=original.yres)
        for name in original.get_fields():
            if name in KEPT or name.startswith("exif-"):
                image.set_type(original.get_typeof(name), name, original.get(name))
        getattr(image, SAVERS[suffix])(os.fsencode(staged), **WRITTEN[suffix])


def _open(path: Path, most_pixels: int) -> Any:
    """Open a file as libvips does.

    most_pixels   for what Pillow reads, which decodes it at once
    """
    vips = _vips()
    try:
        return _load(vips, path, access="sequential", fail_on="truncated")
    except vips.Error:  # BMP, say: what Pillow alone can read, it reads whole, upright and in 8 bits
        pixels = read_image(path, keep_grey=True, keep_alpha=True, most_pixels=most_pixels)
        height, width, bands = pixels.shape
        image = vips.Image.new_from_memory(pixels.tobytes(), width, height, bands, "uchar")
        return image.copy(interpretation="srgb" if bands > 2 else "b-w")


def _load(vips: Any, path: Path, **options: Any) -> Any:
    """Open a file whatever its name: pyvips wants UTF-8, and takes what is in brackets at the end for options."""
    name = str(path)
    if name.isprintable() and not name.endswith("]"):  # half a surrogate pair, for a byte that is no UTF-8, is not
        return vips.Image.new_from_file(name, **options)
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return vips.Image.new_from_source(vips.Source.new_from_descriptor(handle), "", **options)
    finally:
        os.close(handle)  # libvips has one of its own


class RowBuffer:
    """Rows that come in bands, to be had in any numbers."""

    def __init__(self, bands: Iterator[Pixels]) -> None:
        self._bands = bands
        self._left: Pixels | None = None

    def take(self, rows: int) -> Pixels:
        left = self._left if self._left is not None else next(self._bands)
        while len(left) < rows:
            left = np.concatenate([left, next(self._bands)])
        self._left = left[rows:]
        return left[:rows]


@contextlib.contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _vips().Error as error:
        raise ExportError(f"{path}: cannot be written ({first_line(error.detail or error)})") from None
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from None
