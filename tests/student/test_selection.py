"""The choice of channels against every other choice."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.levels import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler.student.selection import choose
from memsr_compiler.student.statistics.moments import Moments


def explained(covariance: Tensor, target: Tensor, maps: Tensor) -> float:
    """Share of the target's energy that least squares has from the channels maps (n, k)."""
    inner, cross = maps.T @ covariance @ maps, maps.T @ target
    return float((cross * torch.linalg.solve(inner + 1e-12 * torch.eye(len(inner)).double(), cross)).sum())


def test_linear_directions_alone_are_reduced_rank_regression() -> None:
    samples = noise(6, 400) - 0.5
    covariance = Moments.of(samples).covariance
    target = covariance @ noise(6, 3, seed=1)
    for width in (1, 2, 3):
        choice = choose(covariance, 0, target, width)
        root = torch.linalg.cholesky(covariance)
        best = torch.linalg.svdvals(torch.linalg.solve(root, target))[:width].square().sum()
        assert explained(covariance, target, choice.directions) == pytest.approx(float(best), rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_the_choice_is_as_good_as_any_of_its_size_nearly(seed: int, width: int) -> None:
    """Against all ways to take so many: greedy is not always best, but never far behind."""
    linear = noise(3, 300, seed=seed) - 0.5
    relus = (noise(3, 3, seed=seed + 1) @ linear - 0.1).relu()
    after = noise(4, 3, seed=seed + 2) @ relus + 0.3 * noise(4, 3, seed=seed + 3) @ linear
    moments = Moments.of(torch.cat([relus, linear, after])).covariance
    covariance, target = moments[:6, :6], moments[:6, 6:]

    def value(subset: tuple[int, ...], count: int) -> float:
        unit = torch.eye(6, dtype=torch.float64)[:, list(subset)]
        if not count:
            return explained(covariance, target, unit)
        left = covariance.clone(), target.clone()
        for j in subset:
            seen = left[0][j].clone()
            left = (
                left[0] - torch.outer(seen, seen) / seen[j],
                left[1] - torch.outer(seen, left[1][j]) / seen[j],
            )
        directions = choose(left[0][3:, 3:], 0, left[1][3:], count).directions
        full = torch.cat([torch.zeros(3, directions.shape[1], dtype=torch.float64), directions])
        return explained(covariance, target, torch.cat([unit, full], dim=1))

    alive = [j for j in range(3) if covariance[j, j] > 0]
    most = min(width, len(alive))
    best = max(value(subset, width - k) for k in range(most + 1) for subset in itertools.combinations(alive, k))
    choice = choose(covariance, 3, target, width)
    full = torch.cat([torch.zeros(3, choice.directions.shape[1], dtype=torch.float64), choice.directions])
    unit = torch.eye(6, dtype=torch.float64)[:, list(choice.relus)]
    assert len(choice.relus) + choice.directions.shape[1] <= width
    assert explained(covariance, target, torch.cat([unit, full], dim=1)) >= 0.8 * best


def test_relus_are_preferred_as_asked() -> None:
    samples = noise(4, 300) - 0.5
    relus = samples.relu()
    moments = Moments.of(torch.cat([relus, samples, relus])).covariance
    covariance, target = moments[:8, :8], moments[:8, 8:]
    chosen = [len(choose(covariance, 4, target, 4, preference=p).relus) for p in (1e-9, 1e9)]
    assert chosen == [0, 4]
