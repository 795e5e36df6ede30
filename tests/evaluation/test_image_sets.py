"""Test images: whatever a person has becomes pairs of HR and LR, and what does not fit is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.image_pairs import write_pairs
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.image_sets import (
    FACTORS,
    SCORED,
    SIDE,
    TestImage,
    calibration_image_set,
    find_scale,
    read_image_set,
    read_test_images,
)
from memsr_compiler.images.files import NamedImage, sample_photographs, write_image
from memsr_compiler.images.resize import resize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HR and LR of scale 2."""
    place = tmp_path_factory.mktemp("data")
    write_pairs(place)
    return place


@pytest.mark.parametrize(
    ("high", "low", "message"),
    [
        (None, None, "a: HR is a NoneType; want a NumPy array, uint8"),
        (np.zeros((4, 4), np.uint8), None, r"a: HR is uint8 of shape \(4, 4\); want uint8 in 0\.\.255, \(H, W, 3\)"),
        (np.full((4, 4, 3), np.nan), None, "a: HR is float64 of shape"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 3), np.int64), "a: LR is int64 of shape"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((0, 2, 3), np.uint8), r"a: LR is uint8 of shape \(0, 2, 3\)"),
        (
            np.zeros((4, 8, 3), np.uint8),
            np.zeros((2, 2, 3), np.uint8),
            "HR is 8x4 and LR 2x2, which is no whole factor",
        ),
        (np.zeros((2, 2, 3), np.uint8), np.zeros((4, 4, 3), np.uint8), "HR is 2x2 and LR 4x4, which is no whole"),
    ],
)
def test_what_is_no_pair(high: Any, low: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        TestImage("a", high, low)


@pytest.mark.parametrize(
    ("high", "scale", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), 0, "scale 0: want 2, 3 or 4"),
        (np.zeros((4, 4, 3), np.uint8), "2", "scale='2': want a whole number"),
        (np.zeros((4, 4, 3), np.uint8), 5, "a: is 4x4 pixels; give 5 a side or more"),
        (np.full((4, 4, 3), 0.5), 2, "a: HR is float64"),
    ],
)
def test_what_no_pair_can_be_made_of(high: Any, scale: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        TestImage.of("a", high, scale)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return sample_photographs()[0][:height, :width]


def same(one: TestImage, other: TestImage) -> bool:
    return np.array_equal(one.high, other.high) and np.array_equal(one.low, other.low)


def test_all_ways_of_giving_images_give_the_same(folder: Path) -> None:
    pairs = read_test_images(folder, 2)
    assert [image.name for image in pairs] == ["0.png", "1.png"] and all(image.scale == 2 for image in pairs)
    files = sorted((folder / "HR").iterdir())
    highs = [image.high for image in pairs]
    for images in (str(folder), folder / "HR", files, [str(f) for f in files], highs, pairs, [h / 255 for h in highs]):
        assert all(map(same, read_test_images(images, 2), pairs)), images
    for single in (files[0], highs[0], pairs[0]):
        (image,) = read_test_images(single, 2)
        assert same(image, pairs[0])
    assert len(read_test_images(None, 2)) == len(sample_photographs())


def test_networks_on_enlarged_images_get_2_3_and_4_in_turn_or_what_lr_shows(folder: Path, tmp_path: Path) -> None:
    images = read_test_images([picture(48, 60)] * 4, 1)
    assert [image.scale for image in images] == [*FACTORS, FACTORS[0]]
    assert [image.scale for image in read_test_images(folder, 1)] == [2, 2]
    for part, image in (("HR", picture(60, 60)), ("LR", resize(picture(60, 60), 1 / 3))):
        (tmp_path / part).mkdir()
        write_image(tmp_path / part / "a.png", image)
    assert [image.scale for image in read_test_images(tmp_path, 1)] == [3]


def test_hr_may_be_larger_by_less_than_the_scale(tmp_path: Path) -> None:
    for part, image in (("HR", picture(61, 60)), ("LR", resize(picture(60, 60), 1 / 2))):
        (tmp_path / part).mkdir()
        write_image(tmp_path / part / "a.png", image)
    (pair,) = read_test_images(tmp_path, 2)
    assert pair.high.shape == (60, 60, 3)
    write_image(tmp_path / "HR" / "a.png", picture(62, 60))
    with pytest.raises(InvalidInput, match=r"a\.png: HR is 60x62 and LR 30x30, which is not x2"):
        read_test_images(tmp_path, 2)


def test_grey_files_keep_one_channel_where_that_is_asked_for(tmp_path: Path) -> None:
    write_image(tmp_path / "grey.png", picture(20, 20)[..., 0])
    assert read_test_images(tmp_path, 2)[0].high.shape == (20, 20, 3)
    assert read_test_images(tmp_path, 2, keep_grey=True)[0].high.shape == (20, 20, 1)
    assert read_test_images(tmp_path / "grey.png", 2, keep_grey=True)[0].high.shape == (20, 20, 1)
    assert read_test_images(picture(20, 20)[..., 0], 2)[0].high.shape == (20, 20, 1)


def test_what_is_passed_over_is_named(tmp_path: Path) -> None:
    warnings: list[str] = []
    write_image(tmp_path / "good.png", picture(20, 20))
    write_image(tmp_path / "small.png", picture(5, 20))
    (tmp_path / "notes.txt").write_text("no image")
    assert read_image_set(tmp_path, 2, warn=warnings.append).words == f"1 image in {tmp_path}"
    assert re.fullmatch(r".*notes\.txt: not a readable image \(.*\)\..*; passed over", warnings.pop(0))
    assert warnings == [
        f"{tmp_path / 'small.png'}: is smaller than 6x6 pixels; passed over",
    ]
    assert len(read_test_images(tmp_path, 2)) == 2


def test_the_scale_is_found(folder: Path, tmp_path: Path) -> None:
    assert find_scale(folder) == find_scale(str(folder)) == 2
    assert find_scale(folder / "HR") is None and find_scale(None) is None
    for part in ("HR", "LR"):
        (tmp_path / part).mkdir()
    with pytest.raises(InvalidInput, match="no readable image"):
        find_scale(tmp_path)
    for part in ("HR", "LR"):
        write_image(tmp_path / part / "a.png", picture(20, 30))
    with pytest.raises(InvalidInput, match="HR is 30x20 and LR 30x20, not smaller"):
        find_scale(tmp_path)


def test_of_calibration_images_the_middle_of_the_first_is_scored() -> None:
    large = NamedImage("large", np.arange((SIDE + 2) * 8, dtype=np.uint8).reshape(SIDE + 2, 8, 1))
    chosen = calibration_image_set([large], 2)
    assert chosen.words == f"the calibration photographs, at most {SIDE}x{SIDE} pixels of each"
    assert np.array_equal(chosen.images[0].high, large.pixels[1:-1])
    several = calibration_image_set([NamedImage("small", picture(5, 40)), *[NamedImage("a", picture(12, 40))] * 24], 2)
    assert several.words == f"{SCORED} of 25 calibration photographs" and len(several.images) == SCORED - 1
    assert calibration_image_set(None, 2).words.startswith("5 of the photographs it is derived from")
    with pytest.raises(InvalidInput, match=r"none of the calibration photographs .*; give images of 6 pixels a side"):
        calibration_image_set([NamedImage("small", picture(4, 4))], 2)


def test_what_are_no_images(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pair = TestImage.of("a", picture(30, 30), 3)
    cases: tuple[tuple[object, str], ...] = (
        (tmp_path / "absent", "absent: is no folder"),
        (tmp_path / "empty", "no readable image"),
        ([], "no images"),
        (3, "image 1 is a int; want a folder"),
        ([torch.zeros(1, 3, 8, 8)], "image 1 is a Tensor"),
        (np.zeros((8, 8, 4), np.uint8), r"shape \(8, 8, 4\)"),
        (np.zeros((8, 8, 3), np.int64), "dtype int64"),
        (np.full((8, 8, 3), 200.0), "image 1: floating pixels from 200 to 200; give them in 0..1"),
        (np.full((8, 8, 3), -1.0), "floating pixels from -1 to -1"),
        (np.full((8, 8, 3), np.nan), "floating pixels from nan"),
        (np.zeros((1, 8, 3), np.uint8), "2 pixels a side or more"),
        ([pair], "a: HR is 30x30 and LR 10x10, which is not x2"),
    )
    for images, words in cases:
        with pytest.raises(InvalidInput, match=words):
            read_test_images(images, 2)  # type: ignore[arg-type]
    for scale in (0, -2, 1.5, "2"):
        with pytest.raises(InvalidInput, match=r"scale .*: want a whole number"):
            read_test_images(folder, scale)  # type: ignore[arg-type]
