"""The survey: the Jacobian of the levels above, and errors by width (MemSR, Eq. 15)."""

from __future__ import annotations

import pytest
import torch
from helpers.levels import leveled, noise
from torch import nn

from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.statistics.survey import Survey, eq15_error, output_error, spectrum, survey


def test_the_survey_is_the_jacobian_of_the_levels_above() -> None:
    """One pixel, so that a level's sensitivity is J^T J, but for the noise of the random signs."""
    levels = leveled(blocks=1, channels=4)
    inputs = [noise(1, 3, 1, 1, seed=i) for i in range(800)]
    seen = survey(levels, inputs)
    last = levels.levels[-2]
    exact = torch.zeros(last.channels, last.channels, dtype=torch.float64)
    for x in inputs[:1]:
        values = levels.start(x)
        for level in levels.levels[:-1]:
            after = levels.advance(level, values)
            values = after.values
        jacobian = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
            lambda f: levels.advance(levels.levels[-1], levels.resume(last, f)).after.flatten(), after.after
        )[:, 0, :, 0, 0]
        exact = jacobian.T @ jacobian  # the last level is linear: the same for every input
    error = (seen.sensitivity[-1] - exact).norm() / exact.norm()
    assert float(error) < 0.15  # 800 random signs: 1 / sqrt(800) = 0.035 for each entry, 4 x 4 of them


def test_errors_fall_with_the_width(seen: tuple[LeveledTeacher, Survey]) -> None:
    _, features = seen
    for moments, sensitivity in zip(features.features, features.sensitivity, strict=True):
        energy = spectrum(moments).square()
        errors = [eq15_error(energy, r) for r in range(len(energy) + 1)]
        assert errors == sorted(errors, reverse=True) and errors[-1] == 0 and errors[0] == pytest.approx(1)
        output = output_error(moments, sensitivity)
        assert bool((output.diff() <= 0).all()) and float(output[-1]) == 0


def test_features_do_not_depend_on_batches_or_their_order() -> None:
    """Small integers: float32 features and float64 sums are exact, so any batches give the same bits."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape, generator=generator))
    levels = LeveledTeacher.of(network, (0.0, 1.0))
    images = torch.randint(0, 5, (6, 3, 30, 20), generator=generator).double()
    want = survey(levels, [images]).features
    for batches in (list(torch.split(images, 1)), list(torch.split(images, 4))[::-1], [images.flip(0)]):
        for a, b in zip(survey(levels, batches).features, want, strict=True):
            assert a.count == b.count and torch.equal(a.total, b.total) and torch.equal(a.products, b.products)
