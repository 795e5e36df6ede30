"""Image files and tensors: what comes back is what went in, and bad files are refused with a message."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import (
    crop_to_multiple,
    read_image,
    sample_photographs,
    to_image,
    to_tensor,
    to_uint8,
    write_image,
)

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_png_round_trip(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", PICTURE)
    assert np.array_equal(read_image(tmp_path / "a.png"), PICTURE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_float_images_are_in_0_to_1(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", PICTURE / 255)
    image = read_image(tmp_path / "a.png", dtype=np.float32)
    assert image.dtype == np.float32
    assert np.array_equal(image, PICTURE.astype(np.float32) / np.float32(255))
    write_image(tmp_path / "b.png", image)
    assert np.array_equal(read_image(tmp_path / "b.png"), PICTURE)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_grey_is_three_equal_channels_unless_kept(tmp_path: Path, shape: tuple[int, ...]) -> None:
    grey = PICTURE[..., :1]
    write_image(tmp_path / "a.png", grey.reshape(shape))
    assert np.array_equal(read_image(tmp_path / "a.png", keep_grey=True), grey)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.repeat(grey, 3, axis=2))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", keep_grey=True).ravel().tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "1", "LA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PICTURE).convert(mode).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").shape == PICTURE.shape


def test_transparency_is_dropped(tmp_path: Path) -> None:
    alpha = np.zeros((5, 7, 1), np.uint8)
    Image.fromarray(np.concatenate([PICTURE, alpha], axis=2)).save(tmp_path / "a.png")
    told: list[str] = []
    assert np.array_equal(read_image(tmp_path / "a.png", warn=told.append), PICTURE)
    assert len(told) == 1 and "a.png: is transparent in parts" in told[0]
    Image.fromarray(np.concatenate([PICTURE, alpha + 255], axis=2)).save(tmp_path / "b.png")
    read_image(tmp_path / "b.png", warn=told.append)
    read_image(tmp_path / "a.png", keep_alpha=True, warn=told.append)
    assert len(told) == 1


def test_the_camera_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show the stored picture rotated a quarter clockwise
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(PICTURE, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_it_is_applied_to_a_tiff_whose_pixels_stand_as_they_are(orientation: int, mode: str, tmp_path: Path) -> None:
    """Those that Pillow maps into memory it reads as if they were as wide as the turned picture, so as none at all."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(PICTURE)
    image = image if image.mode == mode else image.convert(mode)
    image.save(tmp_path / "a.tif")
    image.save(tmp_path / "turned.tif", exif=exif)
    upright = read_image(tmp_path / "a.tif").swapaxes(0, 1)
    upright = upright[::-1] if orientation in (7, 8) else upright
    upright = upright[:, ::-1] if orientation in (6, 7) else upright
    assert np.array_equal(read_image(tmp_path / "turned.tif"), upright)


def test_missing_foreign_and_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    for path in (tmp_path / "text.png", tmp_path / "empty.png", tmp_path / "missing.png", tmp_path):
        with pytest.raises(InvalidInput, match=path.name):
            read_image(path)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damage that it can read past
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "gif"])
def test_a_damaged_file_is_read_or_refused_but_never_crashes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_image(path, np.tile(PICTURE, (4, 4, 1)))
    good = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(good[: random.integers(1, len(good) + 1)])
        for _ in range(3):
            bad[random.integers(len(bad))] = random.integers(256)
        path.write_bytes(bad)
        with contextlib.suppress(InvalidInput):
            assert read_image(path).shape[2] == 3


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.png", PICTURE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InvalidInput, match="decompression bomb"):
        read_image(tmp_path / "a.png")


def test_reading_into_another_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="float64"):
        read_image(tmp_path / "a.png", dtype=np.float64)


@pytest.mark.parametrize("shape", [(5,), (5, 7, 2), (0, 7, 3), (1, 5, 7, 3)])
def test_writing_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="Give"):
        write_image(tmp_path / "a.png", np.zeros(shape))


@pytest.mark.parametrize("name", ["a.unknown", "a.psd", "no/such/folder/a.png"])
def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="not written"):
        write_image(tmp_path / name, PICTURE)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_older_file(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", PICTURE)
    with pytest.raises(InvalidInput, match="NaN"):
        write_image(tmp_path / "a.png", np.full((5, 7, 3), np.nan))
    assert np.array_equal(read_image(tmp_path / "a.png"), PICTURE)


def test_to_uint8_clips_and_rounds() -> None:
    assert to_uint8(np.array([-1, 0, 0.4 / 255, 0.6 / 255, 1, np.inf])).tolist() == [0, 0, 0, 1, 255, 255]
    with pytest.raises(InvalidInput, match="int64"):
        to_uint8(np.array([1]))


@given(height=st.integers(1, 5), width=st.integers(1, 5), colours=st.sampled_from([1, 3]), seed=st.integers(0, 9))
def test_tensors_round_trip(height: int, width: int, colours: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, colours), dtype=np.uint8)
    tensor = to_tensor(image)
    assert (tensor.shape, tensor.dtype) == ((1, colours, height, width), torch.float32)
    assert torch.equal(tensor[0, -1], torch.from_numpy(image[..., -1]) / 255)
    assert torch.equal(to_tensor(image.astype(np.float32) / np.float32(255)), tensor)
    for dtype in (torch.float32, torch.float64):
        assert np.array_equal(to_image(tensor.to(dtype)), image)
    assert np.array_equal(to_image(tensor[0]), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_tensors_share_no_memory_with_the_image(dtype: type) -> None:
    image: NDArray[Any] = np.zeros((2, 2), dtype)
    to_tensor(image).add_(1)
    assert not image.any()


def test_to_image_takes_one_image() -> None:
    for shape in ((2, 3, 4, 4), (4, 4)):
        with pytest.raises(InvalidInput, match="one image"):
            to_image(torch.zeros(shape))


@pytest.mark.parametrize("scale", [1, 3, 4])
def test_sample_photographs(scale: int) -> None:
    photographs = sample_photographs(scale=scale)
    assert len(photographs) >= 4
    for photograph in photographs:
        assert photograph.dtype == np.uint8
        assert photograph.ndim == 3
        assert photograph.shape[0] % scale == photograph.shape[1] % scale == 0
        assert min(photograph.shape[:2]) >= 297
        assert photograph.std() > 20  # a picture, not a blank


def test_crop_keeps_the_upper_left() -> None:
    assert np.array_equal(crop_to_multiple(PICTURE, 3), PICTURE[:3, :6])


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_it_is_said_that_the_first_frame_of_several_is_read(tmp_path: Path, kind: str) -> None:
    first, second = (Image.new("RGB", (5, 4), colour) for colour in ("red", "blue"))
    path, told = tmp_path / "moving", list[str]()
    first.save(path, kind, save_all=True, append_images=[second])
    assert np.abs(read_image(path, warn=told.append)[0, 0] - np.array([255, 0, 0])).max() < 3
    assert told == [f"{path}: has 2 pages or frames; the first is read"]
    first.save(path, kind)
    read_image(path, warn=told.append)
    assert len(told) == 1
