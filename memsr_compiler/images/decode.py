"""Image files decoded whole, and the one table of pixel types: what a file's numbers mean, for both readers.

`files.read_image` decodes everything here.  `streams.RowFile` has libvips decode by rows what both decoders read alike,
bit for bit (`can_stream`), and takes the rest from here.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Rational
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.files import require_file
from memsr_compiler.images.boxes import read_properties
from memsr_compiler.images.damage import (
    UNCOMPRESSED,
    is_jpeg,
    require_decodable,
    require_undamaged,
    require_undamaged_tiff,
)
from memsr_compiler.images.formats import BY_LIBVIPS, WORDS, open_read, refuse, require_read, require_read_by_name
from memsr_compiler.images.libvips import (
    count_colours,
    find_loader,
    has_alpha,
    is_installed,
    libvips,
    open_with_libvips,
    read_bands,
)
from memsr_compiler.images.netpbm import count_images, require_no_level_above_white
from memsr_compiler.images.profiles import ICC, MOST, judge_profile, read_profile
from memsr_compiler.images.tiff_by_hand import Layout, find_layout, read_numbers_of
from memsr_compiler.images.tiff_by_pillow import open_with_pillow, require_known_subsampling, with_raw_mode
from memsr_compiler.images.tiff_tags import (
    BITS,
    COMPRESSION,
    EXTRA,
    FILL_ORDER,
    LOWEST_FIRST,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    PROFILE,
    SAMPLE_FORMAT,
    SAMPLES,
    SEPARATE,
    UNSPECIFIED,
    count_pages,
    is_tiff,
    require_flat,
    require_known_order,
    require_known_predictor,
    require_whole_picture,
)
from memsr_compiler.quantities import say_count

Pixels = NDArray[Any]

SIGNED, WHITE_IS_ZERO, WEBP = 2, 0, 50001
INK_SET, CMYK = 332, 1
ASSOCIATED, UNASSOCIATED = 1, 2  # alpha, by the tag of channels beside the colours
KEY_STEPS = {"1": 255, "L;2": 85, "L;4": 17}  # levels of 8 bits between two of a PNG's own, in which its key is
OFTEN_UNFILLED = ("BMP", "DIB", "TGA")  # formats whose alpha programs often leave at 0, which is no picture
UNFILLED = "has alpha 0 everywhere, as programs leave it that do not fill it; it is taken for opaque"
ALPHA_BIT = "has one bit of alpha, of which 1 is taken for transparent, as GIMP does; to other programs 0 is that"
NO_ALPHA_BIT = "has a bit beside its colours that is no alpha, by its header; it is left out"
BY_ROWS = ("PNG", "JPEG", "MPO", "TIFF", "WEBP")  # formats of which libvips and Pillow make the same pixels
ABOVE_WHITE = "Channel value too large for this mode:"  # in Pillow's words
RESOLUTIONS, RESOLUTION_UNIT, UNITS = (282, 283), 296, {2: 1, 3: 2.54}  # tags, and what units are to an inch
JFIF_UNITS = {1: 1, 2: 2.54}  # and those of a JPEG
DENSEST = 1_000_000  # pixels for an inch; libvips takes 25 times as many, and prints are far below
UNKNOWN = 72.0, 72.0  # pixels for an inch, across and down, of an image that does not tell, as EXIF has it
SIDEWAYS = (5, 6, 7, 8)  # orientations of which width and height change places
PIECES = 64  # rows that libvips is asked for at a time


@dataclass(frozen=True)
class Decoded:
    """An image, upright.

    pixels    (H, W, C), uint8 or uint16: grey or RGB, with alpha last where `alpha` says so
    sideways  whether it was turned by a right angle, so that what the file calls across is down
    profile   the ICC profile that the pixels still follow
    notes     what a person should know of how it was read
    """

    pixels: Pixels
    alpha: bool
    sideways: bool = False
    profile: bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of colour: 3 RGB, 1 grey."""
        return int(self.pixels.shape[2]) - self.alpha


@dataclass(frozen=True)
class PixelType:
    """A kind of pixels.

    words    what it is called
    grey     one channel
    levels   the numbers of an image of that kind, as uint8 or uint16; None: as Pillow converts it to L or RGB
    own      colours of its own, so that an ICC profile is used up
    """

    words: str
    grey: bool = False
    levels: Callable[[Image.Image], tuple[Pixels, str | None]] | None = None
    own: bool = False


def _sixteen_bits(image: Image.Image) -> tuple[Pixels, str | None]:
    levels = np.asarray(image).astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    most = (1 << tags.get(BITS, (16,))[0]) - 1  # of 12 bits Pillow keeps the numbers
    if most < 65535:
        levels = np.rint(levels * (65535 / most)).astype(np.uint16)
    return (65535 - levels if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else levels), None


def _thirty_two_bits(image: Image.Image) -> tuple[Pixels, str | None]:
    levels = np.asarray(image)
    signed = getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, (1,))[0] == SIGNED
    bits = getattr(image, "tag_v2", {}).get(BITS, (32,))[0]
    if image.format in ("PNG", "PPM"):  # 16 bits, which Pillow gives, scaled to them, in 32
        return levels.clip(0, 65535).astype(np.uint16), None
    sign, without = (" with a sign", ", without signs") if signed else ("", "")
    raise InvalidInput(
        f"its pixels are whole numbers of {bits} bits{sign}, here from {levels.min():,} to {levels.max():,}, and "
        f"nothing says which of them is white: save it with 8 or 16 bits{without}"
    )


def _floating(image: Image.Image) -> tuple[Pixels, str | None]:
    white_is_zero = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
    return _scale_floats(np.asarray(image), white_is_zero), None


def _scale_floats(levels: Pixels, white_is_zero: bool) -> Pixels:
    low, high = float(levels.min()), float(levels.max())  # NaN where there is one, and then not within
    if not 0 <= low <= high <= 1:
        raise InvalidInput(
            f"its pixels are floating-point numbers from {low:g} to {high:g}; 0 to 1, black to white, is wanted: "
            "scale them, or save it with 8 or 16 bits"
        )
    if white_is_zero:
        levels = 1 - levels
    parts = np.array_split(levels, -(-len(levels) // PIECES))  # a few rows at a time: in float64
    return np.concatenate([np.rint(part.astype(np.float64) * 65535).astype(np.uint16) for part in parts])


def _from_cmyk(image: Image.Image) -> tuple[Pixels, str | None]:
    """Inks as sRGB: by the profile of the file, else as if they were ideal."""
    if getattr(image, "tag_v2", {}).get(INK_SET, CMYK) != CMYK:
        raise InvalidInput("its pixels are inks other than cyan, magenta, yellow and black: save it as RGB")
    profile = image.info.get("icc_profile")
    why = "has CMYK without a profile, so its colours are a guess"
    if profile and features.check("littlecms2"):
        from PIL import ImageCms

        try:
            inks = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            to_srgb = ImageCms.createProfile("sRGB")
            intent = ImageCms.Intent(ImageCms.getDefaultIntent(inks))
            converted = ImageCms.profileToProfile(image, inks, to_srgb, intent, outputMode="RGB")
            assert converted is not None, "a new image was asked for"
            return np.asarray(converted), None
        except (ImageCms.PyCMSError, OSError) as error:
            why = f"has CMYK, and its profile cannot be used ({first_line(error)}), so its colours are a guess"
    elif profile:
        why = "has CMYK, and this Pillow lacks LittleCMS, so its profile is passed over and its colours are a guess"
    return np.asarray(image.convert("RGB")), why


def _from_lab(image: Image.Image) -> tuple[Pixels, str | None]:
    if not features.check("littlecms2"):
        raise InvalidInput("its pixels are CIE L*a*b*, which this Pillow, without LittleCMS, cannot convert")
    if getattr(image, "tag_v2", {}).get(PLANAR) == SEPARATE:  # Pillow then takes a and b, which have signs, for none
        raise InvalidInput("its pixels are CIE L*a*b* in planes, whose signs Pillow does not know: save it as RGB")
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None, "a new image was asked for"
    return np.asarray(converted), None


PIXEL_TYPES = {  # by Pillow's mode; RGB, RGBA and LA may have 16 bits, which `_bytes_of_sixteen_bits` reads
    "1": PixelType("black and white", grey=True),
    "L": PixelType("grey", grey=True),
    "LA": PixelType("grey with alpha", grey=True),
    "La": PixelType("grey times alpha", grey=True),
    "I;16": PixelType("grey of 16 bits", grey=True, levels=_sixteen_bits),
    "I;16L": PixelType("grey of 16 bits", grey=True, levels=_sixteen_bits),
    "I;16B": PixelType("grey of 16 bits", grey=True, levels=_sixteen_bits),
    "I;16N": PixelType("grey of 16 bits", grey=True, levels=_sixteen_bits),
    "I": PixelType("whole numbers of 32 bits", grey=True, levels=_thirty_two_bits),
    "F": PixelType("floating-point numbers", grey=True, levels=_floating),
    "P": PixelType("palette"),
    "PA": PixelType("palette with alpha"),
    "RGB": PixelType("RGB"),
    "RGBX": PixelType("RGB"),
    "RGBA": PixelType("RGB with alpha"),
    "RGBa": PixelType("RGB times alpha"),
    "YCbCr": PixelType("YCbCr"),
    "CMYK": PixelType("CMYK", levels=_from_cmyk, own=True),
    "LAB": PixelType("CIE L*a*b*", levels=_from_lab, own=True),
}


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
        raise _unreadable(path, error) from error


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


def _unreadable(path: str | os.PathLike[str], error: object) -> InvalidInput:
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


def can_stream(file: Image.Image) -> bool:
    """Whether libvips decodes such a file by rows, and to the very pixels that `decode` makes of it."""
    if file.format not in BY_ROWS:
        return False
    if file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        kinds = (1, 2, 6) if is_jpeg(file) else (1, 2)  # 6 is YCbCr, which libvips converts in JPEG only
        unsigned = tags.get(SAMPLE_FORMAT, (1,))[0] == 1 and tags.get(PHOTOMETRIC) in kinds
        if not unsigned or set(tags.get(BITS, (1,))) not in ({8}, {16}) or tags.get(EXTRA, ()) not in ((), (2,)):
            return False
    expanded = file.format == "PNG" and file.mode in ("1", "P", "I")  # I: 16 bits, in Pillow before 11
    return expanded or file.mode in ("L", "LA", "RGB", "RGBA", "I;16", "I;16B")


def decode(path: str | os.PathLike[str], file: Image.Image | None, most_pixels: int | None) -> Decoded:
    """Decode an image that `open_image` opened.  Raises InvalidInput for pixels whose meaning is not known."""
    layout = find_layout(path) if file is None else None
    if layout is not None:
        return _decode_by_hand(path, layout, most_pixels)
    if file is not None:
        _require_known_planes(file)
    if file is None or needs_libvips(path, file):
        return _decode_with_libvips(path, most_pixels)
    return _decode_with_pillow(path, file)


def _decode_with_pillow(path: str | os.PathLike[str], file: Image.Image) -> Decoded:
    if is_jpeg(file) or (file.format == "TIFF" and can_stream(file)):
        require_decodable(path, strict=is_jpeg(file))
    bits = _bits_of_jpeg2000(path) if file.format == "JPEG2000" else 0
    kind = _find_kind(file, bits)
    profile, lost = judge_profile(None if kind.own else file.info.get("icc_profile"), grey=kind.grey)
    if not kind.own and file.info.get("icc_profile") is None:
        profile, lost = read_profile(path, file.format, grey=kind.grey)
    in_tiff = getattr(file, "tag_v2", {}).get(ORIENTATION, 1)  # which Pillow turns, and then tells of no more
    fewer = _say_fewer_bits(file)  # not once it has been decoded
    pixels, alpha, note = _take_pixels(path, file, kind, bits)
    unused = _say_unused_alpha(path, file, pixels) if alpha else ""
    if unused in (UNFILLED, NO_ALPHA_BIT):
        pixels, alpha = np.ascontiguousarray(pixels[..., :-1]), False
    orientation = file.getexif().get(ORIENTATION, 1)
    pixels = _turn_upright(pixels, orientation)
    others = getattr(file, "tag_v2", {}).get(SAMPLES, 1) - sum(band != "X" for band in file.getbands())
    notes = filter(None, (note, fewer, unused, lost))
    sideways = orientation in SIDEWAYS or in_tiff in SIDEWAYS
    return Decoded(pixels, alpha, sideways, profile, (*notes, *say_left_out(others)))


def _find_kind(file: Image.Image, bits: int) -> PixelType:
    """Kind of a file's pixels.  bits: of a JPEG 2000.  Raises InvalidInput where Pillow gives other ones."""
    if bits > 8 and file.mode != "I;16":
        raise InvalidInput(
            f"its colours have {bits} bits, of which Pillow gives 8, and of white black: save it as PNG or TIFF"
        )
    kind = PIXEL_TYPES.get(file.mode)
    if kind is None:
        raise InvalidInput(f"its pixels are of a kind that is not handled, {file.mode}: save it as RGB")
    if getattr(file, "tag_v2", {}).get(SAMPLE_FORMAT, (1,))[0] == SIGNED and kind.levels is None:
        raise InvalidInput("its pixels are numbers with a sign, and nothing says which is black: save it without")
    return kind


def _take_pixels(
    path: str | os.PathLike[str], file: Image.Image, kind: PixelType, bits: int
) -> tuple[Pixels, bool, str | None]:
    """Pixels (H, W, C) as they are stored, whether the last channel is alpha, and a note."""
    raw = _raw_mode(file)  # which is gone once it has been decoded
    alpha, note, times_alpha = file.has_transparency_data, None, _leave_times_alpha(file)
    key = file.info.get("transparency") if file.format == "PNG" and file.mode != "P" else None
    pixels = _bytes_of_sixteen_bits(path, file, raw.replace("a", "A"))
    if pixels is not None:
        alpha = file.mode == "RGBA"
    elif times_alpha:
        pixels = np.asarray(file)
    elif kind.levels is not None:
        pixels, note = kind.levels(file)
        alpha = False
        if 8 < bits < 16:  # Pillow fills up the lower ones with zeros
            pixels = np.rint(pixels * (65535 / (65536 - (1 << (16 - bits))))).astype(np.uint16)
    else:
        alpha = alpha and key is None
        pixels = np.array(file.convert(("L" if kind.grey else "RGB") + "A" * alpha))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if times_alpha:
        pixels, alpha = _divide_by_alpha(pixels), True
    if key is not None:
        levels = np.minimum(np.array(key) * KEY_STEPS.get(raw, 1), np.iinfo(pixels.dtype).max)  # Pillow 12 has 255 of 1
        pixels, alpha = _with_key(pixels, levels), True
    return pixels, alpha, note


def _say_unused_alpha(path: str | os.PathLike[str], file: Image.Image, pixels: Pixels) -> str:
    """A note on alpha that may be none, UNFILLED or NO_ALPHA_BIT where it is none; "" where it is used."""
    alpha = pixels[..., -1]
    if file.format in OFTEN_UNFILLED and not alpha.any():
        return UNFILLED
    return _judge_alpha_bit(path) if file.format == "TGA" and not alpha.all() else ""


def _require_known_planes(file: Image.Image) -> None:
    """Refuse a TIFF's grey, or palette, and alpha one after the other: Pillow takes one for the other, or for black."""
    tags = getattr(file, "tag_v2", {})
    if (tags.get(PLANAR), tags.get(SAMPLES)) == (SEPARATE, 2) and tags.get(EXTRA, ())[:1] != (UNSPECIFIED,):
        raise InvalidInput("its two channels are stored one after the other: save it interleaved, or as PNG")


def _judge_alpha_bit(path: str | os.PathLike[str]) -> str:
    """Say what the bit is that a TGA has beside three times five of colour; "" where it has none.

    The specification calls it an attribute, of which the header says whether it is alpha, and nothing says which way.
    """
    with open(path, "rb") as file:
        header = file.read(18)
    map_bits, kind, depth, alpha_bits = header[7], header[2] & 7, header[16], header[17] & 15
    if (map_bits if kind == 1 else depth) != 16 or kind == 3:
        return ""
    return ALPHA_BIT if alpha_bits else NO_ALPHA_BIT


def _bits_of_jpeg2000(path: str | os.PathLike[str]) -> int:
    """The most bits of any component, by the marker SIZ of ISO/IEC 15444-1, Annex A.5.1."""
    content = Path(path).read_bytes()
    size = content.index(b"\xff\x4f\xff\x51")  # SOC, and SIZ behind it
    (components,) = struct.unpack_from(">H", content, size + 40)
    return max((content[size + 42 + 3 * i] & 0x7F) + 1 for i in range(components))


def say_left_out(channels: int) -> tuple[str, ...]:
    """A note on channels of a TIFF that are neither colours nor alpha; none where there are none."""
    words = f"has {say_count(channels, 'channel')} besides, which may mean anything and is left out"
    return (words,) if channels > 0 else ()


def _with_key(pixels: Pixels, colour: NDArray[Any]) -> Pixels:
    """The pixels with alpha: none where they have that colour."""
    visible = (pixels != colour).any(axis=2, keepdims=True)
    peak = np.array(np.iinfo(pixels.dtype).max, pixels.dtype)
    return np.concatenate([pixels, visible * peak], axis=2)


def _raw_mode(file: Image.Image) -> str:
    """Arrangement of the file's bytes, in Pillow's words; "" once it has been decoded."""
    for tile in file.tile or ():  # type: ignore[attr-defined]
        arguments = tile[3]
        return str(arguments if isinstance(arguments, str) else arguments[0])
    return ""


def _leave_times_alpha(file: Image.Image) -> bool:
    """Whether the colours of a TIFF are times alpha; Pillow then leaves them so, as it rounds down where it divides."""
    if file.format != "TIFF":
        return False
    tiles: Any = file.tile  # type: ignore[attr-defined]
    if file.mode != "RGBA":
        return file.mode == "La"
    file.tile = [with_raw_mode(tile, tile[3][0].replace("a", "A")) for tile in tiles]  # type: ignore[attr-defined]
    return any("a" in tile[3][0] for tile in tiles)


def _divide_by_alpha(pixels: Pixels) -> Pixels:
    """The pixels (H, W, C) with colours that are no more times alpha, their last channel; 0 where that is 0."""
    peak, kind = np.iinfo(pixels.dtype).max, pixels.dtype
    parts = []
    for part in np.array_split(pixels, -(-len(pixels) // PIECES)):  # a few rows at a time: in float64
        alpha = part[..., -1:]
        colours = np.where(alpha > 0, part[..., :-1] * np.float64(peak) / np.maximum(alpha, 1), 0)
        parts.append(np.concatenate([np.rint(np.minimum(colours, peak)).astype(kind), alpha], axis=2))
    return np.concatenate(parts)


def _say_fewer_bits(file: Image.Image) -> str:
    """A note on colours of which Pillow gives fewer bits than there are; "" where it gives all, or has decoded them."""
    lost = False
    if file.format == "PPM" and file.mode not in ("I", "F"):
        arguments = file.tile[0][3] if file.tile else ""  # type: ignore[attr-defined]
        lost = not isinstance(arguments, str) and arguments[-1] > 255
    if file.format == "TIFF" and file.mode == "CMYK":
        lost = max(file.tag_v2.get(BITS, (8,))) > 8  # type: ignore[attr-defined]
    return "has more than 8 bits a channel, of which 8 are read; save it as PNG to keep them" if lost else ""


def needs_libvips(path: str | os.PathLike[str], file: Image.Image) -> bool:
    """Whether Pillow would take a file for less than it is.

    Channels of 16 bits in planes of their own it takes for 8 bits, and whose bits are turned as they stand; colours
    times alpha it divides in some planes without a word.  WebP in TIFF it takes for damage, and of an AVIF with more
    than 8 bits it gives 8, of one that shows a part of its pixels all.
    """
    if file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        plain = tags.get(COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED
        bits = tags.get(BITS, (1,))[0]
        turned = plain and tags.get(FILL_ORDER) == LOWEST_FIRST and bits >= 8  # of fewer libvips does not know planes
        divided = not plain and tags.get(EXTRA, ())[:1] == (ASSOCIATED,)
        amiss: bool = bits == 16 or turned or divided
        return (tags.get(PLANAR) == SEPARATE and amiss) or bool(tags.get(COMPRESSION) == WEBP)
    if file.format == "AVIF" and read_properties(path, b"clap"):
        return True
    if file.format != "AVIF" or not is_installed():
        return False
    try:
        return bool(open_with_libvips(path, strict=False).format == "ushort")
    except libvips().Error:
        return False


def _bytes_of_sixteen_bits(path: str | os.PathLike[str], file: Image.Image, raw: str) -> Pixels | None:
    """Pixels of several channels of 16 bits, (H, W, C), as they are arranged by the words `raw`; None for others.

    Pillow has no such mode and gives the upper bytes.  Told that the bytes stand the other way round, it gives the
    lower ones.  Grey with alpha, in PNG, is four bytes a pixel, as RGB with alpha of 8 bits is.
    """
    if raw == "LA;16B":
        with open_read(io.BytesIO(_as_rgba_of_8_bits(Path(path).read_bytes()))) as four:
            pairs = np.asarray(four).astype(np.uint16)
        return pairs[..., 0::2] << 8 | pairs[..., 1::2]
    if raw[:-1] not in ("RGB;16", "RGBX;16", "RGBA;16"):
        return None
    little = raw.endswith("L") or (raw.endswith("N") and sys.byteorder == "little")
    with open_read(path) as other:
        other.tile = [with_raw_mode(tile, raw[:-1] + "LB"[little]) for tile in other.tile]
        lower = np.asarray(other).astype(np.uint16)
    return np.asarray(file).astype(np.uint16) << 8 | lower


def _as_rgba_of_8_bits(png: bytes) -> bytes:
    """A PNG whose header says RGB with alpha, of 8 bits; the rest stays."""
    header = png[12:24] + bytes([8, 6]) + png[26:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def _decode_by_hand(path: str | os.PathLike[str], layout: Layout, most_pixels: int | None) -> Decoded:
    """Decode numbers of bits that neither Pillow nor libvips knows.  Raises InvalidInput."""
    _require_at_most(path, layout.width, layout.height, most_pixels)
    numbers, white_is_zero = read_numbers_of(path, layout), layout.tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    if layout.floating:
        pixels = _scale_floats(numbers, white_is_zero)
    else:
        kind: Any = np.uint8 if layout.bits < 8 else np.uint16
        steps = np.arange(1 << layout.bits) * (np.iinfo(kind).max / ((1 << layout.bits) - 1))
        pixels = np.rint(steps).astype(kind)[numbers]
        if white_is_zero:  # which is said of colours alone
            pixels[..., :1] = np.iinfo(kind).max - pixels[..., :1]
    alpha = layout.extra[:1] in ((ASSOCIATED,), (UNASSOCIATED,))
    left_out = layout.samples - layout.colours - alpha
    pixels = np.ascontiguousarray(pixels[..., : layout.colours + alpha])
    if layout.extra[:1] == (ASSOCIATED,):
        pixels = _divide_by_alpha(pixels)
    orientation = layout.tags.get(ORIENTATION, 1)
    pixels = _turn_upright(pixels, orientation)
    found = layout.tags.get(PROFILE)
    profile, lost = judge_profile(found if isinstance(found, bytes | None) else b"", grey=layout.colours == 1)
    notes = (*filter(None, (lost,)), *say_left_out(left_out))
    return Decoded(pixels, alpha, orientation in SIDEWAYS, profile, notes)


def _decode_with_libvips(path: str | os.PathLike[str], most_pixels: int | None) -> Decoded:
    """Decode what Pillow does not know.  Raises InvalidInput."""
    if not is_installed():
        raise InvalidInput("its pixels are of a kind that is not handled without pyvips: save it as PNG")
    try:
        image = open_with_libvips(path, strict=False)
    except libvips().Error:
        raise _unreadable(path, "neither Pillow nor libvips knows what it is") from None
    _require_at_most(path, image.width, image.height, most_pixels)
    channels = count_colours(path, image)
    pixels = np.concatenate(list(read_bands(path, image, PIECES)))
    fields = image.get_fields()
    orientation = image.get("orientation") if "orientation" in fields else 1
    pixels = _turn_upright(pixels, orientation)
    profile, lost = judge_profile(image.get(ICC) if ICC in fields else None, grey=channels == 1)
    alpha = has_alpha(path, image, channels)
    colours = pixels[..., : channels + alpha]
    notes = (*filter(None, (lost,)), *say_left_out(image.bands - channels - alpha))
    return Decoded(colours, alpha, orientation in SIDEWAYS, profile, notes)


def _require_at_most(path: str | os.PathLike[str], width: int, height: int, most_pixels: int | None) -> None:
    """As `require_pixels`; where nobody says, at most as many as make Pillow distrust a file."""
    pillows = Image.MAX_IMAGE_PIXELS
    most = 2 * pillows if most_pixels is None and pillows is not None else most_pixels
    if most is not None:
        require_pixels(path, width, height, most)


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """The picture as a camera noted that it is to be shown: EXIF's tag Orientation."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
