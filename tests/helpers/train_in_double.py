"""A short distillation in float64, by one process or by several: train_in_double.py NETWORKS PHOTOGRAPHS OUT.

NETWORKS is a folder with teacher.pt and student.safetensors.  In float64 nothing is left of how a processor rounds but
what the test's bound allows, so that what several processes make is compared with what one makes, on any processor.
"""

from __future__ import annotations

import sys
from pathlib import Path

from helpers.training import cut_patches
from torch import Tensor

from memsr_compiler.plain.load import load_plain
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.training import loop
from memsr_compiler.training.losses import Distillation
from memsr_compiler.training.recipe import Recipe
from memsr_compiler.training.starts import no_means, random_maps

RECIPE = Recipe(steps=6, batch=2, every=3, rate=1e-3, clip=0.5, average=0.9)


class InDouble(Distillation):
    """The same loss; patches are float32, and exact in float64."""

    def forward(self, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(low.double(), high.double(), share)


def train(networks: Path, photographs: Path, out: Path) -> None:
    """Train as RECIPE says; checkpoints are left in `out`."""
    out.mkdir(exist_ok=True)
    student = load_plain(networks / "student.safetensors", require_certificate=False)
    teacher = LeveledTeacher.of(read_teacher(networks / "teacher.pt").module, (0.0, 1.0))
    maps = random_maps(teacher, student, seed=0)
    objective = InDouble(student, teacher, maps, weight=0.3, epsilon=1e-5, means=no_means(student)).double()
    loop.run(objective, cut_patches(photographs, out / "cache"), RECIPE, out, validate=lambda _: 0.0)


if __name__ == "__main__":
    train(*map(Path, sys.argv[1:]))
