"""The table of pixel types: what a file's numbers mean, to the reader of whole images and to the one by rows."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.raw_images import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, write_png, write_tiff
from numpy.typing import NDArray
from PIL import Image, ImageCms, features

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.decoding.decode import decode
from memsr_compiler.images.decoding.opening import open_image
from memsr_compiler.images.files import read_image

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler.images.streams import RowFile

RANDOM = np.random.default_rng(0)
EIGHT = RANDOM.integers(0, 256, (13, 11, 4)).astype(np.uint8)
EIGHT[2:5, 3:9, 3] = 0
DEEP = RANDOM.integers(0, 65536, (13, 11, 4)).astype(np.uint16)
DEEP[2:5, 3:9, 3] = 0
SMOOTH = np.stack(np.meshgrid(np.arange(0, 220, 20), np.arange(0, 260, 20)) * 2, axis=2)[..., :3].astype(np.uint8)

Write = Callable[[Path], None]


def by_pillow(pixels: NDArray[Any], mode: str, **options: Any) -> Write:
    def write(path: Path) -> None:
        from_mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[1 if pixels.ndim == 2 else pixels.shape[2]]
        image = Image.fromarray(pixels)
        assert image.mode == from_mode
        (image if mode == from_mode else image.convert(mode)).save(path, **options)

    return write


def in_lab(pixels: NDArray[np.uint8]) -> Write:
    def write(path: Path) -> None:
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(Image.fromarray(pixels), srgb, lab, outputMode="LAB")
        assert image is not None
        image.save(path)

    return write


def by_libvips(pixels: NDArray[Any], **options: Any) -> Write:
    def write(path: Path) -> None:
        import pyvips

        image = pyvips.Image.new_from_array(pixels)
        deep = image.copy(interpretation="rgb16") if pixels.dtype == np.uint16 else image
        deep.write_to_file(str(path), **options)

    return write


def tiff(pixels: NDArray[Any], **options: Any) -> Write:
    return lambda path: write_tiff(path, pixels, **options)


def png(levels: NDArray[Any], **options: Any) -> Write:
    return lambda path: write_png(path, levels, **options)


def pgm(levels: NDArray[Any]) -> Write:
    height, width = levels.shape

    def write(path: Path) -> None:
        path.write_bytes(f"P5 {width} {height} 65535 ".encode() + levels.astype(">u2").tobytes())

    return write


def over_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    """Colours that are times alpha, divided by it: to the nearest level, and black where nothing is to be seen."""
    peak = np.iinfo(pixels.dtype).max
    colours = [
        [[min(round(int(c) * peak / int(x[-1])), peak) if x[-1] else 0 for c in x[:-1]] for x in r] for r in pixels
    ]
    return np.concatenate([np.array(colours, pixels.dtype), pixels[..., -1:]], axis=2)


def key(*levels: int) -> list[tuple[bytes, bytes]]:
    return [(b"tRNS", np.array(levels, ">u2").tobytes())]


def with_key(pixels: NDArray[Any], colour: Any) -> NDArray[Any]:
    opaque = (pixels != np.array(colour)).any(axis=2, keepdims=True) * np.iinfo(pixels.dtype).max
    return np.concatenate([pixels, opaque.astype(pixels.dtype)], axis=2)


def sixteen(levels: NDArray[Any]) -> NDArray[np.uint16]:
    return np.rint(np.asarray(levels, np.float64) * 65535).astype(np.uint16)


def packed(levels: NDArray[Any], bits: int) -> bytes:
    """Rows of numbers of so many bits, the uppermost first, each row beginning with a byte."""
    rows = levels.reshape(len(levels), -1, 1).astype(">u2").view(np.uint8)
    return b"".join(np.packbits(np.unpackbits(row, axis=1)[:, 16 - bits :].ravel()).tobytes() for row in rows)


def in_lzw(raw: bytes, width: int) -> bytes:
    file = io.BytesIO()
    Image.frombytes("L", (width, len(raw) // width), raw).save(file, "TIFF", compression="tiff_lzw")
    with Image.open(file) as image:
        tags: Any = image
        (start,), (length,) = tags.tag_v2[273], tags.tag_v2[279]
    return bytes(file.getvalue()[start : start + length])


def by_bytes(levels: NDArray[Any]) -> bytes:
    """Floating-point numbers as TIFF's third predictor has them: differences of bytes, the uppermost first."""
    kind = levels.dtype.newbyteorder(">")
    rows = levels.astype(kind).view(np.uint8).reshape(*levels.shape, -1).swapaxes(1, 2).reshape(len(levels), -1)
    return bytes(np.diff(rows, axis=1, prepend=np.zeros((len(rows), 1), np.uint8)).astype(np.uint8).tobytes())


def in_a_tile(pixels: NDArray[Any], side: int, raw: bytes) -> Write:
    def write(path: Path) -> None:
        tags = [(322, 4, [side]), (323, 4, [side])]
        write_tiff(path, pixels, photometric=2, bits=12, raw=raw, more=tags)
        content = path.read_bytes()
        for strip, tile in ((273, 324), (279, 325)):
            content = content.replace(struct.pack("<HHI", strip, 4, 1), struct.pack("<HHI", tile, 4, 1))
        path.write_bytes(content)

    return write


def scaled(levels: NDArray[Any], bits: int, kind: type = np.uint16) -> NDArray[Any]:
    return np.rint(levels.astype(float) * np.iinfo(kind).max / ((1 << bits) - 1)).astype(kind)


TWELVE = RANDOM.integers(0, 4096, (13, 11, 4)).astype(np.uint16)
IN_TILE = np.zeros((16, 16, 3), np.uint16)
IN_TILE[:13, :11] = TWELVE[..., :3]
HALF = RANDOM.random((13, 11)).astype(np.float16)
DEFLATE = [(259, 3, [8])]
PALETTE_COLOURS = RANDOM.integers(0, 256, (16, 3)).astype(np.uint8)
INDICES = RANDOM.integers(0, 16, (13, 11)).astype(np.uint8)
PLTE = [(b"PLTE", PALETTE_COLOURS.tobytes())]
SEE_THROUGH = np.array([0, 128, *[255] * 14], np.uint8)


def with_colour_map(colours: NDArray[Any]) -> Write:
    levels = np.zeros((256, 3), int)
    levels[:16] = colours
    return tiff(INDICES, photometric=3, more=[(320, 3, levels.T.ravel().tolist())])


def as_big_tiff(pixels: NDArray[Any], *, big_endian: bool = False) -> Write:
    """RGB of 8 bits."""
    end, (height, width, _) = ">" if big_endian else "<", pixels.shape
    start = 16 + 8 + 20 * 9 + 8
    values = {
        256: width, 257: height, 259: 1, 262: 2, 273: start, 277: 3, 278: height, 279: pixels.size,
    }  # fmt: skip
    entries = {n: struct.pack(end + "HHQQ", n, 16, 1, value) for n, value in values.items()}
    entries[258] = struct.pack(end + "HHQ3H2x", 258, 3, 3, 8, 8, 8)
    head = (b"MM" if big_endian else b"II") + struct.pack(end + "HHHQQ", 43, 8, 0, 16, len(entries))
    content = head + b"".join(entries[n] for n in sorted(entries)) + bytes(8) + pixels.tobytes()

    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


UNIT = RANDOM.random((13, 11)).astype(np.float32)
BITS = RANDOM.integers(0, 2, (13, 11)).astype(np.uint8)
TINY_KEY = EIGHT[0, 0]
DEEP_KEY = DEEP[0, 0]

# What is known exactly: the file, and its pixels (H, W, C).
EXACT: dict[str, tuple[str, Write, NDArray[Any]]] = {
    "grey PNG": ("png", by_pillow(EIGHT[..., 0], "L"), EIGHT[..., :1]),
    "grey and alpha PNG": ("png", png(EIGHT[..., 2:], bits=8, colour=GREY_ALPHA), EIGHT[..., 2:]),
    "RGB PNG": ("png", by_pillow(EIGHT[..., :3], "RGB"), EIGHT[..., :3]),
    "RGBA PNG": ("png", by_pillow(EIGHT, "RGBA"), EIGHT),
    "interlaced RGBA PNG": ("png", png(EIGHT, bits=8, colour=RGBA, interlaced=True), EIGHT),
    "1-bit PNG": ("png", png(BITS, bits=1, colour=GREY), BITS[..., None] * np.uint8(255)),
    "2-bit PNG": ("png", png(INDICES % 4, bits=2, colour=GREY), (INDICES % 4)[..., None] * np.uint8(85)),
    "4-bit PNG": ("png", png(INDICES, bits=4, colour=GREY), INDICES[..., None] * np.uint8(17)),
    "4-bit PNG with a key": (
        "png",
        png(INDICES, bits=4, colour=GREY, before=key(5)),
        with_key(INDICES[..., None] * np.uint8(17), [85]),
    ),
    "1-bit PNG with a key": (
        "png",
        png(BITS, bits=1, colour=GREY, before=key(1)),
        with_key(BITS[..., None] * np.uint8(255), [255]),
    ),
    "RGB PNG with a key": (
        "png",
        png(EIGHT[..., :3], bits=8, colour=RGB, before=key(*TINY_KEY[:3])),
        with_key(EIGHT[..., :3], TINY_KEY[:3]),
    ),
    "grey PNG of 16 bits": ("png", png(DEEP[..., 0], bits=16, colour=GREY), DEEP[..., :1]),
    "grey PNG of 16 bits with a key": (
        "png",
        png(DEEP[..., 0], bits=16, colour=GREY, before=key(DEEP_KEY[0])),
        with_key(DEEP[..., :1], DEEP_KEY[:1]),
    ),
    "grey and alpha PNG of 16 bits": ("png", png(DEEP[..., 2:], bits=16, colour=GREY_ALPHA), DEEP[..., 2:]),
    "RGB PNG of 16 bits": ("png", png(DEEP[..., :3], bits=16, colour=RGB), DEEP[..., :3]),
    "RGB PNG of 16 bits with a key": (
        "png",
        png(DEEP[..., :3], bits=16, colour=RGB, before=key(*DEEP_KEY[:3])),
        with_key(DEEP[..., :3], DEEP_KEY[:3]),
    ),
    "RGBA PNG of 16 bits": ("png", png(DEEP, bits=16, colour=RGBA), DEEP),
    "interlaced RGBA PNG of 16 bits": ("png", png(DEEP, bits=16, colour=RGBA, interlaced=True), DEEP),
    "palette PNG": ("png", png(INDICES, bits=4, colour=PALETTE, before=PLTE), PALETTE_COLOURS[INDICES]),
    "palette PNG with alpha": (
        "png",
        png(INDICES, bits=8, colour=PALETTE, before=[*PLTE, (b"tRNS", SEE_THROUGH[:2].tobytes())]),
        np.dstack([PALETTE_COLOURS[INDICES], SEE_THROUGH[INDICES]]),
    ),
    "grey TIFF": ("tif", tiff(EIGHT[..., 0]), EIGHT[..., :1]),
    "white-is-zero TIFF": ("tif", tiff(EIGHT[..., 0], photometric=0), 255 - EIGHT[..., :1]),
    "white-is-zero TIFF of 16 bits": ("tif", tiff(DEEP[..., 0], photometric=0), 65535 - DEEP[..., :1]),
    "1-bit TIFF": ("tif", by_pillow(BITS * np.uint8(255), "1"), BITS[..., None] * np.uint8(255)),
    "1-bit fax TIFF": (
        "tif",
        by_pillow(BITS * np.uint8(255), "1", compression="group4"),
        BITS[..., None] * np.uint8(255),
    ),
    "RGB TIFF": ("tif", tiff(EIGHT[..., :3], photometric=2), EIGHT[..., :3]),
    "RGB TIFF in planes": ("tif", tiff(EIGHT[..., :3], photometric=2, planes=True), EIGHT[..., :3]),
    "RGBA TIFF": ("tif", tiff(EIGHT, photometric=2, extra=[2]), EIGHT),
    "RGB TIFF with a channel for nothing": ("tif", tiff(EIGHT, photometric=2, extra=[0]), EIGHT[..., :3]),
    "RGBA TIFF times alpha": ("tif", tiff(EIGHT, photometric=2, extra=[1]), over_alpha(EIGHT)),
    "RGBA TIFF times alpha in planes": ("tif", tiff(EIGHT, photometric=2, extra=[1], planes=True), over_alpha(EIGHT)),
    "grey TIFF times alpha": ("tif", tiff(EIGHT[..., 2:], extra=[1]), over_alpha(EIGHT[..., 2:])),
    "RGBA TIFF of 16 bits times alpha": ("tif", tiff(DEEP, photometric=2, extra=[1]), over_alpha(DEEP)),
    "big-endian RGBA TIFF of 16 bits times alpha": (
        "tif",
        tiff(DEEP, photometric=2, extra=[1], big_endian=True),
        over_alpha(DEEP),
    ),
    "compressed RGBA TIFF of 16 bits times alpha": (
        "tif",
        tiff(DEEP, photometric=2, extra=[1], raw=zlib.compress(DEEP.tobytes()), more=[(259, 3, [8])]),
        over_alpha(DEEP),
    ),
    "grey and alpha TIFF": ("tif", tiff(EIGHT[..., 2:], extra=[2]), EIGHT[..., 2:]),
    "grey TIFF of 16 bits": ("tif", tiff(DEEP[..., 0]), DEEP[..., :1]),
    "big-endian grey TIFF of 16 bits": ("tif", tiff(DEEP[..., 0], big_endian=True), DEEP[..., :1]),
    "RGB TIFF of 16 bits": ("tif", tiff(DEEP[..., :3], photometric=2), DEEP[..., :3]),
    "big-endian RGB TIFF of 16 bits": ("tif", tiff(DEEP[..., :3], photometric=2, big_endian=True), DEEP[..., :3]),
    "RGB TIFF of 16 bits in planes": ("tif", tiff(DEEP[..., :3], photometric=2, planes=True), DEEP[..., :3]),
    "RGBA TIFF of 16 bits": ("tif", tiff(DEEP, photometric=2, extra=[2]), DEEP),
    "grey and alpha TIFF of 16 bits": ("tif", tiff(DEEP[..., 2:], extra=[2]), DEEP[..., 2:]),
    "palette TIFF of 16 bits": ("tif", with_colour_map(PALETTE_COLOURS.astype(int) * 257), PALETTE_COLOURS[INDICES]),
    "palette TIFF of 8 bits": ("tif", with_colour_map(PALETTE_COLOURS.astype(int)), PALETTE_COLOURS[INDICES]),
    "floating TIFF": ("tif", tiff(UNIT), sixteen(UNIT)[..., None]),
    "big-endian floating TIFF": ("tif", tiff(UNIT, big_endian=True), sixteen(UNIT)[..., None]),
    "white-is-zero floating TIFF": ("tif", tiff(UNIT, photometric=0), sixteen(1 - UNIT)[..., None]),
    "RGB TIFF of 12 bits": (
        "tif",
        tiff(TWELVE[..., :3], photometric=2, bits=12, raw=packed(TWELVE[..., :3], 12)),
        scaled(TWELVE[..., :3], 12),
    ),
    "big-endian grey TIFF of 12 bits": (
        "tif",
        tiff(TWELVE[..., 0], bits=12, raw=packed(TWELVE[..., 0], 12), big_endian=True),
        scaled(TWELVE[..., :1], 12),
    ),
    "white-is-zero TIFF of 10 bits with alpha": (
        "tif",
        tiff(TWELVE[..., 2:] // 4, photometric=0, bits=10, raw=packed(TWELVE[..., 2:] // 4, 10), extra=[2]),
        np.dstack([65535 - scaled(TWELVE[..., 2] // 4, 10), scaled(TWELVE[..., 3] // 4, 10)]),
    ),
    "compressed RGBA TIFF of 12 bits": (
        "tif",
        tiff(TWELVE, photometric=2, bits=12, extra=[2], raw=zlib.compress(packed(TWELVE, 12)), more=DEFLATE),
        scaled(TWELVE, 12),
    ),
    "LZW in a TIFF of 12 bits": (
        "tif",
        tiff(
            TWELVE[..., :3], photometric=2, bits=12, raw=in_lzw(packed(TWELVE[..., :3], 12), 50), more=[(259, 3, [5])]
        ),
        scaled(TWELVE[..., :3], 12),
    ),
    "tile in a TIFF of 12 bits": (
        "tif",
        in_a_tile(TWELVE[..., :3], 16, packed(IN_TILE, 12)),
        scaled(TWELVE[..., :3], 12),
    ),
    "RGB TIFF of 4 bits": (
        "tif",
        tiff(TWELVE[..., :3] // 256, photometric=2, bits=4, raw=packed(TWELVE[..., :3] // 256, 4)),
        scaled(TWELVE[..., :3] // 256, 4, np.uint8),
    ),
    "floating TIFF of 16 bits": ("tif", tiff(HALF), sixteen(HALF)[..., None]),
    "compressed floating TIFF of 16 bits": (
        "tif",
        tiff(HALF, raw=zlib.compress(by_bytes(HALF)), more=[*DEFLATE, (317, 3, [3])]),
        sixteen(HALF)[..., None],
    ),
    "floating TIFF of 64 bits": ("tif", tiff(UNIT.astype(np.float64)), sixteen(UNIT)[..., None]),
    "big-endian floating TIFF of 64 bits": (
        "tif",
        tiff(UNIT.astype(np.float64), big_endian=True, photometric=0),
        sixteen(1 - UNIT.astype(np.float64))[..., None],
    ),
    "BigTIFF": ("tif", as_big_tiff(EIGHT[..., :3]), EIGHT[..., :3]),
    "WebP": ("webp", by_pillow(EIGHT[..., :3], "RGB", lossless=True), EIGHT[..., :3]),
    "WebP with alpha": ("webp", by_pillow(EIGHT, "RGBA", lossless=True, exact=True), EIGHT),
    "BMP": ("bmp", by_pillow(EIGHT[..., :3], "RGB"), EIGHT[..., :3]),
    "TGA with alpha": ("tga", by_pillow(EIGHT, "RGBA"), EIGHT),
}
# What a decoder makes of it; both have to make the same.
ALIKE: dict[str, tuple[str, Write]] = {
    "JPEG": ("jpg", by_pillow(SMOOTH, "RGB", quality=80)),
    "JPEG of half the colours": ("jpg", by_pillow(SMOOTH, "RGB", quality=80, subsampling=2)),
    "progressive JPEG": ("jpg", by_pillow(SMOOTH, "RGB", quality=80, progressive=True)),
    "grey JPEG": ("jpg", by_pillow(SMOOTH[..., 0], "L", quality=80)),
    "CMYK JPEG": ("jpg", by_pillow(SMOOTH, "CMYK", quality=80)),
    "CMYK TIFF": ("tif", by_pillow(SMOOTH, "CMYK")),
    "YCbCr TIFF with LZW": ("tif", by_pillow(SMOOTH, "YCbCr", compression="tiff_lzw")),
    "YCbCr TIFF with deflate": ("tif", by_pillow(SMOOTH, "YCbCr", compression="tiff_adobe_deflate")),
    "grey JPEG in TIFF": ("tif", by_pillow(SMOOTH[..., 0], "L", compression="jpeg")),
    "CMYK TIFF with LZW": ("tif", by_pillow(SMOOTH, "CMYK", compression="tiff_lzw")),
    "RGBA TIFF with deflate": ("tif", by_pillow(EIGHT, "RGBA", compression="tiff_adobe_deflate")),
    "CIE L*a*b* TIFF": ("tif", in_lab(SMOOTH)),
    "16 bits in PGM": ("pgm", pgm(DEEP[..., 0])),
    "JPEG in TIFF": ("tif", by_pillow(SMOOTH, "RGB", compression="jpeg")),
    "WebP in TIFF": ("tif", by_libvips(SMOOTH, compression="webp", Q=80)),
    "tiles in TIFF": ("tif", by_libvips(SMOOTH, compression="deflate", tile=True, tile_width=16, tile_height=16)),
    "AVIF": ("avif", by_libvips(SMOOTH)),
    "AVIF of 10 bits": ("avif", by_libvips(SMOOTH * np.uint16(257), bitdepth=10)),
    "LZW in TIFF": ("tif", by_pillow(SMOOTH, "RGB", compression="tiff_lzw")),
    "palette TIFF": ("tif", by_pillow(SMOOTH, "P")),
    "palette TIFF with alpha": ("tif", by_pillow(EIGHT, "PA")),
    "TIFF of 12 bits": ("tif", tiff(EIGHT[:, :8, 0], bits=12, raw=EIGHT.tobytes()[: 13 * 12])),
    "lossy WebP": ("webp", by_pillow(SMOOTH, "RGB", quality=60)),
    "lossy WebP with alpha": ("webp", by_pillow(EIGHT, "RGBA", quality=60)),
    "GIF": ("gif", by_pillow(SMOOTH, "RGB")),
}
REFUSED: dict[str, tuple[str, Write, str]] = {
    "floating beyond 1": ("tif", tiff(UNIT * 200), r"floating-point numbers from .* to 19\d\.\d+; 0 to 1"),
    "floating below 0": ("tif", tiff(UNIT - 1), "floating-point numbers from -"),
    "NaN": ("tif", tiff(np.full((4, 4), np.nan, np.float32)), "floating-point numbers from nan"),
    "32 bits": (
        "tif",
        tiff(np.arange(256, dtype=np.int32).reshape(16, 16)),
        "32 bits with a sign, here from 0 to 255, and nothing",
    ),
    "32 bits without sign": (
        "tif",
        tiff(np.arange(256, dtype=np.uint32).reshape(16, 16)),
        "32 bits, here from 0 to 255",
    ),
    "8 bits with a sign": ("tif", tiff(EIGHT[..., 0].astype(np.int8)), "numbers with a sign"),
    "16 bits with a sign": ("tif", tiff(DEEP[..., 0].astype(np.int16)), "whole numbers of 16 bits with a sign"),
    "grey TIFF times alpha in planes": (
        "tif",
        tiff(EIGHT[..., 2:], extra=[1], planes=True),
        "its two channels are stored one after the other",
    ),
    "RGB of 16 bits with a sign": (
        "tif",
        tiff(DEEP[..., :3].astype(np.int16), photometric=2),
        "whole numbers of 16 bits with a sign, and nothing says",
    ),
    "64 bits": ("tif", tiff(np.zeros((4, 4), np.uint64)), "whole numbers of 64 bits, and nothing says which"),
    "complex": ("tif", tiff(np.zeros((4, 4)), more=[(339, 3, [6])]), "complex numbers"),
    "floating of 24 bits": (
        "tif",
        tiff(np.zeros((4, 4), np.float32), bits=24),
        "floating-point numbers of 24 bits, not",
    ),
    "floating of 64 bits beyond 1": (
        "tif",
        tiff(UNIT.astype(np.float64) * 200),
        r"floating-point numbers from .* 0 to 1",
    ),
    "bits of several kinds": (
        "tif",
        tiff(EIGHT[..., :3], photometric=2, more=[(258, 3, [5, 6, 5])]),
        "numbers of different kinds, of 5 or 6 bits",
    ),
    "inks of other colours": ("tif", tiff(EIGHT, photometric=5, more=[(332, 3, [2])]), "inks other than cyan"),
    "12 bits in JPEG": (
        "tif",
        tiff(EIGHT[..., :3], photometric=2, bits=12, more=[(259, 3, [7])]),
        r"12 bits and are compressed in a way that is not handled for these \(TIFF's compression 7, predictor 1\)",
    ),
    "12 bits of YCbCr": ("tif", tiff(EIGHT[..., :3], photometric=6, bits=12), "12 bits and TIFF's photometric .* 6"),
    "12 bits, a wrong checksum": (
        "tif",
        tiff(TWELVE, photometric=2, bits=12, raw=zlib.compress(packed(TWELVE, 12))[:-1] + b"x", more=DEFLATE),
        "is damaged .*incorrect data check",
    ),
    "12 bits, cut off": ("tif", tiff(TWELVE[..., :3], photometric=2, bits=12, raw=b"x" * 99), "damaged"),
    "big-endian BigTIFF": (
        "tif",
        as_big_tiff(EIGHT[..., :3], big_endian=True),
        "a BigTIFF whose .* highest byte first",
    ),
    "floating RGB": (
        "tif",
        tiff(np.zeros((4, 4, 3), np.float32), photometric=2),
        "floating-point numbers in 3 channels, which may be light or levels",
    ),
}


def write(tmp_path: Path, case: str) -> Path:
    suffix, make = (EXACT.get(case) or ALIKE.get(case) or REFUSED[case])[:2]
    path = tmp_path / f"x.{suffix}"
    make(path)
    return path


def by_rows(path: Path) -> NDArray[Any]:
    image = RowFile.open(path)
    pixels = np.concatenate(list(image._read(4)))
    assert pixels.shape == (image.height, image.width, image.channels + image.alpha) and pixels.dtype == image.dtype
    return pixels


def whole(path: Path) -> NDArray[Any]:
    with open_image(path, None) as file:
        return decode(path, file, None).pixels


@pytest.mark.parametrize("case", EXACT)
def test_numbers_mean_what_the_format_says(tmp_path: Path, case: str) -> None:
    path, expected = write(tmp_path, case), EXACT[case][2]
    for pixels in (whole(path), by_rows(path)):
        assert pixels.dtype == expected.dtype
        assert np.array_equal(pixels, expected)
    in_eight = read_image(path, keep_grey=True, keep_alpha=True)
    assert np.array_equal(in_eight, expected if expected.dtype == np.uint8 else np.rint(expected / 257))


@pytest.mark.parametrize("case", ALIKE)
def test_both_readers_see_the_same(tmp_path: Path, case: str) -> None:
    path = write(tmp_path, case)
    pixels = whole(path)
    assert np.array_equal(by_rows(path), pixels) and np.ptp(pixels) > 100
    assert (pixels.dtype == np.uint16) == any(words in case for words in ("16 bits", "10 bits", "12 bits"))


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused_by_both(tmp_path: Path, case: str) -> None:
    path = write(tmp_path, case)
    for read in (read_image, RowFile.open):
        with pytest.raises(InvalidInput, match=rf"{path.name}: .*{REFUSED[case][2]}"):
            read(path)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow lacks JPEG 2000")
@pytest.mark.parametrize("suffix", ["jp2", "j2k"])
def test_jpeg_2000_of_more_than_8_bits_is_refused(tmp_path: Path, suffix: str) -> None:
    """Pillow rounds such colours up beyond a byte, so that white is black; grey it gives whole."""
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(SMOOTH).save(path)
    assert np.abs(read_image(path).astype(int) - SMOOTH).max() == 0
    content = path.read_bytes()
    at = content.index(b"\xff\x51") + 40
    path.write_bytes(content[:at] + bytes([11, 1, 1] * 3) + content[at + 9 :])  # 12 bits, whose pixels are others
    for read in (read_image, RowFile.open):
        with pytest.raises(InvalidInput, match=rf"{path.name}: its colours have 12 bits"):
            read(path)
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(path)
    assert (read_image(path) == 255).all()


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow lacks JPEG 2000")
@pytest.mark.parametrize("bits", [9, 10, 12, 15])
def test_white_of_grey_jpeg_2000_is_white_at_any_depth(tmp_path: Path, bits: int) -> None:
    """Pillow shifts such numbers to 16 bits, where white would be 65520 of 12."""
    path = tmp_path / "x.jp2"
    for level in (0, 65535):
        Image.fromarray(np.full((8, 8), level, np.uint16)).save(path)
        content = path.read_bytes()
        at = content.index(b"\xff\x51") + 40
        path.write_bytes(content[:at] + bytes([bits - 1]) + content[at + 1 :])  # what is beyond them is clipped
        assert (whole(path) == level).all() and (by_rows(path) == level).all()


@pytest.mark.parametrize("mode", ["LAB", "YCbCr"])
def test_other_colour_spaces_come_back(tmp_path: Path, mode: str) -> None:
    """To a few levels: both are rounded to 8 bits on the way."""
    path = tmp_path / "x.tif"
    (in_lab(SMOOTH) if mode == "LAB" else by_pillow(SMOOTH, mode, compression="tiff_lzw"))(path)
    off = np.abs(read_image(path).astype(int) - SMOOTH)
    assert off.mean() < 2


@pytest.mark.parametrize("name", ["curve.svg", "curve.png", "curve [1]"])
def test_a_drawing_is_no_photograph(name: str, tmp_path: Path) -> None:
    """Which libvips would draw: one that memsrc itself has put beside photographs, say."""
    (tmp_path / name).write_text('<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32"/>')
    for read in (read_image, RowFile.open):
        with pytest.raises(InvalidInput, match="is a drawing, not a photograph"):
            read(tmp_path / name)


@pytest.mark.parametrize("channels", [3, 4, 5])
def test_channels_that_are_left_out_are_told(channels: int, tmp_path: Path) -> None:
    pixels = np.dstack([EIGHT, EIGHT])[..., :channels]
    write_tiff(tmp_path / "a.tif", pixels, photometric=2, extra=[0] * (channels - 3))
    told: list[str] = []
    assert np.array_equal(read_image(tmp_path / "a.tif", warn=told.append), EIGHT[..., :3])
    more = {3: [], 4: ["1 channel besides"], 5: ["2 channels besides"]}[channels]
    assert [f"has {words}" in line for words, line in zip(more, told, strict=True)] == [True] * len(more)
    assert len(RowFile.open(tmp_path / "a.tif").notes) == len(more)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("pixels", [EIGHT, DEEP])
def test_two_channels_in_planes_are_refused(pixels: NDArray[Any], extra: int, photometric: int, tmp_path: Path) -> None:
    """Libvips makes another picture of them, and says nothing."""
    write_tiff(tmp_path / "a.tif", pixels[..., 2:], photometric=photometric, extra=[extra], planes=True)
    for read in (read_image, RowFile.open):
        with pytest.raises(InvalidInput, match=r"its two channels are stored one after the other|unknown raw mode"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("pixels", [EIGHT, DEEP])
def test_a_plane_that_may_be_anything_is_not_taken_for_alpha(
    pixels: NDArray[Any], big_endian: bool, tmp_path: Path
) -> None:
    write_tiff(tmp_path / "a.tif", pixels, photometric=2, extra=[0], planes=True, big_endian=big_endian)
    opened = RowFile.open(tmp_path / "a.tif")
    assert not opened.alpha and "has 1 channel besides" in opened.notes[0]
    assert np.array_equal(np.concatenate(list(opened.bands(5))), pixels[..., :3])
    write_tiff(tmp_path / "b.tif", pixels, photometric=2, extra=[2], planes=True, big_endian=big_endian)
    assert RowFile.open(tmp_path / "b.tif").alpha


def turned(strip: bytes) -> bytes:
    return np.packbits(np.unpackbits(np.frombuffer(strip, np.uint8), bitorder="little")).tobytes()


@pytest.mark.parametrize("extra", [(), (0,), (1,), (2,)])
@pytest.mark.parametrize(("compression", "pack"), [(1, bytes), (8, zlib.compress)])
@pytest.mark.parametrize("lowest_bit_first", [False, True])
@pytest.mark.parametrize("photometric", [1, 2, 3])
@pytest.mark.parametrize("pixels", [EIGHT, DEEP])
def test_planes_are_read_as_they_are_or_refused(
    pixels: NDArray[Any],
    photometric: int,
    lowest_bit_first: bool,
    compression: int,
    pack: Callable[[bytes], bytes],
    extra: tuple[int, ...],
    tmp_path: Path,
) -> None:
    """Pillow turns no bits of planes, and divides colours times alpha only in some of them."""
    colours = 3 if photometric == 2 else 1
    if colours + len(extra) == 1 or (photometric == 3 and pixels is DEEP):
        return
    levels = pixels[..., [*range(colours), 3]][..., : colours + len(extra)]
    if extra == (1,):
        levels = np.minimum(levels, levels[..., -1:])
    colour_map = RANDOM.integers(0, 65536, 768).tolist()
    more = [(259, 3, [compression]), *([(266, 3, [2])] * lowest_bit_first)]
    more += [(320, 3, colour_map)] * (photometric == 3)

    def pack_plane(strip: bytes) -> bytes:
        return turned(pack(strip)) if lowest_bit_first else pack(strip)

    write_tiff(
        tmp_path / "a.tif", levels, photometric=photometric, extra=extra, planes=True, pack=pack_plane, more=more
    )
    expected = over_alpha(levels) if extra == (1,) else levels[..., : colours + (extra == (2,))]
    if colours == 1 and extra != (0,):
        with pytest.raises(InvalidInput, match="its two channels are stored one after the other"):
            whole(tmp_path / "a.tif")
        return
    refusable = colours == 1 or (lowest_bit_first and compression != 1)
    found = None
    with contextlib.suppress(*([InvalidInput] if refusable else [])):
        found = whole(tmp_path / "a.tif")
    if found is None:
        return
    if photometric == 3:
        expected = np.array(colour_map).reshape(3, 256).T[levels[..., 0]] // 256
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (extra == (1,))  # libvips divides and rounds down


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("lowest_bit_first", [False, True])
@pytest.mark.parametrize("photometric", [0, 1, 3])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_single_plane_is_read_as_it_is(
    bits: int, photometric: int, lowest_bit_first: bool, big_endian: bool, tmp_path: Path
) -> None:
    """As scanners write it; Pillow takes 0 for black where it is white, and fewer bits for eight."""
    if photometric == 3 and bits < 8 and lowest_bit_first:  # which is refused, in a plane or not
        return
    levels = RANDOM.integers(0, 1 << bits, (5, 16), dtype=np.uint8)
    packed = np.packbits(np.unpackbits(levels[..., None], axis=2)[..., 8 - bits :]).tobytes()
    colour_map = RANDOM.integers(256, 65536, 3 << bits)
    more = [(266, 3, [2])] * lowest_bit_first + [(320, 3, colour_map.tolist())] * (photometric == 3)
    write_tiff(
        tmp_path / "a.tif",
        levels,
        photometric=photometric,
        bits=bits,
        raw=turned(packed) if lowest_bit_first else packed,
        planes=True,
        big_endian=big_endian,
        more=more,
    )
    grey = np.rint(levels * (255 / ((1 << bits) - 1)))
    expected = (255 - grey if photometric == 0 else grey)[..., None]
    if photometric == 3:
        expected = colour_map.reshape(3, -1).T[levels] // 256
    for found in (read_image(tmp_path / "a.tif"), whole(tmp_path / "a.tif")):
        assert np.array_equal(found, np.broadcast_to(expected, found.shape))


@pytest.mark.parametrize("compression", [8, 32946])
def test_deflated_bits_that_are_turned_are_refused_as_what_they_are(tmp_path: Path, compression: int) -> None:
    """Its checksum would not fit, which is damage; libtiff turns them back, and LZW's too."""
    more = [(259, 3, [compression]), (266, 3, [2])]
    write_tiff(tmp_path / "a.tif", EIGHT[..., 0], pack=lambda strip: turned(zlib.compress(strip)), more=more)
    for read in (read_image, RowFile.open):
        with pytest.raises(InvalidInput, match=r"a\.tif: its pixels .* \(FillOrder 2\), an order that is not handled"):
            read(tmp_path / "a.tif")
    more[0] = (259, 3, [5])
    raw = turned(in_lzw(EIGHT[..., 0].tobytes(), 11))
    write_tiff(tmp_path / "b.tif", EIGHT[..., 0], raw=raw, more=more)
    assert np.array_equal(whole(tmp_path / "b.tif")[..., 0], EIGHT[..., 0])


def test_lab_in_planes_is_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", EIGHT[..., :3], photometric=8, planes=True)
    with pytest.raises(InvalidInput, match=r"CIE L\*a\*b\* in planes"):
        read_image(tmp_path / "a.tif")


# -- what is told


@pytest.mark.parametrize("name", ["a.tga", "a.bmp"])
def test_alpha_that_nobody_filled_is_taken_for_opaque(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for alpha, opaque in ((0, True), (1, False)):
        four = np.dstack([EIGHT[..., :3], np.zeros((13, 11), np.uint8)])
        four[5, 5, 3] = alpha
        bgra = four[..., [2, 1, 0, 3]].tobytes()
        if name == "a.tga":
            path.write_bytes(struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 11, 13, 32, 0x20) + bgra)
        else:
            masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(68)
            head = struct.pack("<IiiHHIIiiII", 124, 11, -13, 1, 32, 3, len(bgra), 0, 0, 0, 0) + masks
            path.write_bytes(b"BM" + struct.pack("<IHHI", 138 + len(bgra), 0, 0, 138) + head + bgra)
        told: list[str] = []
        assert np.array_equal(read_image(path, keep_alpha=True, warn=told.append), four[..., : 4 - opaque])
        image = RowFile.open(path)
        assert image.alpha is not opaque and np.array_equal(by_rows(path), four[..., : 4 - opaque])
        assert [f"{path}: {note}" for note in image.notes] == told
        assert len(told) == opaque and all("has alpha 0 everywhere" in line for line in told)


@pytest.mark.parametrize("bits", [0, 1])
@pytest.mark.parametrize("palette", [False, True])
def test_the_bit_beside_colours_of_five_bits(bits: int, palette: bool, tmp_path: Path) -> None:
    """Programs do not agree on which is transparent; where the header says that it is no alpha, all are opaque."""
    colours = struct.pack("<4H", 0x7FFF, 0xFFFF, 0x001F, 0x801F)
    mapped = (1, 1, 0, 4, 16) if palette else (0, 2, 0, 0, 0)
    header = struct.pack("<BBBHHBHHHHBB", 0, *mapped, 0, 0, 4, 1, 8 if palette else 16, bits | 0x20)
    (tmp_path / "a.tga").write_bytes(header + colours + bytes(range(4)) * palette)
    told: list[str] = []
    image = read_image(tmp_path / "a.tga", keep_alpha=True, warn=told.append)
    assert image[0, :, :3].tolist() == [[255, 255, 255]] * 2 + [[0, 0, 255]] * 2
    assert image.shape[2] == 3 + bits and (not bits or image[0, :, 3].tolist() == [255, 0, 255, 0])
    assert len(told) == 1 and ("1 is taken for transparent" if bits else "that is no alpha, by its header") in told[0]
    assert list(RowFile.open(tmp_path / "a.tga").notes) == [told[0].partition(": ")[2]]


def test_bits_of_inks_that_pillow_does_not_give_are_told(tmp_path: Path) -> None:
    write_tiff(tmp_path / "x.tif", DEEP, photometric=5)
    image = RowFile.open(tmp_path / "x.tif")
    assert any("has more than 8 bits a channel, of which 8 are read" in note for note in image.notes)
    write_tiff(tmp_path / "x.tif", EIGHT, photometric=5)
    assert not any("8 bits" in note for note in RowFile.open(tmp_path / "x.tif").notes)


def test_bits_that_pillow_does_not_give_are_told(tmp_path: Path) -> None:
    rgb = DEEP[..., :3].astype(">u2")
    (tmp_path / "deep.ppm").write_bytes(b"P6 11 13 65535 " + rgb.tobytes())
    (tmp_path / "words.ppm").write_text("P3 11 13 1000 " + " ".join(str(level % 1000) for level in rgb.ravel()))
    for name in ("deep.ppm", "words.ppm"):
        assert [note[:27] for note in RowFile.open(tmp_path / name).notes] == ["has more than 8 bits a chan"]
    (tmp_path / "grey.pgm").write_bytes(b"P5 11 13 65535 " + rgb[..., 0].tobytes())
    (tmp_path / "usual.ppm").write_bytes(b"P6 11 13 255 " + EIGHT[..., :3].tobytes())
    assert RowFile.open(tmp_path / "grey.pgm").notes == RowFile.open(tmp_path / "usual.ppm").notes == ()


# -- YCbCr of which several pixels share their colours


def in_units(y: NDArray[Any], colours: NDArray[Any], across: int, down: int) -> bytes:
    """YCbCr as TIFF 6.0 arranges it, section 21: the brightness of some pixels, then the colours that they share."""
    height, width = colours.shape[0] * down, colours.shape[1] * across
    filled = np.pad(y, ((0, height - y.shape[0]), (0, width - y.shape[1])), mode="edge")
    blocks = filled.reshape(height // down, down, width // across, across).transpose(0, 2, 1, 3)
    return np.concatenate([blocks.reshape(*colours.shape[:2], -1), colours], axis=2).tobytes()


def to_rgb(y: NDArray[Any], colours: NDArray[Any]) -> NDArray[Any]:
    """By ITU-R BT.601, full range: not yet rounded."""
    red, green, blue = 0.299, 0.587, 0.114
    cb, cr = np.moveaxis(colours.astype(float) - 128, 2, 0)
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return np.stack([r, (y - red * r - blue * b) / green, b], axis=2).clip(0, 255)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2)])
def test_ycbcr_of_shared_colours(tmp_path: Path, across: int, down: int, compressed: bool) -> None:
    y = RANDOM.integers(16, 236, (13, 11)).astype(np.uint8)
    colours = RANDOM.integers(90, 166, (-(-13 // down), -(-11 // across), 2)).astype(np.uint8)
    raw = in_units(y, colours, across, down)
    expected = to_rgb(y, colours.repeat(down, axis=0).repeat(across, axis=1)[:13, :11])
    more = [(530, 3, [across, down]), *([(259, 3, [8])] if compressed else [])]
    path = tmp_path / "x.tif"
    three = np.zeros((13, 11, 3), np.uint8)
    write_tiff(path, three, photometric=6, raw=zlib.compress(raw) if compressed else raw, more=more)
    for pixels in (whole(path), by_rows(path)):
        assert np.abs(pixels - expected).max() <= 1
    write_tiff(path, three, photometric=6, raw=zlib.compress(raw[:-1]) if compressed else raw[:-1], more=more)
    for read in (read_image, RowFile.open):
        with pytest.raises(InvalidInput, match=rf"is damaged \(strip 0.* {len(raw) - 1} of {len(raw)} bytes"):
            read(path)


def test_ycbcr_shares_colours_by_four_where_nothing_is_said(tmp_path: Path) -> None:
    y, colours = EIGHT[..., 0], RANDOM.integers(90, 166, (7, 6, 2)).astype(np.uint8)
    raw = in_units(y, colours, 2, 2)
    write_tiff(tmp_path / "x.tif", EIGHT[..., :3], photometric=6, raw=raw)
    expected = to_rgb(y, colours.repeat(2, axis=0).repeat(2, axis=1)[:13, :11])
    assert np.abs(read_image(tmp_path / "x.tif") - expected).max() <= 1


def test_ycbcr_as_long_as_its_pixels_shares_none(tmp_path: Path) -> None:
    """Earlier versions of Pillow wrote so, and left the tag out."""
    y, colours = EIGHT[..., 0], RANDOM.integers(90, 166, (13, 11, 2)).astype(np.uint8)
    write_tiff(tmp_path / "x.tif", np.dstack([y, colours]), photometric=6)
    for pixels in (whole(tmp_path / "x.tif"), by_rows(tmp_path / "x.tif")):
        assert np.abs(pixels - to_rgb(y, colours)).max() <= 1.5  # Pillow converts in whole numbers


def test_ycbcr_of_shared_colours_that_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    """libtiff knows neither planes of several sizes nor all numbers, and of 4 x 4 makes other colours at edges."""
    path = tmp_path / "x.tif"
    for planes, shared in ((True, [2, 2]), (False, [1, 4]), (False, [4, 4])):
        write_tiff(path, EIGHT[..., :3], photometric=6, planes=planes, more=[(530, 3, shared)])
        for read in (read_image, RowFile.open):
            with pytest.raises(InvalidInput, match=r"x\.tif: its pixels are YCbCr of which . x . share their colours"):
                read(path)


# -- numbers that Pillow or libvips take for others


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_floating_numbers_have_the_order_of_their_bytes(tmp_path: Path, big_endian: bool, compressed: bool) -> None:
    """Turned round, numbers of few digits are nearly zero: a black picture."""
    unit = np.linspace(0, 1, 12, dtype=np.float16).astype(np.float32).reshape(3, 4)
    raw = zlib.compress(unit.astype(">f4" if big_endian else "<f4").tobytes()) if compressed else None
    more = [(259, 3, [8])] if compressed else []
    write_tiff(tmp_path / "in.tif", unit, big_endian=big_endian, raw=raw, more=more)
    assert np.array_equal(read_image(tmp_path / "in.tif")[..., 0], np.rint(unit * 255))


@pytest.mark.parametrize("dtype", [">i2", ">i4"])
def test_whole_numbers_that_are_refused_are_told_as_they_are(tmp_path: Path, dtype: str) -> None:
    levels = np.array([[3, 300], [77, 1000]], dtype)
    raw = zlib.compress(levels.tobytes())
    write_tiff(tmp_path / "in.tif", levels, big_endian=True, raw=raw, more=[(259, 3, [8])])
    with pytest.raises(InvalidInput, match="here from 3 to 1,000"):
        read_image(tmp_path / "in.tif")


@pytest.mark.parametrize("bits", [10, 12])
def test_white_of_an_avif_is_white(tmp_path: Path, bits: int) -> None:
    """libvips fills up the lower bits of 16 with zeros."""
    vips = pytest.importorskip("pyvips", reason="Pillow gives 8 bits of it")
    levels = np.full((16, 16, 3), 65535, np.uint16)
    levels[:, 8:] = 0
    vips.Image.new_from_array(levels).copy(interpretation="rgb16").heifsave(
        str(tmp_path / "in.avif"), compression="av1", lossless=True, bitdepth=bits
    )
    made = np.concatenate(list(RowFile.open(tmp_path / "in.avif").bands(4)))
    assert made.dtype == np.uint16 and np.array_equal(made, levels)


@pytest.mark.parametrize("photometric", [5, 6, 8, 34892])
@pytest.mark.parametrize("read", [read_image, RowFile.open])
def test_sixteen_bits_are_rgb_or_grey(tmp_path: Path, read: Callable[[Path], object], photometric: int) -> None:
    """Both decoders would pass on YCbCr, and others, as they stand."""
    pytest.importorskip("pyvips", reason="Pillow does not read them at all")
    levels = np.full((4, 5, 3), (149 * 257, 43 * 257, 21 * 257), np.uint16)
    write_tiff(tmp_path / "in.tif", levels, photometric=photometric, more=[(530, 3, [1, 1])])
    with pytest.raises(InvalidInput, match=r"in\.tif: .*(is not handled|is wanted).*"):
        read(tmp_path / "in.tif")
