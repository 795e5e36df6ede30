"""MATLAB's bicubic: against the published low-resolution images, and against what any resize must satisfy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import read_image
from memsr_compiler.images.resize import Border, resize

BENCHMARKS = Path(__file__).parents[3] / "shared" / "data" / "benchmarks"
SCALES = (2.0, 3.0, 4.0, 1 / 2, 1 / 3, 1 / 4)
BORDERS: tuple[Border, ...] = ("replicate", "mirror")


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs the benchmark images in ../shared")
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("data", ["Set5", "Set14", "B100"])
def test_reproduces_the_published_low_resolution_images(data: str, scale: int) -> None:
    """Every pixel, of colour and of grey images."""
    folder = BENCHMARKS / data / f"x{scale}"
    for path in sorted((folder / "HR").iterdir()):
        high, low = (read_image(p, keep_grey=True) for p in (path, folder / "LR" / path.name))
        assert np.array_equal(resize(high, 1 / scale), low), path.name


def test_weights_of_a_doubled_impulse_are_keys_kernel_at_quarter_steps() -> None:
    impulse = np.zeros((1, 9))
    impulse[0, 4] = 128
    # 128 times 1.5 t^3 - 2.5 t^2 + 1 at t = 1/4, 3/4 and its outer branch at t = 5/4, 7/4, by hand
    half = [111, 29, -9, -3]
    assert resize(impulse, 2)[0, 5:13].tolist() == half[::-1] + half


def test_halving_an_impulse_stretches_the_kernel() -> None:
    impulse = np.zeros((1, 16))
    impulse[0, 8] = 256
    # the same four values, but now one phase only: output k looks at the impulse from (8 - 2 k - 1/2) / 2
    assert resize(impulse, 1 / 2)[0].tolist() == [0, 0, -3, 29, 111, -9, 0, 0]


@given(size=st.integers(1, 40), scale=st.sampled_from(SCALES), border=st.sampled_from(BORDERS))
def test_constant_stays_constant_and_sizes_round_up(size: int, scale: float, border: Border) -> None:
    result = resize(np.full((size, 7, 2), 0.7), scale, border=border)
    expected = [n * round(scale) if scale > 1 else -(-n // round(1 / scale)) for n in (size, 7)]
    assert result.shape == (*expected, 2)
    assert np.allclose(result, 0.7, rtol=0, atol=1e-14)


@given(
    seed=st.integers(0, 99),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    scale=st.sampled_from(SCALES),
    border=st.sampled_from(BORDERS),
)
def test_commutes_with_flips_and_transposition(
    seed: int, height: int, width: int, scale: float, border: Border
) -> None:
    image = np.random.default_rng(seed).random((height, width))
    result = resize(image, scale, border=border)
    assert np.allclose(resize(image.T, scale, border=border).T, result, rtol=0, atol=1e-13)
    if scale > 1 or height % round(1 / scale) == 0:  # otherwise the grid does not end at the last edge
        assert np.allclose(resize(image[::-1], scale, border=border)[::-1], result, rtol=0, atol=1e-13)


def test_a_ramp_survives_inside() -> None:
    ramp = np.arange(20.0)[None]
    assert np.allclose(resize(ramp, 2)[0, 4:-4], (np.arange(40) / 2 - 0.25)[4:-4])


def test_borders_differ_only_at_the_border() -> None:
    image = np.random.default_rng(0).random((12, 12))
    mirror, replicate = resize(image, 2, border="mirror"), resize(image, 2, border="replicate")
    assert np.array_equal(mirror[4:-4, 4:-4], replicate[4:-4, 4:-4])
    assert not np.allclose(mirror, replicate)


def test_rounding_follows_the_dtype_and_can_be_forced() -> None:
    image = np.random.default_rng(0).integers(64, 192, (6, 6, 3), dtype=np.uint8)
    assert resize(image, 2).dtype == np.uint8
    assert np.array_equal(resize(image, 2), resize(image.astype(float), 2, rounding=True))
    exact = resize(image, 2, rounding=False)
    assert exact.dtype == np.float64
    assert np.array_equal(exact, resize(image.astype(float), 2))
    assert np.abs(exact - resize(image, 2)).max() < 1.2  # two roundings, the first amplified by 1.27


def test_halves_are_rounded_up() -> None:
    assert resize(np.array([[0, 1], [0, 1]], np.uint8), 1 / 2).tolist() == [[1]]


def test_the_image_given_is_not_changed() -> None:
    image = np.random.default_rng(0).random((5, 5))
    before = image.copy()
    resize(image, 1)
    resize(image, 2)
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    ("shape", "scale", "border", "message"),
    [
        ((4,), 2, "mirror", r"shape \(4,\)"),
        ((0, 4), 2, "mirror", r"shape \(0, 4\)"),
        ((4, 4), 0, "mirror", "scale 0"),
        ((4, 4), float("nan"), "mirror", "scale nan"),
        ((4, 4), 2, "wrap", "border 'wrap'"),
    ],
)
def test_refusals(shape: tuple[int, ...], scale: float, border: Border, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        resize(np.zeros(shape), scale, border=border)
