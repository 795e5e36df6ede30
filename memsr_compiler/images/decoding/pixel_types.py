"""The one table of pixel types: what a file's numbers mean, for both readers."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.images.tiff.tags import BITS, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT, SEPARATE

Pixels = NDArray[Any]

SIGNED, WHITE_IS_ZERO = 2, 0
INK_SET, CMYK = 332, 1
PIECES = 64  # rows that are worked on at a time


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
    return scale_floats(np.asarray(image), white_is_zero), None


def scale_floats(levels: Pixels, white_is_zero: bool) -> Pixels:
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


PIXEL_TYPES = {  # by Pillow's mode; RGB, RGBA and LA may have 16 bits, which `decode` reads
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
