"""Levels compute what the network computes."""

from __future__ import annotations

import torch
from helpers.levels import noise

from memsr_compiler import compile_to_plain
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.teachers.families.edsr import EDSR


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
