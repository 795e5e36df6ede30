"""Labels are the teacher's outputs, whatever is cut of them and however it is turned, and are made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training import new_teacher
from torch import Tensor, nn

from memsr_compiler.images.files import write_image
from memsr_compiler.plain.info import Takes
from memsr_compiler.training.labels import Labeller
from memsr_compiler.training.patches import Labels, Patches, RawPhotograph, prepare_photographs

NAME = "a" * 64


class Local(nn.Module):
    """A network that sees single pixels, so that a turned patch's output is the turned output."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.gain = nn.Parameter(torch.tensor([0.9, 0.5, 1.3])[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        return nn.functional.interpolate(x * self.gain + 0.1, scale_factor=2, mode="nearest")


@pytest.fixture
def prepared(photographs: Path, tmp_path: Path) -> list[RawPhotograph]:
    return prepare_photographs(photographs, tmp_path / "cache", scale=2, patch=8)


def patches(photographs: list[RawPhotograph], labels: Labels, takes: Takes) -> Patches:
    return Patches(photographs, scale=2, patch=8, seed=0, input_range=takes.input_range, labels=labels)


@pytest.mark.parametrize("high", [1.0, 255.0])
def test_a_patch_has_what_the_teacher_makes_of_it(prepared: list[RawPhotograph], high: float) -> None:
    teacher, takes = Local(), Takes(2, 3, (0.0, high))
    labelled = Labeller(teacher, takes, NAME, "both").label(prepared)
    own, both = (patches(labelled, labels, takes) for labels in ("teacher", "both"))
    for i in range(20):
        low, wanted, _ = own[i]
        with torch.no_grad():
            expected = teacher(low[None])
        assert wanted.shape == (1, 3, 16, 16)
        assert float((wanted - expected).abs().max()) <= high / 255 / 8  # float16 at 255 has steps of 1/8
        assert torch.equal(both[i][1][1], wanted[0]) and both[i][1].shape == (2, 3, 16, 16)
        assert torch.equal(both[i][1][0], patches(labelled, "photographs", takes)[i][1][0])


def test_they_are_made_once(prepared: list[RawPhotograph]) -> None:
    teacher, takes = Local(), Takes(2)
    labeller = Labeller(teacher, takes, NAME, "teacher")
    first = labeller.label(prepared)
    asked = teacher.asked
    assert labeller.label(prepared) == first and teacher.asked == asked == len(prepared)
    assert first[0].label is not None
    first[0].label.write_bytes(b"cut off")
    assert labeller.label(prepared) == first and teacher.asked == asked + 1
    Labeller(teacher, takes, "b" * 64, "teacher").label(prepared)  # another teacher has labels of its own
    assert teacher.asked == asked + 1 + len(prepared)


def test_bands_give_what_the_whole_image_does(tmp_path: Path) -> None:
    folder, takes = tmp_path / "high", Takes(2)
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (1100, 24, 3)).astype(np.uint8)
    write_image(folder / "tall.png", pixels)
    (photograph,) = prepare_photographs(folder, tmp_path / "cache", scale=2, patch=8)
    teacher = new_teacher()
    (labelled,) = Labeller(teacher, takes, NAME, "teacher").label([photograph])
    low, _ = photograph.open(2)
    with torch.no_grad():
        whole = teacher(torch.from_numpy(low.transpose(2, 0, 1).copy())[None] / 255)[0].permute(1, 2, 0) * 255
    assert labelled.label is not None
    label = np.memmap(labelled.label, np.float16, "r", shape=(1100, 24, 3))
    assert float(np.abs(label - whole.numpy()).max()) <= 1 / 8
