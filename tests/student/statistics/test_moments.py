"""Streamed moments and regressions: those of all samples, whatever the batches."""

from __future__ import annotations

import torch
from helpers.levels import noise
from hypothesis import given, settings
from hypothesis import strategies as st

from memsr_compiler.student.statistics.moments import Moments, Regression, pixels, taps


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_streamed_moments_are_those_of_all_samples(sizes: list[int], random: object) -> None:
    samples = noise(4, sum(sizes))
    parts = [Moments.of(part) for part in torch.split(samples, sizes, dim=1)]
    random.shuffle(parts)  # type: ignore[attr-defined]
    total = sum(parts, Moments.none(4))
    assert total.count == samples.shape[1]
    torch.testing.assert_close(total.covariance, torch.cov(samples, correction=0).reshape(4, 4), rtol=0, atol=1e-12)
    torch.testing.assert_close(total.mean, samples.mean(1), rtol=0, atol=1e-12)


def test_moments_of_many_entries() -> None:
    """They are multiplied out block by block."""
    x = noise(300, 40)
    torch.testing.assert_close(Moments.of(x).products, x @ x.T, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3, 5]))
def test_taps_are_what_a_convolution_reads(channels: int, height: int, width: int, size: int) -> None:
    image, kernel, bias = noise(2, channels, height, width), noise(3, channels, size, size, seed=1), noise(3, seed=2)
    rows = torch.cat([kernel.flatten(1), bias[:, None]], dim=1)
    expected = torch.nn.functional.conv2d(image, kernel, bias, padding=size // 2)
    torch.testing.assert_close(rows @ taps(image, size), pixels(expected), rtol=0, atol=1e-12)


def test_regression_is_least_squares_and_does_not_mind_offsets_or_batches() -> None:
    x, mixing = noise(3, 50), noise(2, 3, seed=1)
    ones = torch.ones(1, 50, dtype=torch.float64)
    y = mixing @ x + 5 + 0.1 * noise(2, 50, seed=3)
    inputs = torch.cat([x, ones])
    whole = Regression.of(inputs, y)
    parts = [Regression.of(inputs[:, i : i + 7], y[:, i : i + 7]) for i in range(0, 50, 7)]
    streamed = sum(parts[::-1], Regression.none(4, 2))
    expected = torch.linalg.lstsq(inputs.T, y.T).solution.T
    torch.testing.assert_close(whole.solve(0.0), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(streamed.solve(0.0), whole.solve(0.0), rtol=0, atol=1e-9)
    raised = Regression.of(torch.cat([x + 100, ones]), y)
    torch.testing.assert_close(raised.solve(1e-3)[:, :3], whole.solve(1e-3)[:, :3], rtol=0, atol=1e-7)
