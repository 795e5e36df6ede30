"""Where a distillation starts: maps, and new weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler import shrink
from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.quantization.start_integers import start_integers
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.training.losses import Distillation, QuantizationAware, Supervised
from memsr_compiler.training.models import new_plain
from memsr_compiler.training.muon import Muon
from memsr_compiler.training.starts import Start, initial_maps, match_levels, no_means, random_maps, restart


def test_initial_maps_are_least_squares(teacher: EDSR, student: PlainNet) -> None:
    levels = LeveledTeacher.of(teacher, (0.0, 1.0))
    images = [torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(5))]
    found = initial_maps(levels, student, images)

    def distance(maps: tuple[Tensor, ...]) -> float:
        objective = Distillation(student, levels, maps, weight=1, epsilon=1, means=no_means(student))
        return float(objective(images[0], torch.zeros(2, 1, 3, 40, 40), 0.0)[2].detach())

    best = distance(found)
    assert all(distance(tuple(m + 0.01 * torch.randn(m.shape) for m in found)) > best for _ in range(5))


def test_a_student_of_another_teacher_is_refused(student: PlainNet) -> None:
    other = LeveledTeacher.of(EDSR(scale=2, blocks=3, channels=8, tail="conv"), (0.0, 1.0))
    with pytest.raises(InvalidInput, match="another teacher"):
        random_maps(other, student, 0)


def test_layers_of_few_follow_the_levels_that_they_stand_for(teacher: EDSR) -> None:
    images = [torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    student = shrink(teacher, width=8, layers=3, calibration=images, refit=0)
    levels = LeveledTeacher.of(teacher, (0.0, 1.0))
    assert len(levels.levels) > 3 and len(student.info.levels) == 2
    matched = match_levels(levels, student)
    assert len(matched.levels) == 3 and torch.equal(matched.output(images[0]), levels.output(images[0]))
    maps = initial_maps(matched, student, images)
    objective = Distillation(student, matched, maps, weight=1, epsilon=1, means=no_means(student))
    distance = float(objective(images[0], torch.zeros(1, 1, 3, 48, 48), 0.0)[2].detach())
    features = [f.after for f in levels.inner_features(images[0])]
    spread = torch.stack([features[i - 1].var() for i in student.info.levels]).mean()
    assert distance < 0.5 * float(spread)  # of those levels, not of others
    with pytest.raises(InvalidInput, match="another teacher"):
        match_levels(LeveledTeacher.of(student, (0.0, 1.0)).keep([1]), student)
    student.info = replace(student.info, levels=())  # as earlier versions wrote it
    with pytest.raises(InvalidInput, match="which levels its layers stand for; derive it anew, or give --lambda 0"):
        match_levels(levels, student)


@pytest.mark.parametrize("start", ["he", "he-uniform", "xavier", "xavier-uniform"])
def test_new_weights_have_the_variance_of_their_name(start: Start) -> None:
    net = new_plain(3, 64, 2)
    restart(net, start, seed=0)
    fan_in, fan_out = 64 * 9, 12 * 9
    expected = 2 / fan_in if start.startswith("he") else 2 / (fan_in + fan_out)
    weight = net[2].weight.detach()
    assert float(weight.var()) == pytest.approx(expected, rel=0.1)
    largest = float(weight.abs().max()) / expected**0.5  # in standard deviations; a uniform distribution ends at sqrt 3
    assert (largest < 3**0.5) if start.endswith("uniform") else (largest > 3)
    assert not any(bool(layer.bias.any()) for layer in net)


@pytest.mark.parametrize("start", ["as-is", "he", "he-uniform", "xavier", "xavier-uniform"])
def test_new_weights_begin_as_the_image_where_it_is_outside(start: Start) -> None:
    net = new_plain(6, 16, 2, "nearest")
    restart(net, start, seed=0)
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(net(x), F.interpolate(x, scale_factor=2, mode="nearest"))
    assert all(bool(layer.weight.all()) for layer in list(net)[:-1])


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, Muon])
def test_new_weights_learn_where_the_image_is_outside(optimizer: type[torch.optim.Adam | Muon]) -> None:
    """By He's last kernel all ReLUs came to an end in the first steps, whatever the rate."""
    torch.manual_seed(0)
    net = new_plain(6, 32, 2, "nearest")
    low = torch.rand(8, 3, 24, 24)
    high = F.interpolate(low, scale_factor=2, mode="bicubic")
    objective = Supervised(net)
    steps = optimizer(net.parameters(), lr=2e-3)
    for _ in range(60):
        steps.zero_grad()
        objective(low, high[:, None], 0.0)[0].backward()
        steps.step()
    nearest = F.interpolate(low, scale_factor=2, mode="nearest")
    assert (net(low) - high).abs().mean() < 0.7 * (nearest - high).abs().mean()


@pytest.mark.parametrize("start", ["he", "identity"])
def test_new_weights_learn_in_8_bits_where_the_image_is_outside(start: Start) -> None:
    """A last kernel of zero has no steps of its own, and every small weight would be rounded to zero."""
    torch.manual_seed(0)
    net = new_plain(4, 16, 2, "nearest")
    restart(net, start, seed=0, from_image=False)
    low = torch.rand(8, 3, 24, 24)
    high = F.interpolate(low, scale_factor=2, mode="bicubic")
    objective = QuantizationAware(start_integers(net, [torch.rand(4, 3, 32, 32)]))
    losses = []
    steps = torch.optim.Adam(objective.parameters(), lr=2e-3)
    for i in range(60):
        steps.zero_grad()
        loss = objective(low, high[:, None], i / 60)[0]
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("image_skip", ["", "nearest"])
@pytest.mark.parametrize("width", [3, 8, 9])
def test_identity_begins_as_the_nearest_neighbour_image(width: int, image_skip: Literal["", "nearest"]) -> None:
    net = new_plain(12, width, 3, image_skip)
    restart(net, "identity", seed=0)
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(net(x), F.interpolate(x, scale_factor=3, mode="nearest"))


def test_identity_carries_half_of_the_features_through_all_layers() -> None:
    net = new_plain(6, 10, 2)
    restart(net, "identity", seed=0)
    first = net[0](torch.rand(1, 3, 5, 6))
    value = first
    for layer in list(net)[1:-1]:
        value = layer(value)
    assert torch.equal(value[:, :5], first[:, :5]) and not torch.equal(value[:, 5:], first[:, 5:])
    assert bool(net[3].weight[5:].all())  # the others are new weights, which read them too


def test_identity_is_refused_where_the_image_cannot_be_carried() -> None:
    with pytest.raises(InvalidInput, match="carry the 3 channels"):
        restart(new_plain(4, 2, 2), "identity", seed=0)
    net = new_plain(4, 8, 2)
    net.info = replace(net.info, input_range=(-1.0, 1.0))
    with pytest.raises(InvalidInput, match="images from 0 on"):
        restart(net, "identity", seed=0)
