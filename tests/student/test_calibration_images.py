"""Calibration images: whatever a person has, as networks are given it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.levels import noise
from numpy.typing import NDArray
from PIL import Image

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import NamedImage
from memsr_compiler.student.calibration_images import (
    calibration_inputs,
    network_inputs,
    photographs_as_inputs,
    require_images,
)


def photograph(height: int = 24, width: int = 36, seed: int = 0) -> NDArray[np.uint8]:
    return (noise(height, width, 3, seed=seed).numpy() * 255).astype(np.uint8)


def inputs(images: Any, *, scale: int = 2, channels: int = 3) -> list[torch.Tensor]:
    return calibration_inputs(images, scale=scale, channels=channels, input_range=(0.0, 1.0))


def test_photographs_as_networks_are_given_them() -> None:
    photograph = (noise(24, 36, 3).numpy() * 255).astype(np.uint8)
    (rgb,) = network_inputs(photograph, scale=2, channels=3, input_range=(0.0, 255.0))
    assert rgb.shape == (1, 3, 12, 18) and 1 < float(rgb.max()) <= 255
    enlarged = network_inputs(photograph, scale=1, channels=1, input_range=(0.0, 1.0))
    assert [tuple(x.shape) for x in enlarged] == [(1, 1, 24, 36)] * 3
    assert not torch.equal(enlarged[0], enlarged[2])
    (one,) = network_inputs(photograph, scale=1, channels=1, input_range=(0.0, 1.0), every_factor=False)
    assert any(torch.equal(one, x) for x in enlarged)
    with pytest.raises(InvalidInput, match="takes 5 channels"):
        network_inputs(photograph, scale=2, channels=5, input_range=(0.0, 1.0))
    with pytest.raises(InvalidInput, match="too small"):
        network_inputs(photograph[:1], scale=2, channels=3, input_range=(0.0, 1.0))


def test_arrays_files_and_folders_are_the_same_photographs(tmp_path: Path) -> None:
    pixels = [photograph(seed=i) for i in range(3)]
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    want = [network_inputs(p, scale=2, channels=3, input_range=(0.0, 1.0))[0] for p in pixels]
    files = sorted(tmp_path.iterdir())
    for images in (pixels, tuple(pixels), files, [str(f) for f in files], tmp_path, str(tmp_path)):
        found = inputs(images)
        assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))
    for single in (pixels[0], files[0], str(files[0])):
        assert torch.equal(inputs(single)[0], want[0])
    assert len(inputs(pixels[0], scale=1)) == 3  # by every factor, where there are few


def test_tensors_are_taken_as_they_are_one_or_several() -> None:
    x = noise(2, 3, 5, 4)
    assert torch.equal(inputs(x)[0], x)
    assert [tuple(t.shape) for t in inputs([x, x[:1]])] == [(2, 3, 5, 4), (1, 3, 5, 4)]
    mixed = inputs([x, photograph()])
    assert torch.equal(mixed[0], x) and mixed[1].shape == (1, 3, 12, 18)


def test_what_a_folder_has_besides_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(photograph()).save(tmp_path / "large.png")
    Image.fromarray(photograph(1, 1)).save(tmp_path / "small.png")
    (tmp_path / "notes.txt").write_text("none")
    with caplog.at_level(logging.WARNING):
        assert len(inputs(tmp_path)) == 1
    assert "small.png" in caplog.text and "notes.txt" in caplog.text
    (tmp_path / "large.png").unlink()
    with pytest.raises(InvalidInput, match="no image in it is large enough"):
        inputs(tmp_path)
    (tmp_path / "small.png").unlink()
    with pytest.raises(InvalidInput, match="no readable image"):
        inputs(tmp_path)


def test_lr_beside_its_photograph_is_no_photograph(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Students were fitted to it too, made smaller once more."""
    Image.fromarray(photograph()).save(tmp_path / "a.png")
    Image.fromarray(photograph()[::2, ::2]).save(tmp_path / "ax2.png")
    with caplog.at_level(logging.WARNING):
        assert len(inputs(tmp_path)) == 1
    assert caplog.messages == [f"{tmp_path}: LR of others in it is passed over: ax2.png"]


def test_a_folder_of_folders_names_the_first_that_holds_images(tmp_path: Path) -> None:
    for name in ("CSV", "HR", "LR"):
        (tmp_path / name).mkdir()
    for name in ("HR", "LR"):
        Image.fromarray(photograph()).save(tmp_path / name / "0.png")
    with pytest.raises(InvalidInput, match=f"give a folder of PNG or JPEG files, {tmp_path / 'HR'} perhaps$"):
        inputs(tmp_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there are no calibration images"),
        (None, "image 0: is a NoneType"),
        ([noise(1, 3, 4, 4), 5], "image 1: is a int"),
        (noise(3, 4, 4), r"image 0: torch.float64 of shape \(3, 4, 4\)"),
        (noise(4, 4).numpy(), r"array of float64, shape \(4, 4\)"),
        (np.zeros((4, 4), np.uint8), r"array of uint8, shape \(4, 4\)"),
        ("missing.png", "missing.png: is no image file"),
        (["missing.png"], "missing.png: is no image file"),
        ([Path()], "is no image file"),
        ({"a": 1}, "is a dict"),
    ],
)
def test_what_is_no_calibration_image(images: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        require_images(images)


def test_what_this_network_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="takes 3 channels, the calibration images have 1"):
        inputs(noise(1, 1, 4, 4))
    with pytest.raises(InvalidInput, match="has no pixel"):
        inputs(noise(1, 3, 0, 4))
    with pytest.raises(InvalidInput, match="calibration image 1: a photograph of 4x1 pixels is too small"):
        inputs([photograph(), photograph(1, 4)])
    Image.fromarray(photograph(1, 4)).save(tmp_path / "small.png")
    with pytest.raises(InvalidInput, match=r"small\.png: a photograph of 4x1"):
        inputs([tmp_path / "small.png"])
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InvalidInput, match="not a readable image"):
        inputs(tmp_path / "notes.txt")


@pytest.mark.parametrize(("last", "told"), [(7, 1), (8, 0)])
def test_images_of_one_colour_are_told_where_there_are_no_others(last: int, told: int) -> None:
    images = [NamedImage(name, np.full((64, 64, 3), 7, np.uint8)) for name in ("a.png", "b.png")]
    images[1].pixels[-20:] = last
    heard: list[str] = []
    photographs_as_inputs(images, "folder", scale=2, channels=3, input_range=(0.0, 1.0), on_skip=heard.append)
    assert ["its images have one colour each" in words for words in heard] == [True] * told
