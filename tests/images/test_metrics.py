"""PSNR and SSIM on Y: the published bicubic rows, and the definitions by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import read_image, to_image, to_tensor
from memsr_compiler.images.metrics import luma, psnr, srcnn_input, ssim
from memsr_compiler.images.resize import resize
from memsr_compiler.teachers.families.edsr import EDSR, infer

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT.parent / "shared" / "data" / "benchmarks"
needs_benchmarks = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs the benchmark images in ../shared")

RANDOM = np.random.default_rng(0)
HIGH = RANDOM.integers(0, 256, (24, 20, 3), dtype=np.uint8)


def high_images(name: str, scale: int) -> list[Path]:
    return sorted((BENCHMARKS / name / f"x{scale}" / "HR").iterdir())


@needs_benchmarks
@pytest.mark.parametrize(("scale", "decibels", "similarity"), [(2, 33.679, 0.9304), (4, 28.432, 0.8113)])
def test_bicubic_on_set5_by_the_edsr_protocol(scale: int, decibels: float, similarity: float) -> None:
    scores = []
    for path in high_images("Set5", scale):
        high, low = read_image(path), read_image(path.parents[1] / "LR" / path.name)
        output = resize(low, scale, rounding=False) / 255
        scores.append((psnr(output, high, scale=scale), ssim(output, high, scale=scale)))
    mean = np.mean(scores, axis=0)
    assert (round(mean[0], 3), round(mean[1], 4)) == (decibels, similarity)


@needs_benchmarks
@pytest.mark.parametrize(
    ("name", "scale", "decibels", "similarity"),
    [
        ("Set5", 2, 33.661, 0.9299),
        ("Set5", 3, 30.392, 0.8682),
        ("Set5", 4, 28.421, 0.8104),
        ("Set14", 4, 26.000, None),
    ],
)
def test_bicubic_by_the_srcnn_protocol(name: str, scale: int, decibels: float, similarity: float | None) -> None:
    scores = []
    for path in high_images(name, scale):
        high = read_image(path, keep_grey=True)
        output = srcnn_input(high, scale)
        scores.append(
            (
                psnr(output, high, scale=scale, protocol="srcnn"),
                ssim(output, high, scale=scale, protocol="srcnn"),
            )
        )
    mean = np.mean(scores, axis=0)
    assert round(mean[0], 3) == decibels
    assert similarity is None or round(mean[1], 4) == similarity


@needs_benchmarks
def test_the_shipped_teacher_scores_what_its_training_logged() -> None:
    state = torch.load(ROOT / "examples" / "edsr_8x32_x2.pt", weights_only=True)
    arguments = infer({key: value.shape for key, value in state.items()})
    assert arguments is not None
    network = EDSR(**arguments)  # type: ignore[arg-type]
    network.load_state_dict(state)
    scores = []
    for path in high_images("Set5", 2):
        low = to_tensor(read_image(path.parents[1] / "LR" / path.name))
        with torch.no_grad():
            scores.append(psnr(to_image(network(low)), read_image(path), scale=2))
    assert np.mean(scores) == pytest.approx(37.046, abs=0.01)


def test_luma_of_the_primaries() -> None:
    colours = np.array([[[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert luma(colours)[0] == pytest.approx([16, 81.481, 144.553, 40.966, 235], abs=1e-12)


def test_luma_rounds_floats_to_8_bits_first() -> None:
    assert np.array_equal(luma(HIGH / 255 + RANDOM.uniform(-0.4, 0.4, HIGH.shape) / 255), luma(HIGH))


def test_luma_of_grey_is_the_grey_value() -> None:
    assert np.array_equal(luma(HIGH[..., 0]), HIGH[..., 0])
    assert np.array_equal(luma(HIGH[..., :1]), HIGH[..., 0])


def test_psnr_by_hand() -> None:
    reference = np.full((6, 6), 100, np.uint8)
    output = reference.copy()
    output[2, 3] += 4
    assert psnr(output, reference, scale=1) == pytest.approx(10 * math.log10(255**2 / (16 / 16)))


def test_psnr_of_equal_images_is_infinite_and_ssim_is_1() -> None:
    assert psnr(HIGH, HIGH, scale=2) == math.inf
    image = RANDOM.integers(0, 256, (120, 150, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)  # as networks give them
    for other in (planes, np.asfortranarray(image), planes / 255, image[::-1].copy()[::-1]):
        assert psnr(other, image, scale=2) == math.inf
    assert ssim(HIGH, HIGH, scale=2) == 1


def test_shaved_pixels_do_not_count() -> None:
    output = HIGH.copy()
    output[:2] = output[-2:] = output[:, :2] = output[:, -2:] = 0
    assert psnr(output, HIGH, scale=2) == math.inf
    assert psnr(output, HIGH, scale=1) < 30


def test_only_the_srcnn_protocol_rounds_luma() -> None:
    output = HIGH.copy()
    output[12, 10, 2] ^= 1  # a tenth of a grey level
    assert psnr(output, HIGH, scale=2) < math.inf
    changed = np.round(luma(output)) != np.round(luma(HIGH))
    assert (psnr(output, HIGH, scale=2, protocol="srcnn") < math.inf) == changed.any()


def test_srcnn_input_is_on_luma_and_cropped() -> None:
    result = srcnn_input(HIGH[:23], 3)
    assert result.shape == (21, 18)
    assert np.array_equal(srcnn_input(np.round(luma(HIGH)).astype(np.uint8), 4), srcnn_input(HIGH, 4))


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="sizes differ"):
        psnr(HIGH[:-1], HIGH, scale=2)
    with pytest.raises(InvalidInput, match="nothing left of 24x20"):
        psnr(HIGH, HIGH, scale=10)
    with pytest.raises(InvalidInput, match="nothing left"):
        psnr(HIGH, HIGH, scale=-1)
    with pytest.raises(InvalidInput, match="11x11"):
        ssim(HIGH, HIGH, scale=5)
    with pytest.raises(InvalidInput, match="protocol 'y'"):
        psnr(HIGH, HIGH, scale=2, protocol="y")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no luma"):
        luma(HIGH[..., :2])
    with pytest.raises(InvalidInput, match="NaN"):
        psnr(np.full(HIGH.shape, np.nan), HIGH, scale=2)
