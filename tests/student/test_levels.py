"""Levels compute what the network computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.levels import edsr, leveled, noise
from helpers.networks import random_network
from torch import Tensor, nn

from memsr_compiler import compile_to_plain, ir
from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.ir.interpreter import run
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.split_activations import split_activations
from memsr_compiler.teachers.families.edsr import EDSR


def test_levels_compute_what_the_network_computes() -> None:
    torch.manual_seed(4)
    network = EDSR(scale=2, blocks=2, channels=8).double().eval()
    for source in (network, compile_to_plain(network), compile_to_plain(network, activation="prelu")):
        levels = LeveledTeacher.of(source, (0.0, 1.0))
        for shape in ((1, 3, 1, 1), (2, 3, 5, 4)):
            x = noise(*shape)
            with torch.no_grad():
                expected = network(x)
            output = torch.nn.functional.pixel_shuffle(levels.output(x), 2)
            torch.testing.assert_close(output, expected, rtol=0, atol=1e-13)


def test_in_the_prelu_form_a_level_holds_what_the_teachers_does() -> None:
    """A value that passes a slope of 1 is carried, and no pair of ReLUs."""
    torch.manual_seed(4)
    network = EDSR(scale=2, blocks=3, channels=8).eval()
    plain = compile_to_plain(network, activation="prelu", align=1)
    expected, levels = (LeveledTeacher.of(source, (0.0, 1.0)).levels for source in (network, plain))
    assert [level.channels for level in levels] == [level.channels for level in expected]
    assert [int(level.relu.sum()) for level in levels] == [int(level.relu.sum()) for level in expected]


@pytest.mark.parametrize("slopes", [(1.0, 0.0, 0.5, -1.0), (0.0, 0.0, 1.0, 1.0), (0.25, 0.25, 0.25, 0.25)])
def test_slopes_are_carried_values_relus_and_the_teachers_own(slopes: tuple[float, ...]) -> None:
    bend = ir.PRelu(name="p", inputs=("x",), slope=torch.tensor(slopes, dtype=torch.float64))
    graph = ir.Graph((ir.Input(name="x", channels=4, low=-1.0, high=1.0), bend), "p")
    after = split_activations(graph)
    x = noise(1, 4, 3, 5) - 0.5
    assert torch.equal(run(after, x), run(graph, x))
    relus = sum(after.type(op.name).channels for op in after if isinstance(op, ir.Relu))
    assert relus == sum({0.0: 1, 1.0: 0}.get(slope, 2) for slope in slopes)


def enlarged(x: Tensor, scale: int) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="nearest")


@torch.no_grad()
def test_less_the_image_is_what_the_image_is_added_to() -> None:
    network = edsr().double()
    for source in (network, compile_to_plain(network)):
        levels = LeveledTeacher.of(source, (0.0, 1.0), image_skip="nearest")
        assert levels.image_skip is not None and levels.image_skip.mode == "nearest"
        assert levels.sha256 == LeveledTeacher.of(source, (0.0, 1.0)).sha256  # it is the same teacher
        for shape in ((1, 3, 1, 1), (2, 3, 5, 4)):
            x = noise(*shape)
            output = F.pixel_shuffle(levels.output(x), 2) + enlarged(x, 2)
            torch.testing.assert_close(output, network(x), rtol=0, atol=1e-13)


class Repeating(nn.Module):
    """Two convolutions, and the image: repeated before the pixel shuffle, or after it, or interpolated."""

    def __init__(self, how: str, colours: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4 * colours, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.how == "before":
            return F.pixel_shuffle(y + x.repeat_interleave(4, dim=1), 2)
        y = F.pixel_shuffle(y, 2)
        return y + F.interpolate(x, scale_factor=2, mode=self.how) if self.how else y


@torch.no_grad()
@pytest.mark.parametrize("how", ["before", "nearest"])
def test_an_image_that_the_teacher_adds_is_carried_by_no_level(how: str) -> None:
    network = Repeating(how).double()
    assert LeveledTeacher.of(network, (0.0, 1.0)).widths == (3, 11, 12)
    levels = LeveledTeacher.of(network, (0.0, 1.0), image_skip=None)
    assert levels.widths == (3, 8, 12)
    x = noise(1, 3, 4, 5)
    torch.testing.assert_close(levels.output(x), network.body(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Repeating("", colours=1), "its output has 1 channel and its input 3"),
        (Repeating("bicubic"), "the network adds the image itself, enlarged by bicubic interpolation"),
        (nn.Conv2d(3, 3, 3, padding=1), "the network enlarges nothing"),
    ],
)
def test_an_image_that_cannot_be_outside(network: nn.Module, reason: str) -> None:
    with pytest.raises(InvalidInput, match=f"the nearest-neighbour image cannot stay outside: {reason}"):
        LeveledTeacher.of(network, (0.0, 1.0), image_skip="nearest")
    left_out = LeveledTeacher.of(network, (0.0, 1.0), image_skip=None)
    as_it_is = LeveledTeacher.of(network, (0.0, 1.0), image_skip="none")
    assert left_out.widths == as_it_is.widths and left_out.image_skip == as_it_is.image_skip


@torch.no_grad()
@pytest.mark.parametrize("seed", range(12))
def test_random_networks_less_the_image(seed: int) -> None:
    network: Any = random_network(seed)
    try:
        levels = LeveledTeacher.of(network, (0.0, 1.0), image_skip=None)
    except UnsupportedModel:
        pytest.skip("has no plain form")
    x = noise(1, network.channels, 5, 4)
    output = F.pixel_shuffle(levels.output(x), levels.scale)
    output = output + enlarged(x, levels.scale) if levels.image_skip else output
    expected = network.double()(x)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-9 * float(expected.abs().max() + 1))


def test_levels_that_are_left_out_only_move_the_values_on() -> None:
    levels = leveled()
    kept = (2, 3, 6)
    shallow = levels.keep(kept)
    assert shallow.widths == (3, *(levels.widths[k] for k in kept), levels.widths[-1])
    assert [level.number for level in shallow.levels] == [1, 2, 3, 4]
    assert [level.spans for level in shallow.levels] == [2, 1, 3, len(levels.levels) - 6]
    assert not shallow.whole and levels.whole and levels.keep(range(1, len(levels.levels))) == levels
    x = noise(1, 3, 5, 6).float()
    assert torch.equal(shallow.output(x), levels.output(x))
    every = [features.after for features in levels.inner_features(x)]
    for features, k in zip(shallow.inner_features(x), kept, strict=True):
        assert torch.equal(features.after, every[k - 1])


def test_targets_are_the_values_before_the_relus_and_those_behind_them() -> None:
    """Of a level that carries values beside its ReLUs, these only once."""
    levels = leveled()
    assert any(level.relu.any() and not level.relu.all() for level in levels.levels)
    values = levels.start(noise(1, 3, 5, 6))
    for level in levels.levels:
        features = levels.advance(level, values)
        want = torch.cat([features.before, features.after[:, level.relu]], dim=1)
        assert torch.equal(torch.cat(features.targets, dim=1), want)
        values = features.values
