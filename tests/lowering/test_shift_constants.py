"""calibrate: constants that hold, from whatever images a person has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from memsr_compiler import Teacher, calibrate, check_equivalence, compile_to_plain
from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import write_image
from memsr_compiler.teachers.families.edsr import EDSR


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return EDSR(scale=2, blocks=2, channels=4).eval()


@pytest.fixture(scope="module")
def pixels() -> Any:
    return np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)


def test_the_constants_compile_to_the_same_network(network: nn.Module, pixels: Any) -> None:
    measured = calibrate(network, pixels, steps=2)
    net = compile_to_plain(network, carry="shift", constant=measured.constants)
    assert measured.images == 1 and measured.margin == 3 and 1 / 3 <= measured.worst < 1
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255
    assert check_equivalence(network, net, images=x)


def test_images_as_people_have_them(network: nn.Module, pixels: Any, tmp_path: Path) -> None:
    """The same picture as a tensor, an array, in a list, in a file, in a folder."""
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    file = tmp_path / "picture.png"
    write_image(file, pixels)
    expected = calibrate(network, x, steps=0).constants
    for images in (
        x.numpy(),
        [x],
        (pixels,),
        pixels,
        tmp_path,
        str(tmp_path / "picture.png"),
        [tmp_path / "picture.png"],
    ):
        assert calibrate(network, images, steps=0).constants == pytest.approx(expected, rel=1e-6)


def test_the_range_is_the_teachers(pixels: Any) -> None:
    torch.manual_seed(0)
    network = EDSR(scale=2, blocks=1, channels=4, rgb_range=255).eval()
    told = calibrate(network, pixels, input_range=(0.0, 255.0), steps=1)
    assert calibrate(Teacher(module=network, input_range=(0.0, 255.0)), pixels, steps=1) == told
    assert calibrate(network, pixels, steps=1) != told


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there are no images"),
        (None, "image 0: is a NoneType; want tensors"),
        ([torch.zeros(3, 8, 8)], r"image 0: torch\.float32 of shape \(3, 8, 8\); give floating \(N, 3, H, W\)"),
        ([torch.zeros(1, 3, 8, 8, dtype=torch.uint8)], r"torch\.uint8 of shape \(1, 3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8), r"of shape \(1, 1, 8, 8\); give floating \(N, 3, H, W\)"),
        (np.zeros((8, 8, 4), np.uint8), r"pixels of shape \(8, 8, 4\); give \(H, W, 3\)"),
        (np.zeros((8, 8, 3), np.int64), "pixels of dtype int64; give uint8"),
        ("nowhere.png", "nowhere.png: not a readable image"),
        (torch.full((1, 3, 8, 8), 200.0), "image 0: values from 200 to 200; the network takes 0 to 1"),
        (torch.full((1, 3, 8, 8), float("nan")), "image 0: values from nan to nan"),
    ],
)
def test_what_are_no_images(images: Any, message: str, network: nn.Module) -> None:
    with pytest.raises(InvalidInput, match=message):
        calibrate(network, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.5}, r"margin 0\.5 is below 1"),
        ({"margin": "3"}, "margin='3': want a number"),
        ({"margin": float("nan")}, "margin=nan: want a number"),
        ({"margin": float("inf")}, "margin inf is no number to multiply by"),
        ({"steps": -1}, "-1 steps of search are not possible"),
        ({"steps": 2.5}, r"steps=2\.5: want a whole number"),
        ({"tail": "drop"}, "tail 'drop' is neither fold nor keep"),
        ({"device": "tpu"}, "device 'tpu': want cpu or cuda"),
        ({"device": None}, "device None: want cpu or cuda"),
    ],
)
def test_options_that_are_none(options: Any, message: str, network: nn.Module, pixels: Any) -> None:
    with pytest.raises(InvalidInput, match=message):
        calibrate(network, pixels, **options)
