"""Products of taps without the taps: those of the taps written out."""

from __future__ import annotations

import pytest
import torch
from helpers.levels import noise
from hypothesis import given, settings
from hypothesis import strategies as st

from memsr_compiler.student.statistics.moments import Moments, Regression, pixels, taps
from memsr_compiler.student.statistics.tap_products import TERMS, TapGrid, add_up, multiply

SIZES = st.sampled_from([1, 3, 5, 7])


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), SIZES)
def test_sums_are_those_of_the_taps_written_out(n: int, channels: int, height: int, width: int, size: int) -> None:
    """Borders included, in images smaller than the kernel, and several side by side."""
    images, targets = noise(n, channels, height, width) + 3, noise(n, 2, height, width, seed=1) - 5
    sums = Regression.of_taps(images, size, targets)
    want = Regression.of(taps(images, size), pixels(targets))
    torch.testing.assert_close(sums.inputs.products, want.inputs.products, rtol=0, atol=1e-9)
    torch.testing.assert_close(sums.inputs.total, want.inputs.total, rtol=0, atol=1e-10)
    torch.testing.assert_close(sums.cross, want.cross, rtol=0, atol=1e-9)
    torch.testing.assert_close(sums.total, want.total, rtol=0, atol=1e-10)
    assert sums.inputs.count == want.inputs.count == n * height * width


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_float32_is_as_good_where_values_lie_far_above_their_variation(layout: torch.memory_format) -> None:
    """As a student's raised channels do: the rounding is of the variance, not of the power, 10,000 times as large."""
    images = (100 + noise(3, 4, 40, 30)).float().contiguous(memory_format=layout)
    targets = (images[:, :2] - 70).contiguous(memory_format=layout)
    sums = Regression.of_taps(images, 3, targets)
    want = Regression.of(taps(images.double(), 3), pixels(targets.double()))
    inside = want.inputs.covariance[:-1, :-1]
    variance = float(noise(3, 4, 40, 30).var())
    border = float(inside.abs().max())  # zeros beyond it, beside 100: that variance is of the border
    assert border > 1000 * variance
    middle = torch.arange(4) * 9 + 4
    error = (sums.inputs.covariance - want.inputs.covariance)[middle][:, middle]
    assert float(error.abs().max()) < 1e-6 * variance
    assert float((sums.covariance - want.covariance)[middle].abs().max()) < 1e-6 * variance


def test_a_channel_that_never_varies_explains_nothing() -> None:
    """Not even what float32 rounds: divided by its variance, which is none, that would be all there is."""
    images = torch.cat([noise(2, 2, 20, 20), torch.full((2, 1, 20, 20), 0.7)], dim=1).float()
    rows = Regression.of_taps(images, 3, images[:, :1]).solve(1e-6)
    middle = rows[0, :-1].view(3, 9)[:, 4]
    torch.testing.assert_close(middle, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-4)


def test_products_are_symmetric() -> None:
    whole = Moments.of_taps(TapGrid.of(noise(2, 3, 9, 8).float(), 3)).products
    torch.testing.assert_close(whole, whole.T, rtol=0, atol=1e-12)  # but for the last place in float64


def test_many_samples_are_added_up_in_float64() -> None:
    """In float32 alone the last places would be lost: the sum has 24 bits and more."""
    samples = torch.full((1 << 20, 1), 3.0)
    samples[:, 0] += 0.25
    exact = (1 << 20) * 3.25**2
    assert float(multiply(samples, samples)) == exact
    rest = samples[: 3 * TERMS + 5]
    assert float(multiply(rest, rest)) == len(rest) * 3.25**2


def test_targets_side_by_side_are_as_good_as_one() -> None:
    images, targets = noise(2, 3, 9, 8), noise(2, 5, 9, 8, seed=1) + 3
    apart, one = (Regression.of_taps(images, 3, *parts) for parts in (torch.split(targets, [2, 3], dim=1), [targets]))
    torch.testing.assert_close(apart.cross, one.cross, rtol=0, atol=1e-12)
    torch.testing.assert_close(apart.total, one.total, rtol=0, atol=1e-12)


def test_samples_are_added_up_whatever_their_number() -> None:
    for count in (1, TERMS - 1, 3 * TERMS + 5):
        samples = noise(1, 1, count, 4)[0, 0]
        torch.testing.assert_close(add_up(samples), samples.sum(0), rtol=0, atol=1e-11)
        torch.testing.assert_close(add_up(samples.float()), samples.sum(0), rtol=0, atol=1e-5 * count**0.5)
