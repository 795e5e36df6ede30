"""Which levels a student of fewer layers keeps."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch
from helpers.levels import image_batch, leveled
from torch import nn

from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.widths.kept_levels import SPREAD, best_levels, even_levels, missed_relus


def test_even_levels() -> None:
    assert even_levels(12, 5) == (2, 4, 6, 9, 11)
    for inner in range(12):
        for count in range(inner + 1):
            levels = even_levels(inner, count)
            assert len(set(levels)) == count and all(1 <= level <= inner for level in levels)


def test_the_best_levels_are_the_best_of_all_choices() -> None:
    missed = [0.0, 3.0, 0.0, 2.0, 1.0, 0.0, 4.0]

    def cost(kept: tuple[int, ...]) -> float:
        ends = (0, *kept, len(missed) + 1)
        gaps = sum(((b - a) / (len(missed) + 1)) ** 2 for a, b in pairwise(ends))
        return sum(m for i, m in enumerate(missed, 1) if i not in kept) / sum(missed) + SPREAD * gaps

    for count in range(len(missed) + 1):
        best = min(combinations(range(1, len(missed) + 1), count), key=cost)
        assert cost(best_levels(missed, count)) == pytest.approx(cost(best))


def test_without_relus_the_even_choice_is_best() -> None:
    assert best_levels([0.0] * 11, 3) == (3, 6, 9) == even_levels(11, 3)


def test_levels_whose_relus_do_most_are_missed_most() -> None:
    """A level whose values are never negative is a straight line already; nor is one missed that has no ReLU."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 12, 3, padding=1)]
    assert convs[0].bias is not None
    with torch.no_grad():
        convs[0].bias += 9  # far above what the rest adds up to
    network = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2], nn.PixelShuffle(2))
    first, second = missed_relus(LeveledTeacher.of(network, (0.0, 1.0)), [image_batch()])
    assert first < 1e-6 * second

    teacher = leveled()
    missed = missed_relus(teacher, [image_batch()])
    for level, lost in zip(teacher.levels, missed, strict=False):
        assert (lost > 0) == bool(level.relu.any())
