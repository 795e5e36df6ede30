"""Damaged image files: 300 mutations and 300 cuts of each kind are refused, or the format cannot tell."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.raw_images import RGB, write_png, write_tiff
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.decoding.damage import find_jpeg_fault, find_png_fault, find_webp_fault
from memsr_compiler.images.files import read_image, to_eight_bits
from memsr_compiler.images.libvips import read_bands
from memsr_compiler.images.streams import RowFile

NUMBER = 300
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "TIFF": ("x.tif", {}),
    "TIFF with LZW": ("x.tif", {"compression": "tiff_lzw"}),
    "TIFF with deflate": ("x.tif", {"compression": "tiff_adobe_deflate"}),
    "TIFF with JPEG": ("x.tif", {"compression": "jpeg"}),
    "TIFF with packbits": ("x.tif", {"compression": "packbits"}),
    "PNG": ("x.png", {}),
    "JPEG": ("x.jpg", {"quality": 85}),
    "progressive JPEG": ("x.jpg", {"quality": 85, "progressive": True}),
    "WebP": ("x.webp", {"quality": 85}),
    "lossless WebP": ("x.webp", {"lossless": True}),
}
TOLD: dict[str, dict[str, float]] = {  # the least part of mutations that somebody notices
    "TIFF": {"anywhere": 0, "outside of pixels": 0.5},
    "TIFF with LZW": {"anywhere": 0.1, "outside of pixels": 0.7},
    "TIFF with deflate": {"anywhere": 0.95, "outside of pixels": 0.7},
    "TIFF with JPEG": {"anywhere": 0.25, "outside of pixels": 0.4},
    "TIFF with packbits": {"anywhere": 0, "outside of pixels": 0.7},
    "PNG": {"anywhere": 1, "outside of pixels": 1},
    "JPEG": {"anywhere": 0.03, "outside of pixels": 0.2},
    "progressive JPEG": {"anywhere": 0.4, "outside of pixels": 0.4},
    "WebP": {"anywhere": 0.01, "outside of pixels": 0.01},
    "lossless WebP": {"anywhere": 0, "outside of pixels": 0.4},
}
CHECKED = ("PNG",)  # every byte of which stands under a checksum


def photograph(height: int = 96, width: int = 120) -> NDArray[np.uint8]:
    """Waves and some noise: what compresses, as photographs do, and fills several strips."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], axis=2) * 90 + 128
    noise = np.random.default_rng(0).integers(-12, 12, waves.shape)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def read_whole(path: Path) -> NDArray[Any] | None:
    with contextlib.suppress(InvalidInput):
        return read_image(path)
    return None


def read_by_rows(path: Path) -> NDArray[Any] | None:
    with contextlib.suppress(InvalidInput):
        return np.concatenate(list(RowFile.open(path).bands(32)))
    return None


@pytest.mark.filterwarnings("ignore")  # Pillow warns of metadata that it can do without
@pytest.mark.parametrize("kind", FORMATS)
def test_files_that_are_cut_off_are_refused(tmp_path: Path, kind: str) -> None:
    name, options = FORMATS[kind]
    path = tmp_path / name
    Image.fromarray(photograph()).save(path, **options)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for length in (len(content) - 1, *random.integers(0, len(content), NUMBER - 1)):
        path.write_bytes(content[:length])
        assert read_whole(path) is None and read_by_rows(path) is None, f"{length} of {len(content)} bytes"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["anywhere", "outside of pixels"])
@pytest.mark.parametrize("kind", FORMATS)
def test_files_with_another_byte_are_refused_or_the_same_to_both(tmp_path: Path, kind: str, part: str) -> None:
    """Where nothing tells, in pixels that are stored as they are say, both readers see the same."""
    name, options = FORMATS[kind]
    path = tmp_path / name
    Image.fromarray(photograph()).save(path, **options)
    content, good = path.read_bytes(), read_image(path)
    places = range(len(content)) if part == "anywhere" else around_pixels(path)
    random = np.random.default_rng(1)
    refused = 0
    for _ in range(NUMBER):
        bad = bytearray(content)
        bad[random.choice(places)] ^= int(random.integers(1, 256))
        path.write_bytes(bad)
        whole, by_rows = read_whole(path), read_by_rows(path)
        assert (whole is None) == (by_rows is None)
        refused += whole is None
        if whole is not None and by_rows is not None:
            colours = to_eight_bits(by_rows)
            assert np.array_equal(whole, colours.repeat(3, axis=2) if colours.shape[2] == 1 else colours)
            assert kind not in CHECKED or np.array_equal(whole, good)
    assert refused >= TOLD[kind][part] * NUMBER


def around_pixels(path: Path) -> list[int]:
    """Bytes of the file that hold no pixels: all of a TIFF but its strips, the first of another."""
    with Image.open(path) as file:
        if file.format != "TIFF":
            return list(range(min(640, path.stat().st_size)))
        strips = zip(file.tag_v2[273], file.tag_v2[279], strict=True)
        pixels = {i for start, length in strips for i in range(start, start + length)}
    return [i for i in range(path.stat().st_size) if i not in pixels]


# -- what is missing, one by one


def test_a_checksum_of_any_chunk_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    write_png(path, photograph(8, 8), bits=8, colour=RGB, before=[(b"tEXt", b"Comment\0words")])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"words", b"wards"))
    for read in (read_image, RowFile.open):
        with pytest.raises(
            InvalidInput, match=r"x\.png: is damaged \(the CRC of its chunk 'tEXt' at byte 33 is wrong\)"
        ):
            read(path)


def test_strips_beyond_the_end_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    write_tiff(path, photograph(40, 30), photometric=2)
    content = path.read_bytes()
    cut = content[:-1]
    short = content.replace(struct.pack("<HHII", 279, 4, 1, 3600), struct.pack("<HHII", 279, 4, 1, 3599))
    for bad, message in ((cut, "strip 0 lies beyond its end"), (short, "strip 0 has 3,599 of 3,600 bytes")):
        path.write_bytes(bad)
        for read in (read_image, RowFile.open):
            with pytest.raises(InvalidInput, match=rf"x\.tif: is damaged \({message}\); get it anew"):
                read(path)


def test_a_strip_without_its_length_is_read(tmp_path: Path) -> None:
    """Some old programs leave StripByteCounts out."""
    path = tmp_path / "x.tif"
    pixels = photograph(40, 30)
    write_tiff(path, pixels, photometric=2)
    path.write_bytes(path.read_bytes().replace(struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 60000, 4, 1)))
    assert np.array_equal(read_image(path), pixels)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_whole_files_are_read_with_tiles_and_private_tags(tmp_path: Path, compression: str) -> None:
    """What is unusual, and no damage."""
    import pyvips

    pixels = photograph(70, 90)
    options = {} if compression == "raw" else {"compression": compression}
    Image.fromarray(pixels).save(tmp_path / "x.tif", tiffinfo={65000: "ours"}, dpi=(72, 72), **options)
    kind = {"raw": "none", "tiff_lzw": "lzw", "tiff_adobe_deflate": "deflate", "jpeg": "jpeg"}[compression]
    image = pyvips.Image.new_from_array(pixels)
    for name, made in (("tiles", {"tile": True, "tile_width": 32, "tile_height": 16}), ("big", {"bigtiff": True})):
        image.tiffsave(str(tmp_path / f"{name}.tif"), compression=kind, **made)
    for name in ("x", "tiles", "big"):
        whole, by_rows = read_whole(tmp_path / f"{name}.tif"), read_by_rows(tmp_path / f"{name}.tif")
        assert whole is not None and by_rows is not None and np.array_equal(whole, by_rows)
        assert compression == "jpeg" or np.array_equal(whole, pixels)


@pytest.mark.filterwarnings("ignore")
def test_a_tile_that_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    """libvips leaves it black, and does not call that an error."""
    import pyvips

    path = tmp_path / "tiles.tif"
    options = {"compression": "lzw", "tile": True, "tile_width": 32, "tile_height": 16}
    pyvips.Image.new_from_array(photograph(70, 90)).tiffsave(str(path), **options)
    content = path.read_bytes()
    with Image.open(path) as file:
        starts, lengths = file.tag_v2[324], file.tag_v2[325]
    start, end = starts[1] + 2, starts[1] + lengths[1]
    for fault in (b"\xff", b"\x7f"):  # codes that its table does not have
        path.write_bytes(content[:start] + fault * (end - start) + content[end:])
        assert read_whole(path) is None and read_by_rows(path) is None


@pytest.mark.parametrize(
    ("number", "words"),
    [(34676, "is damaged"), (34887, "cannot be decoded by this"), (34712, "cannot be decoded by this")],
)
def test_a_compression_that_libvips_lacks_is_told(tmp_path: Path, number: int, words: str) -> None:
    """SGILOG, of other pixels; LERC and JPEG 2000, which Pillow does not know either: tiles of these came out black."""
    import pyvips

    path = tmp_path / "tiles.tif"
    pyvips.Image.new_from_array(photograph(70, 90)).tiffsave(str(path), compression="lzw", tile=True)
    lzw, unknown = (struct.pack("<HHIHH", 259, 3, 1, code, 0) for code in (5, number))
    assert path.read_bytes().count(lzw) == 1
    path.write_bytes(path.read_bytes().replace(lzw, unknown))
    assert read_by_rows(path) is None
    with pytest.raises(InvalidInput, match=rf"tiles\.tif: {words}"):
        read_image(path)


def test_what_libvips_said_of_another_file_is_not_said_again(tmp_path: Path) -> None:
    """It keeps what it said and raised nothing for, until somebody clears it."""
    import pyvips

    for name, number in (("lerc", 34887), ("jp2", 34712)):
        path = tmp_path / f"{name}.tif"
        pyvips.Image.new_from_array(photograph(70, 90)).tiffsave(str(path), compression="lzw", tile=True)
        lzw, unknown = (struct.pack("<HHIHH", 259, 3, 1, code, 0) for code in (5, number))
        path.write_bytes(path.read_bytes().replace(lzw, unknown))
        read_by_rows(path)
    for name, words in (("lerc", "LERC"), ("jp2", "34712"), ("lerc", "LERC")):
        with pytest.raises(InvalidInput, match=rf"{name}\.tif: cannot be decoded by this libvips.*{words}"):
            read_image(tmp_path / f"{name}.tif")


def test_jpeg_ls_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "whole.jpg"
    path.write_bytes(bytes.fromhex("ffd8fff7000b080004000401011100ffda0008010100000000000001ff7fffd9"))
    with pytest.raises(InvalidInput, match=r"whole\.jpg: is JPEG-LS"):
        read_image(path)


def test_heic_is_not_called_damaged_where_its_decoder_is_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As iPhones write it."""
    import pyvips

    said = "heif: Error while loading plugin: Support for this compression format has not been built in: HEVC"

    def fail(*_: object) -> None:
        raise pyvips.Error("unable to load", said)

    image = pyvips.Image.new_from_array(photograph(8, 8))
    monkeypatch.setattr(pyvips.Region, "fetch", fail)
    with pytest.raises(InvalidInput, match=r"a\.heic: cannot be decoded by this libvips.*HEVC"):
        next(read_bands("a.heic", image, 8))


def test_what_follows_an_image_is_no_damage(tmp_path: Path) -> None:
    """Cameras and editors append to files."""
    for kind in ("PNG", "JPEG", "WebP"):
        name, options = FORMATS[kind]
        path = tmp_path / name
        Image.fromarray(photograph()).save(path, **options)
        path.write_bytes(path.read_bytes() + b"more" * 9)
        assert read_whole(path) is not None and read_by_rows(path) is not None


@pytest.mark.parametrize(
    "find", [lambda content: find_png_fault(io.BytesIO(content)), find_jpeg_fault, find_webp_fault]
)
def test_any_bytes_have_a_fault_or_none(find: Callable[[bytes], str | None]) -> None:
    random = np.random.default_rng(0)
    starts = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF\x20\0\0\0WEBP")
    for start in starts:
        for length in range(60):
            assert find(start + random.bytes(length)) != ""


def test_a_palette_that_is_not_there_is_told(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", np.zeros((4, 4), np.uint8), bits=8, colour=3)
    with pytest.raises(InvalidInput, match=r"x\.png: not a readable image \(its parts contradict each other\)"):
        read_image(tmp_path / "x.png")
