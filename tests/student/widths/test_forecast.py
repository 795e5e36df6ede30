"""A forecast of a level's losses at each width."""

from __future__ import annotations

import torch
from helpers.levels import CALIBRATION, noise
from torch import nn

from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.statistics.survey import Survey, survey
from memsr_compiler.student.widths.forecast import forecast


def test_a_forecast_falls_to_nothing(seen: tuple[LeveledTeacher, Survey]) -> None:
    levels, features = seen
    for level, curve in zip(levels.levels, forecast(levels, CALIBRATION, features, 2), strict=False):
        assert curve.shape == (level.channels + 1,) and float(curve[-1]) == 0
        assert bool((curve.diff() <= 0).all()) and bool((curve[:-1] > 0).all())


def test_a_forecast_knows_what_the_level_above_can_have_from_its_taps() -> None:
    """Two channels that are one and the same, a pixel apart: one of them is enough."""
    first = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[0, 0, 1, 1] = first.weight[1, 0, 1, 2] = first.weight[2, 1, 1, 1] = 1
    last = nn.Conv2d(3, 3, 3, padding=1)
    with torch.no_grad():
        last.weight[:, 1] *= torch.eye(3)[1] * torch.eye(3)[1, :, None]  # of one of them the centre alone is read
    levels = LeveledTeacher.of(nn.Sequential(first, nn.ReLU(), last), (0.0, 1.0))
    inputs = [noise(2, 3, 24, 24), noise(2, 3, 20, 20, seed=1)]
    (curve,) = forecast(levels, inputs, survey(levels, inputs), 1)
    assert float(curve[1]) > 0.1 * float(curve[0])
    assert float(curve[2]) < 0.03 * float(curve[0])
