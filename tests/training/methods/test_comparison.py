"""SRKD and FAKD against their formulas, written out number by number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.training import require_gradients
from torch import Tensor

from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.training.methods import fakd
from memsr_compiler.training.methods.comparison import DISTANCES, Comparison, choose_depths
from memsr_compiler.training.methods.fakd import affinity_distance
from memsr_compiler.training.methods.srkd import statistics_distance
from memsr_compiler.training.starts import no_means


def features(*channels: int, seed: int = 0) -> list[Tensor]:
    """Features (2, C, 3, 4) of each of these numbers of channels, some below zero."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, c, 3, 4, generator=generator, dtype=torch.float64) for c in channels]


def test_srkd_compares_the_mean_magnitudes() -> None:
    student, teacher = features(2, 5), features(4, 3, seed=1)
    expected = 0.0
    for mine, theirs in zip(student, teacher, strict=True):
        a, b = mine.numpy(), theirs.numpy()
        for n, y, x in np.ndindex(2, 3, 4):
            one = sum(abs(v) for v in a[n, :, y, x]) / a.shape[1]
            other = sum(abs(v) for v in b[n, :, y, x]) / b.shape[1]
            expected += (one - other) ** 2 / 24
    assert float(statistics_distance(student, teacher)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("largest", [1 << 22, 100, 1])
def test_fakd_compares_the_cosines_of_all_pixels(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    monkeypatch.setattr(fakd, "LARGEST", largest)  # in one piece, by bands, row by row
    student, teacher = features(2, 5), features(4, 3, seed=1)
    expected = 0.0
    for mine, theirs in zip(student, teacher, strict=True):
        a, b = mine.flatten(2).numpy(), theirs.flatten(2).numpy()
        for n, i, j in np.ndindex(2, 12, 12):
            cosines = [
                v[n, :, i] @ v[n, :, j] / np.linalg.norm(v[n, :, i]) / np.linalg.norm(v[n, :, j]) for v in (a, b)
            ]
            expected += abs(cosines[0] - cosines[1]) / (2 * 12 * 12)
    assert float(affinity_distance(student, teacher)) == pytest.approx(expected, rel=1e-12)


def test_fakd_does_not_mind_pixels_that_are_all_zero() -> None:
    student = torch.zeros(1, 2, 2, 2, requires_grad=True)
    affinity_distance([student], [torch.ones(1, 3, 2, 2)]).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None and bool(torch.isfinite(student.grad).all())


def test_depths_are_low_middle_and_high() -> None:
    assert choose_depths(34) == [11, 22, 33]
    assert choose_depths(4) == [1, 2, 3] and choose_depths(2) == [0, 1] and choose_depths(1) == [0]


@pytest.mark.parametrize("method", ["srkd", "fakd"])
def test_a_students_loss_is_pixels_and_the_weighted_distance(teacher: EDSR, student: PlainNet, method: str) -> None:
    levels = LeveledTeacher.of(teacher, (0.0, 1.0))
    distance = DISTANCES[method]
    objective = Comparison(student, levels, distance, weight=3.0, epsilon=0.01, means=no_means(student)).double()
    low, high = torch.rand(2, 3, 5, 4, dtype=torch.float64), torch.rand(2, 1, 3, 10, 8, dtype=torch.float64)
    total, pixels, features = objective(low, high, 0.5)
    own, value = [], low
    for layer in list(student)[:-1]:
        value = layer(value)
        own.append(value)
    theirs = [level.after for level in levels.like(low).inner_features(low)]
    expected = distance([own[i] for i in (1, 2, 3)], [theirs[i] for i in (1, 2, 3)])
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(pixels, (student(low)[:, None] - high).abs().mean())
    torch.testing.assert_close(total, pixels + 3.0 * 0.1 * features)


@pytest.mark.parametrize("method", ["srkd", "fakd"])
def test_gradients_are_those_of_finite_differences(teacher: EDSR, student: PlainNet, method: str) -> None:
    generator = torch.Generator().manual_seed(2)
    low, high = (torch.rand(1, *t, 3, s, s, generator=generator, dtype=torch.float64) for t, s in (((), 4), ((1,), 8)))
    levels, net = LeveledTeacher.of(teacher.double(), (0.0, 1.0)), student.double()
    objective = Comparison(net, levels, DISTANCES[method], weight=1.0, epsilon=1.0, means=no_means(net)).double()
    require_gradients(objective, low, high, share=0.5)


def test_without_weight_the_teacher_is_not_asked(teacher: EDSR, student: PlainNet) -> None:
    levels = LeveledTeacher.of(teacher, (0.0, 1.0))
    objective = Comparison(student, levels, statistics_distance, weight=0.0, epsilon=1.0, means=no_means(student))
    objective._teacher = ()  # type: ignore[assignment]
    total, pixels, features = objective(torch.rand(1, 3, 5, 5), torch.rand(1, 1, 3, 10, 10), 0.0)
    assert total == pixels and features == 0
