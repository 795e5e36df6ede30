"""Image files decoded whole.

`files.read_image` decodes everything here.  `streams.RowFile` has libvips decode by rows what both decoders read alike,
bit for bit (`can_stream`), and takes the rest from here.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.decoding.boxes import read_properties
from memsr_compiler.images.decoding.damage import UNCOMPRESSED, is_jpeg, require_decodable
from memsr_compiler.images.decoding.opening import require_pixels, unreadable
from memsr_compiler.images.decoding.pixel_types import (
    PIECES,
    PIXEL_TYPES,
    SIGNED,
    WHITE_IS_ZERO,
    Pixels,
    PixelType,
    scale_floats,
)
from memsr_compiler.images.decoding.profiles import ICC, judge_profile, read_profile
from memsr_compiler.images.formats import open_read
from memsr_compiler.images.libvips import count_colours, has_alpha, is_installed, libvips, open_with_libvips, read_bands
from memsr_compiler.images.tiff.by_hand import Layout, find_layout, read_numbers_of
from memsr_compiler.images.tiff.by_pillow import with_raw_mode
from memsr_compiler.images.tiff.tags import (
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
)
from memsr_compiler.quantities import say_count

WEBP = 50001  # of the tag Compression
ASSOCIATED, UNASSOCIATED = 1, 2  # alpha, by the tag of channels beside the colours
KEY_STEPS = {"1": 255, "L;2": 85, "L;4": 17}  # levels of 8 bits between two of a PNG's own, in which its key is
OFTEN_UNFILLED = ("BMP", "DIB", "TGA")  # formats whose alpha programs often leave at 0, which is no picture
UNFILLED = "has alpha 0 everywhere, as programs leave it that do not fill it; it is taken for opaque"
ALPHA_BIT = "has one bit of alpha, of which 1 is taken for transparent, as GIMP does; to other programs 0 is that"
NO_ALPHA_BIT = "has a bit beside its colours that is no alpha, by its header; it is left out"
BY_ROWS = ("PNG", "JPEG", "MPO", "TIFF", "WEBP")  # formats of which libvips and Pillow make the same pixels
SIDEWAYS = (5, 6, 7, 8)  # orientations of which width and height change places


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
        pixels = scale_floats(numbers, white_is_zero)
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
        raise unreadable(path, "neither Pillow nor libvips knows what it is") from None
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
