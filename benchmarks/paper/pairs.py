"""Pairs of a teacher and its plain student, x2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import atomic_write
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.remarks import attach_remarks
from paper.settings import ROOT, Settings

SCALE = 2
SHIPPED = ROOT / "examples" / "edsr_8x32_x2.pt"


@dataclass(frozen=True)
class Pair:
    """A teacher and the width of its student.

    weights   the teacher's file in the folder of models;   shipped   what stands for it where there is no such folder
    """

    words: str
    weights: str
    width: int
    shipped: Path | None = None


PAIRS: Mapping[str, Pair] = {
    "small": Pair("MLPerf Mobile's EDSR, 5 blocks of 32", "edsr_5x32_x2.safetensors", 32, SHIPPED),
    "teacher-m": Pair("Teacher-M, 16 blocks of 64", "teacher_m_x2.safetensors", 64),
}

SMOKE = {"scale": SCALE, "blocks": 1, "channels": 8, "tail": "conv"}
SMOKE_WIDTH = 6


@dataclass(frozen=True)
class Found:
    """The pair that is trained: the teacher's file, the student's width, and both in words."""

    teacher: Path
    width: int
    words: str


def find_pair(settings: Settings) -> Found:
    """The pair of the settings.  Raises InvalidInput where its teacher is not there."""
    if settings.smoke:
        return Found(_smoke_teacher(settings.runs), SMOKE_WIDTH, "a teacher of 1 block with random weights")
    pair = PAIRS[settings.pair]
    if settings.models is None and pair.shipped is not None:
        return Found(pair.shipped, pair.width, "the shipped EDSR, 8 blocks of 32")
    if settings.models is None:
        raise InvalidInput(f"--pair {settings.pair}: its teacher does not ship; give --models, with {pair.weights}")
    path = settings.models / pair.weights
    if not path.is_file():
        raise InvalidInput(f"--models {settings.models}: has no {pair.weights}, the teacher of --pair {settings.pair}")
    return Found(path, pair.width, pair.words)


def _smoke_teacher(runs: Path) -> Path:
    """A tiny teacher with random weights."""
    path = runs / "teacher.pt"
    if not path.exists():
        runs.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = EDSR(**SMOKE)  # type: ignore[arg-type]
        state = network.state_dict()
        attach_remarks(state, "edsr", SMOKE, (0.0, 1.0))
        with atomic_write(path) as file:
            torch.save(state, file)
    return path
