"""Images as networks take them: tensors, pixels, files; in the network's range, on Y where it wants Y."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import write_image
from memsr_compiler.images.metrics import luma
from memsr_compiler.images.tensors import image_tensors

PIXELS = np.random.default_rng(3).integers(0, 256, (5, 4, 3), np.uint8)


def test_tensors_are_in_the_range_already() -> None:
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    (same,) = image_tensors(x, channels=3, input_range=(0.0, 255.0))
    assert torch.equal(same, x) and same.dtype == torch.float64
    assert torch.equal(image_tensors(x.numpy(), channels=3, input_range=(0.0, 255.0))[0], x)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(1, 3, 4, 5).to_sparse(), r"image 0: is a tensor of layout torch\.sparse_coo; give a dense one"),
        (torch.empty(1, 3, 4, 5, device="meta"), "image 0: is a meta tensor, without values"),
        (np.zeros((1, 3, 4, 5), object), r"image 0: object of shape \(1, 3, 4, 5\); give floating"),
        (np.zeros((1, 3, 4, 5), np.uint16), r"image 0: uint16 of shape \(1, 3, 4, 5\); give floating"),
    ],
)
def test_what_has_no_values_to_run_on(image: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        image_tensors(image, channels=3, input_range=(0.0, 1.0))


def test_arrays_that_torch_cannot_share() -> None:
    x = np.random.default_rng(3).random((1, 3, 4, 5))
    for array in (x[..., ::-1], x.astype(">f4"), x.astype(np.longdouble)):
        (same,) = image_tensors(array, channels=3, input_range=(0.0, 1.0))
        assert np.array_equal(same.numpy(), array.astype(same.numpy().dtype))


def test_pixels_are_taken_to_the_range() -> None:
    (x,) = image_tensors(PIXELS, channels=3, input_range=(-1.0, 1.0))
    assert x.shape == (1, 3, 5, 4) and torch.allclose(x[0, :, 2, 1], torch.from_numpy(PIXELS[2, 1]) / 127.5 - 1)
    floating = (PIXELS / 255).astype(np.float32)
    assert torch.allclose(image_tensors(floating, channels=3, input_range=(-1.0, 1.0))[0], x, atol=1e-6)


def test_colours_become_y_and_grey_three_channels() -> None:
    (y,) = image_tensors(PIXELS, channels=1, input_range=(0.0, 255.0))
    np.testing.assert_allclose(y[0, 0].numpy(), luma(PIXELS), rtol=1e-6)
    grey = PIXELS[..., 0]
    for image in (grey, grey[..., None]):
        (x,) = image_tensors(image, channels=3, input_range=(0.0, 255.0))
        assert x.shape == (1, 3, 5, 4) and torch.allclose(x, torch.from_numpy(grey).float().expand(1, 3, 5, 4))
        assert image_tensors(image, channels=1, input_range=(0.0, 255.0))[0].shape == (1, 1, 5, 4)


def test_pixels_are_of_one_channel_or_three() -> None:
    with pytest.raises(InvalidInput, match=r"image 0: pixels have 3 channels, or 1 for Y; give tensors \(N, 4, H, W\)"):
        image_tensors(PIXELS, channels=4, input_range=(0.0, 1.0))


def test_a_list_may_mix_and_a_folder_is_in_order_of_name(tmp_path: Path) -> None:
    write_image(tmp_path / "b.png", PIXELS)
    write_image(tmp_path / "a.png", PIXELS[:2])
    (tmp_path / "notes.txt").write_text("no image")
    assert [x.shape[2] for x in image_tensors(tmp_path, channels=3, input_range=(0.0, 1.0))] == [2, 5]
    mixed: list[Any] = [PIXELS, str(tmp_path / "a.png"), torch.zeros(1, 3, 7, 7)]
    assert [x.shape[2] for x in image_tensors(mixed, channels=3, input_range=(0.0, 1.0))] == [5, 2, 7]


def test_any_number_of_channels_where_the_network_does_not_say() -> None:
    assert image_tensors(torch.zeros(1, 7, 2, 2), channels=None, input_range=(0.0, 1.0))[0].shape[1] == 7
    assert image_tensors(PIXELS[..., :1], channels=None, input_range=(0.0, 1.0))[0].shape[1] == 1


def test_torch_is_imported_when_it_is_needed() -> None:
    program = "import sys, memsr_compiler.images.tensors; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
