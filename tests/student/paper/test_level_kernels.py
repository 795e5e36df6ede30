"""A level as one kernel, against the level itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.levels import features, image_batch, paper_teacher
from helpers.networks import random_images, random_network
from torch import Tensor

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.paper.features import advance, columns, measure_moments
from memsr_compiler.student.paper.level_kernels import level_kernel
from memsr_compiler.student.statistics.moments import Moments, pixels
from memsr_compiler.teachers.families.edsr import Tail


def check_kernels(teacher: LeveledTeacher, x: Tensor) -> None:
    values, moments = teacher.start(x), Moments.none(teacher.input.channels)
    for level, (below, before, after) in zip(teacher.levels, features(teacher, x), strict=True):
        kernel = level_kernel(teacher, level)
        ones = torch.ones_like(x[:, :1])
        got = F.conv2d(torch.cat([ones, below], 1), kernel, padding=kernel.shape[-1] // 2)
        # float64; the kernel sums in another order than the graph, over thousands of terms in random networks
        torch.testing.assert_close(got, before, rtol=1e-9, atol=1e-9)
        made = advance(teacher, level, values)
        values = {name: part.detach() for name, part in made.items()}
        torch.testing.assert_close(torch.cat([*values.values()], 1), after, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(torch.cat([*columns(level, values)], 1), pixels(after), rtol=1e-9, atol=1e-9)
        # halves of the images, as there are several batches, and what the level below held is told
        halves = [{name: part[rows] for name, part in values.items()} for rows in (slice(1), slice(1, None))]
        moments = measure_moments(teacher, level, halves, moments)
        want = Moments.of(pixels(after))
        assert moments.count == want.count
        torch.testing.assert_close(moments.total, want.total, rtol=1e-9, atol=1e-7)
        torch.testing.assert_close(moments.products, want.products, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("tail", ["conv", "edsr"])
def test_a_level_is_its_kernel_on_the_level_below_and_the_constant(tail: Tail) -> None:
    for size in (1, 2, 9):
        check_kernels(paper_teacher(tail=tail), image_batch(2, size))


def test_levels_of_random_networks_are_their_kernels() -> None:
    checked = 0
    for seed in range(40):
        network = random_network(seed)
        try:
            teacher = LeveledTeacher.of(network, (0.0, 1.0))
        except UnsupportedModel:
            continue
        for x in random_images(network, (0.0, 1.0)):
            check_kernels(teacher, x)
        checked += 1
    assert checked > 25
