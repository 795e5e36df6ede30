"""The probe: which reading a photograph speaks for."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.probe import CLEAR, NEAR, Reading, _decide, choose, restore

UNIT = (0.0, 1.0)


def bicubic(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)


def grey(x: Tensor) -> Tensor:
    return torch.full_like(x, 0.5).repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("scale", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("input_range", [UNIT, (0.0, 255.0), (-1.0, 1.0)])
def test_nearest_enlargement_is_a_little_worse_than_bicubic(
    scale: int, channels: int, input_range: tuple[float, float]
) -> None:
    def nearest(x: Tensor) -> Tensor:
        assert x.shape[1] == channels or x.shape[-1] == 32  # which only asks what it takes
        if x.shape[1] != channels:
            raise ValueError(x.shape)
        return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    score, other = restore(nearest, input_range)
    assert other - 4 < score < other


def test_a_network_on_the_enlarged_image_gets_that() -> None:
    """It gives its input back, which is the bicubic enlargement."""
    score, other = restore(lambda x: x, UNIT)
    assert score == pytest.approx(other, abs=0.01)  # float32 and, in front of it, 8 bits


def test_what_gives_no_numbers_is_worst() -> None:
    assert restore(lambda x: bicubic(x) * math.nan, UNIT)[0] == -100


def test_what_takes_no_photographs_is_not_tried() -> None:
    with pytest.raises(InvalidInput, match="enlarged by 5"):
        restore(lambda x: x.repeat_interleave(5, 2).repeat_interleave(5, 3), UNIT)

    def fails(x: Tensor) -> Tensor:
        raise RuntimeError("no")

    assert choose([Reading(fails, UNIT, "a")]).outcome == "untried"
    assert choose([Reading(lambda x: x[:, :, ::2, ::2], UNIT, "a")]).outcome == "untried"


def test_it_is_said_how_good_each_reading_is() -> None:
    choice = choose([Reading(grey, UNIT, "a"), Reading(bicubic, UNIT, "b", frozenset("b"))])
    assert (choice.index, choice.outcome) == (1, "taken")
    first, _, rest = choice.words.partition(", against ")
    assert first.endswith(" dB") and " dB with a; bicubic interpolation has " in rest
    assert choose([Reading(grey, UNIT, "a")]).outcome == "none"


def test_a_reading_that_is_no_network_is_worst() -> None:
    def fails(x: Tensor) -> Tensor:
        raise RuntimeError("no")

    choice = choose([Reading(bicubic, UNIT, "a"), Reading(fails, UNIT, "b", frozenset("b"))])
    assert (choice.index, choice.outcome) == (0, "kept")


A, B, C, AB = frozenset("a"), frozenset("b"), frozenset("c"), frozenset("ab")
USUAL: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("gains", "departures", "expected"),
    [
        # decibels over bicubic interpolation
        ([3.0, -20.0], [USUAL, A], (0, "kept")),
        ([-2.0, -20.0], [USUAL, A], (0, "kept")),
        ([-20.0, 3.0], [USUAL, A], (1, "taken")),
        ([-20.0, -2.0], [USUAL, A], (1, "taken")),
        ([-20.0, -18.0], [USUAL, A], (0, "none")),
        ([-NEAR - 0.1], [USUAL], (0, "none")),
        ([-NEAR + 0.1], [USUAL], (0, "kept")),
        # A network of 0..1 that hardly needs its biases, as one of 0..255: near, and worse.
        ([3.0, 0.5], [USUAL, A], (0, "kept")),
        ([0.5, 3.0], [USUAL, A], (1, "taken")),
        # One trained for looks: worse than bicubic, while a smaller part of it in the image is nearer to that.
        ([-3.0, 0.5], [USUAL, A], (0, "kept")),
        # No difference to speak of: the usual.
        ([3.0, 3.0 + CLEAR - 0.1], [USUAL, A], (0, "kept")),
        ([3.0, 3.0], [USUAL, A], (0, "kept")),
        # The range is clear, the other is not, so that is as usual.
        ([-20.0, -18.0, 2.0, 2.5], [USUAL, A, B, AB], (2, "taken")),
        # Two that have nothing in common.
        ([-20.0, 2.0, 2.5], [USUAL, A, B], (0, "several")),
        ([-20.0, 2.0, 2.5, -20.0], [USUAL, A, B, C], (0, "several")),
    ],
)
def test_what_is_decided(gains: list[float], departures: list[frozenset[str]], expected: tuple[int, str]) -> None:
    assert _decide(departures, gains) == expected
