"""Colours under transparent pixels: taken from what is visible, and from nothing else."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from memsr_compiler.images.transparency import extend_bands, extend_colours, working_bytes


def picture(seed: int, height: int, width: int, channels: int, dtype: type) -> NDArray[Any]:
    """Random colours, and alpha of which most is 0."""
    random = np.random.default_rng(seed)
    peak = int(np.iinfo(dtype).max)
    pixels = random.integers(0, peak + 1, (height, width, channels + 1))
    pixels[..., -1] *= random.random((height, width)) < random.choice([0.02, 0.3, 0.9])
    return pixels.astype(dtype)


def extend_one_by_one(pixels: NDArray[Any], reach: int) -> NDArray[Any]:
    """The definition, pixel by pixel."""
    result: NDArray[Any] = pixels[..., :-1].copy()
    radii = [min(2**i, reach) for i in range(20)]
    for y, x in np.argwhere(pixels[..., -1] == 0):
        result[y, x] = np.iinfo(pixels.dtype).max // 2
        for radius in radii:
            around = pixels[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1].reshape(
                -1, pixels.shape[2]
            )
            seen = around[around[:, -1] > 0, :-1].astype(int)
            if len(seen):
                result[y, x] = (seen.sum(axis=0) + len(seen) // 2) // len(seen)
                break
    return result


sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))


@given(st.integers(0, 99), sizes, st.sampled_from([1, 3]), st.sampled_from([np.uint8, np.uint16]), st.integers(1, 40))
def test_hidden_pixels_take_the_mean_of_the_nearest(
    seed: int, size: tuple[int, int], channels: int, dtype: type, reach: int
) -> None:
    pixels = picture(seed, *size, channels, dtype)
    result = extend_colours(pixels, reach)
    assert result.dtype == dtype and np.array_equal(result, extend_one_by_one(pixels, reach))
    changed = pixels.copy()
    changed[changed[..., -1] == 0, :-1] ^= 85
    assert np.array_equal(extend_colours(changed, reach), result)
    visible = pixels[..., -1] > 0
    assert np.array_equal(result[visible], pixels[visible, :-1])


@given(st.integers(0, 99), sizes, st.integers(1, 12), st.integers(1, 9))
def test_the_height_of_bands_changes_nothing(seed: int, size: tuple[int, int], reach: int, rows: int) -> None:
    pixels = picture(seed, *size, 3, np.uint8)
    bands = [pixels[top : top + rows] for top in range(0, len(pixels), rows)]
    made = list(extend_bands(bands, reach))
    assert np.array_equal(np.concatenate(made), extend_colours(pixels, reach))
    assert all(map(len, made))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_sums_do_not_overflow(dtype: type) -> None:
    """Running totals of wide white images do; squares of 257 pixels, and of 601, need more than 32 bits."""
    pixels: NDArray[Any] = np.full((700, 650, 2), np.iinfo(dtype).max, dtype)
    pixels[20:680, 20:630] = 0
    result = extend_colours(pixels, 700)
    assert (result == np.iinfo(dtype).max).all()


@pytest.mark.parametrize(
    ("width", "reach", "channels", "dtype"), [(2000, 20, 3, np.uint8), (900, 44, 3, np.uint16), (500, 44, 1, np.uint8)]
)
def test_it_takes_no_more_memory_than_is_said(width: int, reach: int, channels: int, dtype: type) -> None:
    bands = [picture(i, min(32, reach), width, channels, dtype) for i in range(12)]
    tracemalloc.start()
    for _ in extend_bands(iter(bands), reach):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    said = working_bytes(width, channels, np.dtype(dtype).itemsize, reach)
    assert 0.3 * said < peak <= said
