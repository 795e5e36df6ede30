"""The losses against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.training import require_gradients

from memsr_compiler import compile_to_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.training.losses import Distillation, feature_weight
from memsr_compiler.training.starts import input_means, no_means, random_maps


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_loss_is_eq_12_to_14(teacher: EDSR, student: PlainNet, share: float) -> None:
    """In float64, where two orders of summing differ by far less than assert_close allows."""
    levels = LeveledTeacher.of(teacher, (0.0, 1.0))
    maps = random_maps(levels, student, seed=1)
    objective = Distillation(student, levels, maps, weight=0.3, epsilon=1e-5, means=no_means(student)).double()
    low, high = torch.rand(2, 3, 7, 9, dtype=torch.float64), torch.rand(2, 2, 3, 14, 18, dtype=torch.float64)
    total, pixels, features = objective(low, high, share)

    plain = compile_to_plain(teacher).double()
    own, values, theirs, known = low, [], [], levels.start(low)
    for layer, level in zip(list(student)[:-1], levels.levels, strict=False):
        own = layer(own)
        values.append(own)
        held = levels.advance(level, known)
        theirs.append(held.after)
        known = held.values
    expected = [
        torch.mean((torch.einsum("or,nrhw->nohw", m[:, :-1].double(), v) + m[:, -1, None, None] - t) ** 2)
        for m, v, t in zip(maps, values, theirs, strict=True)
    ]
    torch.testing.assert_close(features, sum(expected) / len(expected))
    torch.testing.assert_close(pixels, (student(low)[:, None] - high).abs().mean())
    torch.testing.assert_close(total, pixels + 0.3 * (1e-5**share) * features)
    # The plain network's weights are rounded to float32, levels' are not: layers add up to 2^-24 of their values each.
    torch.testing.assert_close(F.pixel_shuffle(levels.output(low), 2), plain(low), rtol=1e-4, atol=1e-5)


def test_the_features_weight_falls_from_lambda_to_epsilon_of_it() -> None:
    assert feature_weight(0, weight=0.3, epsilon=1e-5) == pytest.approx(0.3)
    assert feature_weight(1, weight=0.3, epsilon=1e-5) == pytest.approx(3e-6)


@pytest.mark.parametrize("centred", [False, True])
def test_gradients_are_those_of_finite_differences(teacher: EDSR, student: PlainNet, centred: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    low, high = (torch.rand(1, *t, 3, s, s, generator=generator, dtype=torch.float64) for t, s in (((), 4), ((1,), 8)))
    means = input_means(student, [low]) if centred else no_means(student)
    levels, net = LeveledTeacher.of(teacher.double(), (0.0, 1.0)), student.double()
    maps = random_maps(levels, net, 1)
    objective = Distillation(net, levels, maps, weight=0.3, epsilon=1e-2, means=means).double()
    require_gradients(objective, low, high, share=0.5)


def test_without_weight_the_teacher_is_not_asked(student: PlainNet, teacher: EDSR) -> None:
    levels = LeveledTeacher.of(teacher, (0.0, 1.0))
    objective = Distillation(
        student, levels, random_maps(levels, student, 0), weight=0, epsilon=1, means=no_means(student)
    )
    objective._teacher = ()  # type: ignore[assignment]
    total, pixels, features = objective(torch.rand(1, 3, 5, 5), torch.rand(1, 1, 3, 10, 10), 0.0)
    assert total == pixels and features == 0 and not objective.maps


def test_centred_training_begins_with_the_same_network(teacher: EDSR, student: PlainNet) -> None:
    levels, x = LeveledTeacher.of(teacher, (0.0, 1.0)), torch.rand(1, 3, 1, 3, dtype=torch.float64)
    means = input_means(student, [torch.rand(2, 3, 9, 9)])
    before = student.double()(x)
    maps = random_maps(levels, student, 0)
    objective = Distillation(student, levels, maps, weight=0.3, epsilon=1e-5, means=means).double()
    torch.testing.assert_close(objective.settle()(x), before)
    assert objective(x, x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, None], 0.0)[1] >= 0
