"""ICC profiles that Pillow does not give: kept where they are whole and fit the pixels, else told of."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.raw_images import write_tiff
from numpy.typing import NDArray
from PIL import Image, ImageCms, features

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler.images.decoding.profiles import read_profile
from memsr_compiler.images.streams import RowFile

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMATS = {".jp2": "JPEG2000", ".bmp": "BMP", ".gif": "GIF"}


def write_jpeg_2000(path: Path, profile: bytes) -> None:
    Image.fromarray(PIXELS).save(path)
    content = path.read_bytes()
    old, outer = content.index(b"colr") - 4, content.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", content, old)
    new = struct.pack(">I4s3B", 11 + len(profile), b"colr", 2, 0, 0) + profile
    (whole,) = struct.unpack_from(">I", content, outer)
    head = content[:outer] + struct.pack(">I", whole + len(new) - length) + content[outer + 4 : old]
    path.write_bytes(head + new + content[old + length :])


def write_bmp(path: Path, profile: bytes) -> None:
    rows = b"".join(row[:, ::-1].tobytes() + bytes(-3 * 10 % 4) for row in PIXELS[::-1])
    head = struct.pack("<IiiHHIIiiII", 124, 10, 12, 1, 24, 0, len(rows), 0, 0, 0, 0) + bytes(16) + b"DEBM" + bytes(48)
    head += struct.pack("<4I", 4, 124 + len(rows), len(profile), 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 138 + len(rows) + len(profile), 0, 0, 138) + head + rows + profile)


def write_gif(path: Path, profile: bytes) -> None:
    Image.fromarray(PIXELS).quantize(64).save(path)
    content = path.read_bytes()
    at = 13 + 3 * (2 << (content[10] & 7))
    pieces = [profile[i : i + 255] for i in range(0, len(profile), 255)]
    blocks = b"".join(bytes([len(piece)]) + piece for piece in pieces)
    comment = b"!\xfe\x05words\x00"
    path.write_bytes(content[:at] + comment + b"!\xff\x0bICCRGBG1012" + blocks + b"\0" + content[at:])


Write = Callable[[Path, bytes], None]
CASES = [
    pytest.param(
        ".jp2",
        write_jpeg_2000,
        marks=pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow lacks JPEG 2000"),
    ),
    (".bmp", write_bmp),
    (".gif", write_gif),
]


def double(bands: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    for band in bands:
        yield band.repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.parametrize(("suffix", "write"), CASES)
def test_a_profile_stays(tmp_path: Path, suffix: str, write: Write) -> None:
    write(tmp_path / f"in{suffix}", PROFILE)
    image = RowFile.open(tmp_path / f"in{suffix}")
    image.save(tmp_path / "out.png", double(image.bands(5)), 2)
    assert image.notes == ()
    with Image.open(tmp_path / "out.png") as made:
        assert made.info["icc_profile"] == PROFILE


@pytest.mark.parametrize(("suffix", "write"), CASES)
@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (PROFILE[:200], "damaged"),
        (b"none", "damaged"),
        (PROFILE[:16] + b"CMYK" + PROFILE[20:], "of other colours, CMYK,"),
    ],
)
def test_a_profile_that_is_not_kept_is_told(
    tmp_path: Path, suffix: str, write: Write, profile: bytes, words: str
) -> None:
    write(tmp_path / f"in{suffix}", profile)
    image = RowFile.open(tmp_path / f"in{suffix}")
    assert image.profile is None and len(image.notes) == 1
    assert words in image.notes[0] and image.notes[0].endswith("not kept")


@pytest.mark.parametrize(("suffix", "write"), CASES)
def test_files_that_end_anywhere_have_a_profile_or_none(tmp_path: Path, suffix: str, write: Write) -> None:
    path = tmp_path / f"in{suffix}"
    write(path, PROFILE)
    content, random = path.read_bytes(), np.random.default_rng(0)
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        assert read_profile(path, FORMATS[suffix], grey=False)[0] in (None, PROFILE)
    for _ in range(200):
        bad = bytearray(content)
        for at in random.integers(0, min(len(content), 300), 3):
            bad[at] = random.integers(0, 256)
        path.write_bytes(bad)
        read_profile(path, FORMATS[suffix], grey=False)


@pytest.mark.parametrize(
    ("primaries", "told"),
    [
        ((0.64, 0.33, 0.03, 0.30, 0.60, 0.10, 0.15, 0.06, 0.79), False),  # shares of sRGB's
        ((0.4124, 0.2126, 0.0193, 0.3576, 0.7152, 0.1192, 0.1805, 0.0722, 0.9505), False),  # XYZ of the same
        ((0.64, 0.33, 0.03, 0.21, 0.71, 0.08, 0.15, 0.06, 0.79), True),  # of Adobe RGB
        ((0.0,) * 9, False),
    ],
)
def test_primaries_of_a_bmp_are_told(tmp_path: Path, primaries: tuple[float, ...], told: bool) -> None:
    write_bmp(tmp_path / "in.bmp", PROFILE)
    content = bytearray((tmp_path / "in.bmp").read_bytes())
    content[70:110] = struct.pack("<I9i", 0, *(round(share * (1 << 30)) for share in primaries))
    (tmp_path / "in.bmp").write_bytes(content)
    image = RowFile.open(tmp_path / "in.bmp")
    words = "says which red, green and blue it means, other than sRGB's, which is not kept"
    assert image.notes == ((words,) if told else ()) and image.profile is None


@pytest.mark.parametrize("words", ["", "damaged", "of other colours, CMYK,"])
def test_a_profile_of_a_tiff_of_unusual_numbers_is_looked_at(tmp_path: Path, words: str) -> None:
    content = {"": PROFILE, "damaged": PROFILE[:200]}.get(words, PROFILE[:16] + b"CMYK" + PROFILE[20:])
    numbers = [*struct.unpack(f"<{len(content) // 4}I", content)]
    path = tmp_path / "in.tif"
    write_tiff(path, np.zeros((6, 8, 3), np.uint16), photometric=2, bits=12, raw=bytes(216), more=[(34675, 4, numbers)])
    entry = struct.pack("<HHI", 34675, 4, len(numbers))
    path.write_bytes(path.read_bytes().replace(entry, struct.pack("<HHI", 34675, 7, len(content))))
    image = RowFile.open(path)
    assert image.profile == (None if words else PROFILE) and len(image.notes) == bool(words)
    assert words in "".join(image.notes)


@pytest.mark.parametrize("suffix", FORMATS)
def test_without_a_profile_nothing_is_said(tmp_path: Path, suffix: str) -> None:
    if suffix == ".jp2" and not features.check("jpg_2000"):
        pytest.skip("this Pillow lacks JPEG 2000")
    Image.fromarray(PIXELS).save(tmp_path / f"in{suffix}")
    assert read_profile(tmp_path / f"in{suffix}", FORMATS[suffix], grey=False) == (None, "")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (b"\x00\x01" + PROFILE[2:], "damaged"),  # of which libvips made "unable to write to target"
        (PROFILE[:16] + b"GRAY" + PROFILE[20:], "of other colours, GRAY,"),
    ],
)
def test_a_profile_that_does_not_fit_is_told_by_rows_too(
    tmp_path: Path, suffix: str, profile: bytes, words: str
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / f"in{suffix}", icc_profile=profile)
    image = RowFile.open(tmp_path / f"in{suffix}")
    if image.notes or suffix != ".png":  # of a damaged one in a PNG libvips makes none
        assert words in image.notes[0] and image.notes[0].endswith("not kept")
    image.save(tmp_path / "out.png", double(image.bands(5)), 2)
    with Image.open(tmp_path / "out.png") as made:
        assert "icc_profile" not in made.info


def test_a_grey_profile_is_told_to_be_lost_in_webp(tmp_path: Path) -> None:
    grey = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "in.jpg", icc_profile=grey)
    image = RowFile.open(tmp_path / "in.jpg")
    assert image.profile == grey and not image.warnings(tmp_path / "out.png")
    assert "ICC profile, for grey, is not kept in .webp" in image.warnings(tmp_path / "out.webp")[0]


def test_a_png_may_have_a_large_profile(tmp_path: Path) -> None:
    """It was refused, also where it was written so by memsrc."""
    large = struct.pack(">I", len(PROFILE) + 2_000_000) + PROFILE[4:] + bytes(2_000_000)
    Image.fromarray(PIXELS).save(tmp_path / "in.png", icc_profile=large)
    image = RowFile.open(tmp_path / "in.png")
    assert image.profile == large and np.array_equal(next(image.bands(12)), PIXELS)
