"""Tags of a TIFF, read by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.raw_images import append_page, write_tiff
from PIL import Image

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import read_image
from memsr_compiler.images.tiff.tags import EXTRA, PLANAR, SAMPLES, count_pages, read_numbers

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
REDUCED, MASK = [(254, 4, [1])], [(254, 4), (256, 4), (257, 4), (258, 1), (259, 1), (262, 4), (273, 8), (279, 4)]


@pytest.mark.parametrize("big_endian", [False, True])
def test_what_is_inside_an_entry_and_what_is_elsewhere(big_endian: bool, tmp_path: Path) -> None:
    pixels = np.zeros((3, 4, 6), np.uint8)
    write_tiff(tmp_path / "a.tif", pixels, photometric=2, extra=[2, 0, 0], planes=True, big_endian=big_endian)
    assert [read_numbers(tmp_path / "a.tif", tag) for tag in (SAMPLES, PLANAR, EXTRA)] == [(6,), (2,), (2, 0, 0)]
    assert read_numbers(tmp_path / "a.tif", 274) == ()


def test_bigtiff(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 4, 4), np.uint8)).save(tmp_path / "a.tif", big_tiff=True)
    assert (tmp_path / "a.tif").read_bytes()[2] == 43
    assert [read_numbers(tmp_path / "a.tif", tag) for tag in (SAMPLES, EXTRA)] == [(4,), (2,)]


def test_pages_are_counted_whatever_they_are(tmp_path: Path) -> None:
    """A mask as GDAL keeps it, which Pillow does not know; it refused the first page too."""
    path = tmp_path / "a.tif"
    write_tiff(path, PIXELS, photometric=2)
    assert count_pages(path) == 1
    append_page(path, MASK)
    assert count_pages(path) == 2
    told: list[str] = []
    assert np.array_equal(read_image(path, warn=told.append), PIXELS)
    assert told == [f"{path}: has 2 pages or frames; the first is read"]


@pytest.mark.parametrize("large", [False, True])
def test_many_pages(tmp_path: Path, large: bool) -> None:
    pages = [Image.fromarray(PIXELS)] * 5
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], big_tiff=large)
    assert count_pages(tmp_path / "a.tif") == 5


def test_pages_that_lead_back_or_out_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_tiff(path, PIXELS, photometric=2)
    append_page(path, MASK)
    content = path.read_bytes()
    path.write_bytes(content[:-4] + struct.pack("<I", 8))
    assert count_pages(path) == 2 and np.array_equal(read_image(path), PIXELS)
    for cut in (
        content[:-1],
        content[:12] + bytes(8),
        b"II+\0\x08\0\0\0" + b"\xff" * 8,
        b"II+\0\x08\0\0\0" + b"\x70" * 8,
    ):
        path.write_bytes(cut)
        with pytest.raises(InvalidInput, match=r"a\.tif: is damaged \(its page . lies beyond its end\)"):
            count_pages(path)
    path.write_bytes(content[:-1])
    with pytest.raises(InvalidInput, match=r"a\.tif: is damaged \(its page 2 lies beyond its end\)"):
        read_image(path)


@pytest.mark.parametrize("by", ["a second page", "SubIFDs"])
def test_a_small_picture_of_another_is_not_read_for_it(tmp_path: Path, by: str) -> None:
    """As raw files of cameras have it."""
    path = tmp_path / "a.dng"
    write_tiff(path, PIXELS, photometric=2, more=[*REDUCED, (330, 4, [8])] if by == "SubIFDs" else REDUCED)
    if by != "SubIFDs":
        append_page(path, MASK)
    with pytest.raises(InvalidInput, match=r"a\.dng: its first page is a small picture of another one .* develop it"):
        read_image(path)


@pytest.mark.parametrize("more", [[(330, 4, [8])], [(254, 4, [0]), (330, 4, [8])], REDUCED])
def test_a_whole_picture_with_small_ones_and_a_small_one_alone_are_read(
    tmp_path: Path, more: list[tuple[int, int, list[int]]]
) -> None:
    write_tiff(tmp_path / "a.tif", PIXELS, photometric=2, more=more)
    assert np.array_equal(read_image(tmp_path / "a.tif"), PIXELS)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(("code", "depth"), [(4, 2), (3, 2), (4, 1)])
def test_a_body_of_slices_is_no_picture(code: int, depth: int, big_endian: bool, tmp_path: Path) -> None:
    """The first of them was read."""
    path = tmp_path / "a.tif"
    slices = np.concatenate([PIXELS, PIXELS[::-1]]).tobytes()
    write_tiff(path, PIXELS, photometric=2, big_endian=big_endian, raw=slices, more=[(32997, code, [depth])])
    if depth > 1:
        with pytest.raises(
            InvalidInput, match=r"a\.tif: its first page is a body of 2 slices .ImageDepth., .* save each"
        ):
            read_image(path)
    else:
        assert np.array_equal(read_image(path), PIXELS)


@pytest.mark.parametrize(("compression", "refused"), [(32773, True), (5, False)])
def test_a_predictor_beside_packbits_is_refused(compression: int, refused: bool, tmp_path: Path) -> None:
    """libtiff passes over it, other programs undo it: pixels were wrong without a word."""
    path = tmp_path / "a.tif"
    Image.fromarray(PIXELS).save(path, compression="tiff_lzw", tiffinfo={317: 2})
    lzw, other = (struct.pack("<HHIHH", 259, 3, 1, code, 0) for code in (5, compression))
    assert path.read_bytes().count(lzw) == 1 and read_numbers(path, 317) == (2,)
    path.write_bytes(path.read_bytes().replace(lzw, other))
    if refused:
        with pytest.raises(InvalidInput, match="compressed by PackBits and it tells of a predictor"):
            read_image(path)
    else:
        assert np.array_equal(read_image(path), PIXELS)
