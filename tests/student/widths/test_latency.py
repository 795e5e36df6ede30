"""The time of a stack of layers: a model of it, and students that keep to a limit on it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from helpers.levels import edsr, reported, smooth_images

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.shrink import shrink
from memsr_compiler.student.widths.latency import LatencyModel, fit_latency, random_stack


class Clock:
    """An engine whose layers take so many milliseconds each, for each multiply-add, for each number, of each pixel."""

    def __init__(self, layer: float, multiply_add: float, number: float, *, slower: float = 1.0) -> None:
        self.model, self.slower = LatencyModel(layer, multiply_add, number), slower
        self.whole = (4000, 40)
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, net: PlainNet, size: tuple[int, int]) -> float:
        self.sizes.append(size)
        large = size[0] * size[1]
        milliseconds = self.model.predict(shapes(*net.widths), large)
        return milliseconds * (self.slower if size == self.whole else 1)


def shapes(*every: int) -> list[tuple[int, int, int, int]]:
    return [(after, below, 3, 3) for below, after in pairwise(every)]


@pytest.mark.parametrize("each", [(1e-5, 2e-8, 3e-6), (0.0, 2e-8, 0.0), (1e-5, 0.0, 3e-6)])
def test_a_model_predicts_what_an_engine_takes_that_is_so(each: tuple[float, float, float]) -> None:
    clock = Clock(*each)
    model = fit_latency(clock, (960, 540), channels=3, scale=2, out=12)
    for stack in (shapes(3, 24, 24, 12), shapes(3, 12), shapes(3, *[48] * 9, 12)):
        assert model.predict(stack, 960 * 540) == pytest.approx(clock.model.predict(stack, 960 * 540), rel=1e-6)
    assert [width * height <= 1 << 17 for width, height in clock.sizes] == [True] * 5 + [False]  # strips, then all


def test_nothing_takes_less_than_no_time() -> None:
    """Not even where an engine's times are as no sum over layers can be."""
    times = iter([5.0, 1.0, 4.0, 1.0, 9.0, 20.0])
    model = fit_latency(lambda net, size: next(times), (960, 540), channels=3, scale=2, out=12)
    assert min(model.layer, model.multiply_add, model.number) >= 0
    assert model.predict(shapes(3, 16, 12), 100) > 0


def test_a_random_stack_runs() -> None:
    net = random_stack(shapes(3, 8, 12), 2)
    assert net.widths == [3, 8, 12] and net.scale == 2 and net(smooth_images(1)[0].float()).shape == (1, 3, 80, 80)


@pytest.mark.parametrize("slower", [1.0, 1.6])
def test_a_student_keeps_to_the_limit(slower: float) -> None:
    """Also where the whole image takes longer than its strips say."""
    clock = Clock(1e-5, 1e-8, 1e-7, slower=slower)
    options: dict[str, Any] = {"size": clock.whole, "calibration": smooth_images(), "refit": 0, "align": 2}
    net = shrink(edsr(), max_latency=16.0, timer=clock, **options)
    report = reported(net)
    assert report.milliseconds is not None and report.milliseconds <= 16.0
    assert report.milliseconds == clock.slower * clock.model.predict(shapes(*net.widths), 160_000)
    wide = shrink(edsr(), max_latency=90.0, timer=Clock(1e-5, 1e-8, 1e-7), **options)
    assert reported(wide).cost.macs_per_pixel > report.cost.macs_per_pixel


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_latency": 5.0, "timer": None}, "max_latency needs a timer"),
        ({"max_latency": 0.0}, "max_latency=0: want milliseconds, above 0"),
        ({"max_latency": "fast"}, "max_latency='fast': want a number"),
        ({"max_latency": 1e-6}, "the limit of 1e-06 is below what a student 8 wide everywhere takes"),
    ],
)
def test_limits_that_cannot_be_kept(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        shrink(edsr(), **{"timer": Clock(1e-3, 1e-6, 1e-5), "calibration": smooth_images(1), **options})


def test_what_the_model_missed_is_made_up_for() -> None:
    """Networks of other widths than were fitted take twice as long: a student is narrowed until it is fast enough."""

    def timer(net: PlainNet, size: tuple[int, int]) -> float:
        usual = Clock(1e-3, 1e-6, 1e-5)(net, size)
        return usual if {*net.widths[1:-1]} <= {16, 24, 32, 64} else 2 * usual

    options: dict[str, Any] = {"size": (40, 40), "calibration": smooth_images(), "refit": 0, "align": 1}
    report = reported(shrink(edsr(), max_latency=60.0, layers=6, timer=timer, **options))
    assert report.milliseconds is not None and report.milliseconds <= 60.0
