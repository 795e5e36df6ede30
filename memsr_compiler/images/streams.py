"""Image files read and written by rows, so that a photograph never has to be in memory as a whole.

libvips decodes and encodes.  Its writers ask for rows where ours come when they are ready, so the rows go through a
pipe, as an uncompressed PNG that is never on disk, to a writer in a thread of its own.  What libvips would read
differently than the whole-image reader does is decoded whole by that one (`decode`).
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memsr_compiler.errors import ExportError, first_line
from memsr_compiler.files import explain_unwritten, find_full_disk
from memsr_compiler.images.decoding.damage import is_jpeg, rows_of_strip
from memsr_compiler.images.decoding.decode import Decoded, can_stream, decode, needs_libvips, say_left_out
from memsr_compiler.images.decoding.density import UNKNOWN, read_density, say_shape
from memsr_compiler.images.decoding.opening import count_frames, open_image, require_pixels
from memsr_compiler.images.decoding.pixel_types import PIXEL_TYPES
from memsr_compiler.images.decoding.profiles import ICC, judge_profile
from memsr_compiler.images.encoding.heads import Head, edit_webp
from memsr_compiler.images.encoding.pipe import Pipe, PngPieces, Writer
from memsr_compiler.images.encoding.png_colours import Chunk, describe_colours, pack_chunks, read_colour_chunks
from memsr_compiler.images.formats import open_read
from memsr_compiler.images.libvips import FORMATS, count_colours, has_alpha, libvips, open_with_libvips, read_bands
from memsr_compiler.images.resize import enlarge_rows
from memsr_compiler.images.texts.iptc import MOST_IN_JPEG, pack_for_jpeg
from memsr_compiler.images.texts.kept import TIFF as TIFFS
from memsr_compiler.images.texts.kept import Texts, list_exif, say_replaced, say_tags_lost
from memsr_compiler.images.texts.png_texts import pack_comments
from memsr_compiler.images.tiff.by_hand import find_layout
from memsr_compiler.images.tiff.entries import add_entries, read_entries
from memsr_compiler.images.transparency import extend_bands
from memsr_compiler.locks import temporary_file

Pixels = NDArray[Any]

ROWS = 32  # that are read at a time where nobody says
MOST_PIXELS = 1 << 28  # of an image that is read, unless more are allowed: 16,384 x 16,384
# Level 6 takes twice the time, and files are smaller by a twentieth.
TIFF = {"compression": "deflate", "predictor": "horizontal", "level": 2}
MOST_IN_TIFF = 4_000_000_000  # bytes of pixels, beyond which a TIFF becomes a BigTIFF, which many programs do not know
WRITTEN: dict[str, dict[str, Any]] = {  # file name extensions, and how such files are written
    ".png": {"compression": 2, "filter": "up"},  # by a third smaller than without a filter, and as quickly
    ".tif": TIFF,
    ".tiff": TIFF,
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
INCH = 25.4  # millimetres
EIGHT_BIT = (".jpg", ".jpeg", ".webp")
OPAQUE = (".jpg", ".jpeg")
MOST_XMP_IN_JPEG = 60_000  # bytes that libvips writes; of more nothing
IPTC = "iptc-data"  # in a JPEG all of Photoshop's resources
KEPT = ("xmp-data", IPTC, "orientation")  # and whatever begins with exif-
TURNED = ("orientation", "exif-ifd0-Orientation")  # fields that an image which is upright already must not have
# Bytes a pixel that are held of an image which is not decoded, or encoded, by rows; measured, and rounded up.
DECODERS = {"png": 1, "jpeg": 6}  # JPEG's coefficients; besides the pixels
OTHER_DECODERS = 14  # WebP's, with alpha
BY_PILLOW = 36  # for the moment: copies in its modes, two of them for 16 bits
ENCODERS = {".webp": 11}
LARGE_STRIP = 256  # rows of a compressed TIFF that are decoded at once, beyond which they count


@dataclass(frozen=True)
class RowFile:
    """An image file, opened: its pixels can be had once, from the top.

    channels  3 RGB, 1 grey; alpha comes on top;   dtype   uint8 or uint16
    pages     of the file, or frames; all but the first are left out
    most_pixels   that were allowed
    whole     why it cannot be decoded by rows, "an interlaced PNG", and is held whole; "" where it can
    held      bytes that this takes each time it is read;   passing  bytes more, while it is decoded
    decoded   whether it is decoded by `decode`, not by libvips;   sideways  and was turned by a right angle
    profile   the ICC profile of the pixels
    strict    what libvips only warns of is damage
    chunks    of a PNG, about its colours;   colours  what of them says other than sRGB, in words
    notes     what a person should know of how it is read
    texts     of who made it, when and with what;   xmp_bytes  of XMP, that libvips reads
    density   pixels for an inch, across and down
    """

    path: Path
    width: int
    height: int
    channels: int
    alpha: bool
    dtype: type[np.uint8] | type[np.uint16]
    pages: int
    most_pixels: int
    whole: str = ""
    held: int = 0
    passing: int = 0
    decoded: bool = False
    sideways: bool = False
    profile: bytes | None = None
    strict: bool = False
    chunks: tuple[Chunk, ...] = ()
    colours: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    texts: Texts = field(default_factory=Texts)
    xmp_bytes: int = 0
    density: tuple[float, float] = UNKNOWN

    @staticmethod
    def open(path: Path, *, most_pixels: int = MOST_PIXELS) -> RowFile:
        """Open an image file.

        Raises InvalidInput for what is no image, is damaged, has too many pixels, or pixels of unknown meaning.
        """
        with open_image(path, most_pixels) as file:
            pages, texts, shape = count_frames(path, file), Texts.read(path), say_shape(path, file)
            density = read_density(path, file)
            by_hand = file is None and find_layout(path) is not None
            if not by_hand and (file is None or can_stream(file) or needs_libvips(path, file)):
                strict = file is not None and is_jpeg(file)
                strip = rows_of_strip(file) if file is not None else 0
                with contextlib.suppress(libvips().Error):  # which may lack what Pillow knows
                    image = open_with_libvips(path, strict=strict)
                    opened = _opened_with_libvips(path, image, pages, texts, most_pixels, strict, strip)
                    if file is None:
                        density = image.xres * INCH, image.yres * INCH
                    return replace(opened, notes=(*opened.notes, *shape), density=density)
            decoded = decode(path, file, most_pixels)
            kind = "TIFF of unusual numbers" if file is None else f"{file.format} of {PIXEL_TYPES[file.mode].words}"
        height, width, _ = decoded.pixels.shape
        chunks = read_colour_chunks(path)
        return RowFile(
            path,
            width,
            height,
            decoded.channels,
            decoded.alpha,
            decoded.pixels.dtype.type,
            pages,
            most_pixels,
            whole=kind,
            held=decoded.pixels.nbytes,
            passing=width * height * BY_PILLOW,
            decoded=True,
            sideways=decoded.sideways,
            profile=decoded.profile,
            chunks=chunks,
            colours=describe_colours(chunks, profile=decoded.profile is not None),
            notes=(*decoded.notes, *shape),
            texts=texts,
            density=density,
        )

    def bands(self, rows: int, reach: int | None = None) -> Iterator[Pixels]:
        """The colours, (h, width, channels), at most `rows` rows each.  Raises InvalidInput where it is damaged.

        reach   pixels from which a visible one may still take colours: those without alpha that far from visible ones
                get colours of those, and bands any number of rows; None: all colours as they are in the file
        """
        if self.alpha and reach is not None:
            return extend_bands(self._read(rows), reach)
        return (band[..., : self.channels] for band in self._read(rows))

    def _read(self, rows: int) -> Iterator[Pixels]:
        if self.decoded:
            pixels = self._decode().pixels
            return (pixels[top : top + rows] for top in range(0, self.height, rows))
        return read_bands(self.path, open_with_libvips(self.path, strict=self.strict), rows)

    def _decode(self) -> Decoded:
        with open_image(self.path, self.most_pixels) as file:
            return decode(self.path, file, self.most_pixels)

    def _alpha(self, scale: int) -> Iterator[Pixels]:
        for rows in enlarge_rows((band[..., self.channels :] for band in self._read(ROWS)), scale):
            yield np.rint(np.clip(rows, 0, np.iinfo(self.dtype).max)).astype(self.dtype)

    def keeps_alpha(self, target: Path) -> bool:
        """Whether it has alpha, and the format of a file to be written too."""
        return self.alpha and target.suffix.lower() not in OPAQUE

    def held_bytes(self, target: Path, scale: int, passes: int) -> int:
        """Bytes for what is held whole: the image, where it is not decoded by rows, and the result, where not encoded.

        passes   times that it is read at once
        """
        result = self.width * self.height * scale**2 * ENCODERS.get(target.suffix.lower(), 0)
        return passes * self.held + self.passing + result

    def say_held(self, target: Path, scale: int) -> str:
        """Words on what is held whole, with its bytes, each time that the image is read; "" where nothing is."""
        held = self.held_bytes(target, scale, 1)
        result = f"a {target.suffix.lower()} as result" if target.suffix.lower() in ENCODERS else ""
        what = " and ".join(filter(None, (self.whole, result)))
        return f"{what}, held whole: {held:,} bytes" if held else ""

    def warnings(self, target: Path) -> list[str]:
        """Warnings for a person: what the image's result will lack in that file, and what is a guess."""
        suffix = target.suffix.lower()
        told = [f"{self.path}: {note}" for note in self.notes]
        if self.pages > 1:
            told.append(f"{self.path}: has {self.pages} pages or frames; the first is enlarged")
        if self.alpha and suffix in OPAQUE:
            told.append(f"{target}: JPEG has no transparency; it is left out")
        if self.dtype is np.uint16 and suffix in EIGHT_BIT:
            told.append(f"{target}: {suffix} has 8 bits, the image 16; write PNG or TIFF to keep them")
        if self.profile is not None and self.channels == 1 and suffix == ".webp":
            told.append(
                f"{self.path}: its ICC profile, for grey, is not kept in .webp, which is RGB; write PNG to keep it"
            )
        told += [f"{self.path}: {lost}" for lost in self.texts.say_lost(suffix)]
        told += [f"{self.path}: {lost}" for lost in self._say_exif_lost(suffix)]
        if suffix in OPAQUE and max(self.xmp_bytes, len(self.texts.found.xmp)) > MOST_XMP_IN_JPEG:
            told.append(f"{self.path}: its XMP is too long for {suffix} and not kept; write PNG to keep it")
        if suffix != ".png":
            kept_in = "write PNG to keep it"
            told += [f"{self.path}: its {words} is not kept in {suffix}; {kept_in}" for words in self.colours]
        return told

    def _say_exif_lost(self, suffix: str) -> Iterator[str]:
        """Words on tags of EXIF that are not written, and texts that become others: seen on an image of one pixel."""
        there, texts = self.texts.exif_tags, self.texts.tags(suffix)
        if suffix in TIFFS:
            lost = there - {(group, number) for group, tags in self.texts.entries(suffix).items() for number in tags}
        elif there or not all(map(bytes.isascii, texts.values())):
            pixel = self._tell(libvips().Image.black(1, 1).copy(interpretation="b-w"), suffix)
            with open_read(io.BytesIO(pixel.write_to_buffer(suffix))) as written:
                exif = self.texts.add_to_exif(written.info.get("exif", b""), suffix)
            lost, found = there - list_exif(exif), read_entries(exif).get(0, {})
            replaced = [number for number, text in texts.items() if number in found and found[number].text != text]
            yield from [say_replaced(replaced)] if replaced else []
        else:
            return
        yield from [say_tags_lost(lost)] if lost else []

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
        alpha = RowBuffer(self._alpha(scale)) if self.keeps_alpha(path) else None
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
            self._finish(staged, path.suffix.lower())
            with open(staged, "rb+") as written:
                os.fsync(written.fileno())
            if on_whole is not None:
                on_whole(staged)
            os.replace(staged, path)

    def _encode(self, pipe: Pipe, staged: Path, suffix: str) -> None:
        """Encode and write the file, in the writer's thread."""
        source = libvips().SourceCustom()
        source.on_read(pipe.read)
        image = libvips().Image.pngload_source(source, access="sequential", fail_on="truncated", unlimited=True)
        image = self._tell(image, suffix)
        chunks = (*self.chunks, *self.texts.chunks())
        more = pack_chunks(chunks) if suffix == ".png" else pack_comments(chunks) if suffix in OPAQUE else b""
        if suffix in (".png", *OPAQUE) and (more or any(self.texts.entries(suffix).values())):
            self._write_with(image, staged, suffix, more)
        else:
            getattr(image, SAVERS[suffix])(os.fsencode(staged), **self._options(image, suffix))

    def _options(self, image: Any, suffix: str) -> dict[str, Any]:
        """The options with which libvips writes a file of that kind."""
        if WRITTEN[suffix] is not TIFF:
            return WRITTEN[suffix]
        size = image.width * image.height * image.bands * self.dtype().itemsize
        return {**TIFF, "bigtiff": size > MOST_IN_TIFF}

    def _write_with(self, image: Any, path: Path, suffix: str, more: bytes) -> None:
        """Write a PNG or JPEG with pieces more, and with what libvips leaves out of EXIF."""
        head = Head(suffix == ".png", more, lambda exif: self.texts.add_to_exif(exif, suffix))
        target = libvips().TargetCustom()
        with open(path, "wb") as file:

            def write(piece: bytes) -> int:
                file.write(head.take(piece))
                return len(piece)

            target.on_write(write)
            getattr(image, f"{SAVERS[suffix]}_target")(target, **WRITTEN[suffix])

    def _finish(self, staged: Path, suffix: str) -> None:
        """Add what libvips leaves out to a TIFF or WebP that it has written."""
        if WRITTEN[suffix] is TIFF and any((entries := self.texts.entries(suffix)).values()):
            with open(staged, "r+b") as file:
                add_entries(file, entries)
        if suffix == ".webp":
            edit_webp(staged, lambda exif: self.texts.add_to_exif(exif, suffix))

    def _tell(self, image: Any, suffix: str) -> Any:
        """An image of libvips, with what this file has beside its pixels for one of that kind."""
        try:
            original = open_with_libvips(self.path, strict=self.strict)
        except libvips().Error:  # nothing but what Pillow tells
            original = image
        image = image.copy()
        for source in (_read_exif(self.texts.exif), original) if self.texts.exif else (original,):
            for name in source.get_fields():
                gone = (self.decoded and name in TURNED) or (name == IPTC and suffix not in OPAQUE)
                if (name in KEPT or name.startswith("exif-")) and not gone:
                    image.set_type(source.get_typeof(name), name, source.get(name))
        there = image.get_fields()
        for name, text in self.texts.fields(suffix).items():
            if name not in there:
                image.set_type(libvips().GValue.gstr_type, name, text)
        if suffix in OPAQUE and (iptc := self.texts.iptc) and len(iptc) <= MOST_IN_JPEG and not self.texts.photoshop:
            image.set_type(libvips().GValue.blob_type, IPTC, pack_for_jpeg(iptc))
        if self.texts.found.xmp and "xmp-data" not in there:
            image.set_type(libvips().GValue.blob_type, "xmp-data", self.texts.found.xmp)
        if self.profile is not None:
            image.set_type(libvips().GValue.blob_type, ICC, self.profile)
        if self.decoded:  # and in what is written of EXIF
            image.set_type(libvips().GValue.gint_type, "orientation", 1)
        across, down = self.density[::-1] if self.sideways else self.density
        return image.copy(xres=across / INCH, yres=down / INCH)  # at last, as EXIF that is set tells of its own


def _opened_with_libvips(
    path: Path, image: Any, pages: int, texts: Texts, most_pixels: int, strict: bool, strip: int
) -> RowFile:
    require_pixels(path, image.width, image.height, most_pixels)
    channels = count_colours(path, image)
    fields, chunks = image.get_fields(), read_colour_chunks(path)
    whole, held = _what_is_held(image, fields, strip)
    alpha = has_alpha(path, image, channels)
    profile, lost = judge_profile(image.get(ICC) if ICC in fields else None, grey=channels == 1)
    return RowFile(
        path,
        image.width,
        image.height,
        channels,
        alpha,
        FORMATS[image.format],
        max(pages, image.get_n_pages()),  # of an animated PNG libvips knows the first frame alone
        most_pixels,
        whole=whole,
        held=held,
        profile=profile,
        strict=strict,
        chunks=chunks,
        colours=describe_colours(chunks, profile=ICC in fields),
        notes=(*filter(None, (lost,)), *say_left_out(image.bands - channels - alpha)),
        texts=texts,
        xmp_bytes=len(image.get("xmp-data")) if "xmp-data" in fields else 0,
    )


def _what_is_held(image: Any, fields: Sequence[str], strip: int) -> tuple[str, int]:
    """Words and bytes of what libvips holds of a file; "" and 0 for one that it decodes by a few rows."""
    kind = str(image.get("vips-loader")).partition("load")[0]
    pixels, each = image.width * image.height, image.bands * np.dtype(FORMATS[image.format]).itemsize
    if kind == "tiff":
        return ("a TIFF in large strips", strip * image.width * (each + 4)) if strip > LARGE_STRIP else ("", 0)
    if kind not in DECODERS:
        return f"a {kind} file", pixels * (each + OTHER_DECODERS)
    if "interlaced" in fields or ("jpeg-multiscan" in fields and image.get("jpeg-multiscan")):
        words = "an interlaced PNG" if kind == "png" else "a progressive JPEG"
        return words, pixels * (each + DECODERS[kind])
    return "", 0


def _read_exif(exif: bytes) -> Any:
    """An image of libvips with the fields that it makes of EXIF."""
    content = io.BytesIO()
    Image.new("L", (1, 1)).save(content, "PNG", exif=exif)
    return libvips().Image.new_from_buffer(content.getvalue(), "")


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
    except libvips().Error as error:
        full = find_full_disk(error.detail)
        if full is not None:
            raise explain_unwritten(path, full) from None
        raise ExportError(f"{path}: cannot be written ({first_line(error.detail or error)})") from None
    except OSError as error:
        raise explain_unwritten(path, error) from None
