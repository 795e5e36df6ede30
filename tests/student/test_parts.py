"""What deriving a student stands on: statistics, calibration images, levels, the choice of channels, budgets."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memsr_compiler import compile_to_plain
from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.crops import batches, count_pixels, network_inputs
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.selection import choose
from memsr_compiler.student.statistics.moments import Moments, Regression, pixels, taps
from memsr_compiler.student.statistics.spill import Spool
from memsr_compiler.student.statistics.survey import Survey, lost, output_error, spectrum, survey
from memsr_compiler.student.widths.budget import Budget, choose_widths, full_widths, student_cost
from memsr_compiler.student.widths.forecast import forecast
from memsr_compiler.student.widths.share_limit import narrow_stepwise, output_errors, propose_widths
from memsr_compiler.teachers.families.edsr import EDSR


def teacher(blocks: int = 2, channels: int = 8) -> LeveledTeacher:
    torch.manual_seed(4)
    return LeveledTeacher.of(EDSR(scale=2, blocks=blocks, channels=channels).eval(), (0.0, 1.0))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- statistics


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


def test_a_spool_gives_back_what_it_took_and_leaves_no_file(tmp_path: Path) -> None:
    with Spool(in_memory=100) as spool:
        for i in range(4):
            spool.append({"x": noise(3, 3, seed=i)})
        spool[2] = {"x": noise(2, seed=9), "y": noise(1, seed=8)}
        assert torch.equal(spool[0]["x"], noise(3, 3, seed=0))
        assert [sorted(record) for record in spool] == [["x"], ["x"], ["x", "y"], ["x"]]
        folder = Path(spool._folder.name) if spool._folder else tmp_path
        assert any(folder.iterdir())
    assert not folder.exists() or folder == tmp_path


# -- calibration images


def test_batches_do_not_depend_on_order_or_on_how_images_are_stacked() -> None:
    singles = [noise(1, 3, 30 + i, 40, seed=i) for i in range(4)]
    first = batches(singles, samples=9, crop=16)
    second = batches([singles[2], singles[0], singles[3], singles[1]], samples=9, crop=16)
    same = [noise(1, 3, 20, 20, seed=i) for i in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    stacked, apart = batches([torch.cat(same)], samples=6, crop=16), batches(same[::-1], samples=6, crop=16)
    assert all(torch.equal(a, b) for a, b in zip(stacked, apart, strict=True))
    assert all(max(x.shape[2:]) <= 16 for x in first)
    assert sum(len(x) for x in first) >= 4


def test_small_images_are_used_whole() -> None:
    assert [tuple(x.shape) for x in batches([noise(1, 1, 1, 1)], samples=5)] == [(1, 1, 1, 1)]
    assert count_pixels(batches([noise(1, 3, 2, 200)], samples=1, crop=96)) == 2 * 96


def test_what_batches_refuse() -> None:
    with pytest.raises(InvalidInput, match="no calibration images"):
        batches([], samples=1)
    with pytest.raises(InvalidInput, match="differ in channels"):
        batches([noise(1, 3, 4, 4), noise(1, 1, 4, 4)], samples=1)
    with pytest.raises(InvalidInput, match="NaN"):
        batches([noise(1, 3, 4, 4) * float("nan")], samples=1)


def test_photographs_as_networks_are_given_them() -> None:
    photograph = (noise(24, 36, 3).numpy() * 255).astype(np.uint8)
    (rgb,) = network_inputs(photograph, scale=2, channels=3, input_range=(0.0, 255.0))
    assert rgb.shape == (1, 3, 12, 18) and 1 < float(rgb.max()) <= 255
    enlarged = network_inputs(photograph, scale=1, channels=1, input_range=(0.0, 1.0))
    assert [tuple(x.shape) for x in enlarged] == [(1, 1, 24, 36)] * 3
    assert not torch.equal(enlarged[0], enlarged[2])
    (one,) = network_inputs(photograph, scale=1, channels=1, input_range=(0.0, 1.0), every_factor=False)
    assert any(torch.equal(one, x) for x in enlarged)
    with pytest.raises(InvalidInput, match="takes 5 channels"):
        network_inputs(photograph, scale=2, channels=5, input_range=(0.0, 1.0))
    with pytest.raises(InvalidInput, match="too small"):
        network_inputs(photograph[:1], scale=2, channels=3, input_range=(0.0, 1.0))


# -- levels


def test_levels_compute_what_the_network_computes() -> None:
    torch.manual_seed(4)
    network = EDSR(scale=2, blocks=2, channels=8).double().eval()
    for source in (network, compile_to_plain(network)):
        levels = LeveledTeacher.of(source, (0.0, 1.0))
        for shape in ((1, 3, 1, 1), (2, 3, 5, 4)):
            x = noise(*shape)
            with torch.no_grad():
                expected = network(x)
            output = torch.nn.functional.pixel_shuffle(levels.output(x), 2)
            torch.testing.assert_close(output, expected, rtol=0, atol=1e-13)


def test_the_survey_is_the_jacobian_of_the_levels_above() -> None:
    """One pixel, so that a level's sensitivity is J^T J, but for the noise of the random signs."""
    levels = teacher(blocks=1, channels=4)
    inputs = [noise(1, 3, 1, 1, seed=i) for i in range(800)]
    seen = survey(levels, inputs)
    last = levels.levels[-2]
    exact = torch.zeros(last.channels, last.channels, dtype=torch.float64)
    for x in inputs[:1]:
        values = levels.start(x)
        for level in levels.levels[:-1]:
            after = levels.advance(level, values)
            values = after.values
        jacobian = torch.autograd.functional.jacobian(
            lambda f: levels.advance(levels.levels[-1], levels.resume(last, f)).after.flatten(), after.after
        )[:, 0, :, 0, 0]
        exact = jacobian.T @ jacobian  # the last level is linear: the same for every input
    error = (seen.sensitivity[-1] - exact).norm() / exact.norm()
    assert float(error) < 0.15  # 800 random signs: 1 / sqrt(800) = 0.035 for each entry, 4 x 4 of them


# -- the choice of channels


def explained(covariance: Tensor, target: Tensor, maps: Tensor) -> float:
    """How much of the target's energy least squares has from the channels maps (n, k)."""
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


# -- budgets


CALIBRATION = [noise(2, 3, 24, 24), noise(2, 3, 20, 20, seed=1)]


@pytest.fixture(scope="module")
def seen() -> tuple[LeveledTeacher, Survey]:
    levels = teacher()
    return levels, survey(levels, CALIBRATION)


def test_a_limit_is_met_and_used(seen: tuple[LeveledTeacher, Survey]) -> None:
    levels, features = seen
    expected = forecast(levels, CALIBRATION, features, 2)
    full = full_widths(levels, 2)
    whole, least = student_cost(levels, full), student_cost(levels, [2] * len(full))
    for share in (0.2, 0.5, 0.9):
        limits = (
            ("max_params", least.parameters + int(share * (whole.parameters - least.parameters))),
            ("max_macs", 200 * (least.macs_per_pixel + int(share * (whole.macs_per_pixel - least.macs_per_pixel)))),
            ("max_memory", least.memory(20, 10) + int(share * (whole.memory(20, 10) - least.memory(20, 10)))),
        )
        for name, limit in limits:
            budget = Budget(size=(10, 20), **{name: limit})  # type: ignore[arg-type]
            for widths in propose_widths(levels, features, expected, budget, 2):
                assert budget.measure(student_cost(levels, widths)) <= limit
                assert all(w % 2 == 0 and 2 <= w <= most for w, most in zip(widths, full, strict=True))
                wider = [[*widths[:i], w + 2, *widths[i + 1 :]] for i, w in enumerate(widths)]
                assert max(budget.measure(student_cost(levels, w)) for w in wider) > limit  # not all of it could be had


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


def test_theta_is_the_smallest_width_below_the_error(seen: tuple[LeveledTeacher, Survey]) -> None:
    levels, features = seen
    widths = choose_widths(levels, features, Budget(theta=0.1), 1)
    for width, moments in zip(widths, features.features, strict=True):
        assert lost(spectrum(moments), width) < 0.1
        assert width == 1 or lost(spectrum(moments), width - 1) >= 0.1


def test_errors_fall_with_the_width(seen: tuple[LeveledTeacher, Survey]) -> None:
    _, features = seen
    for moments, sensitivity in zip(features.features, features.sensitivity, strict=True):
        values = spectrum(moments)
        errors = [lost(values, r) for r in range(len(values) + 1)]
        assert errors == sorted(errors, reverse=True) and errors[-1] == 0 and errors[0] == pytest.approx(1)
        output = output_error(moments, sensitivity)
        assert bool((output.diff() <= 0).all()) and float(output[-1]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "in one way, not nothing"),
        ({"theta": 0.1, "width": 8}, "theta and width"),
        ({"theta": 0.0}, "between 0 and 1"),
        ({"theta": 1.0}, "between 0 and 1"),
        ({"width": 8, "size": (0, 5)}, "has no pixel"),
    ],
)
def test_budgets_that_are_none(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Budget(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "a width of 0 is not between 1 and"),
        ({"width": 1000}, "a width of 1000 is not between 1 and"),
        ({"widths": (8, 8)}, "2 widths are given, and the student has 7"),
        ({"max_params": 10}, r"limit of 10 is below .*: [\d,]+"),
        ({"max_memory": 10}, r"limit of 10 is below .*: [\d,]+"),
    ],
)
def test_budgets_that_cannot_be_met(
    seen: tuple[LeveledTeacher, Survey], options: dict[str, object], message: str
) -> None:
    levels, features = seen
    budget = Budget(**options)  # type: ignore[arg-type]
    told = budget.limit is None
    widths = (
        partial(choose_widths, levels, features) if told else partial(narrow_stepwise, levels, output_errors(features))
    )
    with pytest.raises(InvalidInput, match=message):
        widths(budget, 8)


def test_moments_of_many_entries() -> None:
    """They are multiplied out block by block."""
    x = noise(300, 40)
    torch.testing.assert_close(Moments.of(x).products, x @ x.T, rtol=0, atol=1e-12)
