"""Labels are the teacher's outputs, whatever is cut of them and however it is turned, and are made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training import new_teacher
from torch import Tensor, nn

from memsr_compiler import compile_to_plain
from memsr_compiler.images.files import write_image
from memsr_compiler.plain.info import Takes
from memsr_compiler.training.labels import Labeller, measure_reach
from memsr_compiler.training.patches import (
    WAYS,
    Labels,
    Patches,
    RawPhotograph,
    prepare_photographs,
    turn,
    turn_back,
)

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
    content = first[0].label.read_bytes()
    first[0].label.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert labeller.label(prepared) == first and teacher.asked == asked + 2
    assert first[0].label.read_bytes() == content
    Labeller(teacher, takes, "b" * 64, "teacher").label(prepared)  # another teacher has labels of its own
    assert teacher.asked == asked + 2 + len(prepared)


class Shift(nn.Module):
    """Each layer moves the image a row up or down, so that the last sees as many rows away as there are layers."""

    def __init__(self, layers: int, row: int) -> None:
        super().__init__()
        self.layers = layers
        kernel = torch.zeros(3, 1, 3, 3)
        kernel[:, :, row, 1] = 1
        self.kernel = nn.Parameter(kernel)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.layers):
            x = nn.functional.conv2d(x, self.kernel, padding=1, groups=3)
        return nn.functional.interpolate(x, scale_factor=2, mode="nearest")


class Gated(nn.Module):
    """Every pixel is multiplied by what a gate makes of the whole image's mean, as in channel attention."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gain * (x.mean(dim=(2, 3), keepdim=True) - 0.5))
        return nn.functional.interpolate(x * gate, scale_factor=2, mode="nearest")


class Sixes(nn.Module):
    """Every six rows, counted from the first, are given their own largest value, as a pooling with a stride does."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        largest = nn.functional.max_pool2d(x * self.gain, (6, 1), ceil_mode=True)
        repeated = largest.repeat_interleave(6, dim=2)[:, :, : x.shape[2]]
        return nn.functional.interpolate(repeated, scale_factor=2, mode="nearest")


class Blank(nn.Module):
    """The same for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x * self.gain, scale_factor=2, mode="nearest")


@pytest.fixture
def tall(tmp_path: Path) -> RawPhotograph:
    """A photograph of 1100 rows, dark above and bright below, which is labelled by bands where that can be."""
    folder = tmp_path / "high"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 128, (1100, 24, 3)).astype(np.uint8)
    pixels[500:] += 128
    write_image(folder / "tall.png", pixels)
    (photograph,) = prepare_photographs(folder, tmp_path / "cache", scale=2, patch=8)
    return photograph


@pytest.mark.parametrize(
    "teacher", [new_teacher(), Shift(45, 0), Shift(45, 2), Shift(200, 0), Gated(), Sixes(), Blank()], ids=repr
)
def test_labels_of_bands_are_those_of_the_whole_photograph(teacher: nn.Module, tall: RawPhotograph) -> None:
    takes = Takes(2)
    (labelled,) = Labeller(teacher, takes, NAME, "teacher").label([tall])
    low = tall.open_low(2)
    with torch.no_grad():
        whole = teacher(torch.from_numpy(low.transpose(2, 0, 1).copy())[None] / 255)[0].permute(1, 2, 0) * 255
    assert labelled.label is not None
    label = np.memmap(labelled.label, np.float16, "r", shape=(1100, 24, 3))
    assert float(np.abs(label - whole.numpy()).max()) <= 1 / 8


class Downwards(nn.Module):
    """A network that a turned image is another for: every pixel takes half of the one above it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        mixed = x * (1 - self.gain) + torch.cat([x[:, :, :1], x[:, :, :-1]], 2) * self.gain
        return nn.functional.interpolate(mixed, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("way", range(WAYS))
def test_turning_back_undoes_turning(way: int) -> None:
    image = np.random.default_rng(0).random((3, 5, 2))
    assert np.array_equal(turn_back(turn(image, way), way), image)
    assert len({turn(image, w).tobytes() + bytes(turn(image, w).shape) for w in range(WAYS)}) == WAYS


def test_labels_of_an_ensemble_turn_as_images_do(prepared: list[RawPhotograph]) -> None:
    takes, first = Takes(2), prepared[0]
    (label,) = Labeller(Downwards(), takes, NAME, "teacher", ensemble=True).label([first])
    low, levels = torch.from_numpy(first.open_low(2).astype(np.float32).transpose(2, 0, 1))[None], label.open_label()
    with torch.no_grad():
        parts = [turn_back(Downwards()(_turn(low, w))[0].permute(1, 2, 0).numpy(), w) for w in range(WAYS)]
    assert np.abs(np.mean(parts, 0) - levels).max() <= 1 / 8
    (alone,) = Labeller(Downwards(), takes, NAME, "teacher").label([first])
    assert alone.label != label.label and not np.array_equal(alone.open_label(), levels)


def _turn(images: Tensor, way: int) -> Tensor:
    return torch.from_numpy(turn(images[0].permute(1, 2, 0).numpy(), way).copy()).permute(2, 0, 1)[None]


@pytest.mark.parametrize(
    ("teacher", "reach"),
    [(Local(), 0), (Shift(45, 0), 45), (Shift(45, 2), 45), (Shift(200, 0), None), (Gated(), None), (Sixes(), None)],
    ids=repr,
)
def test_how_far_a_teacher_sees_is_measured(teacher: nn.Module, reach: int | None) -> None:
    assert measure_reach(teacher, Takes(2)) == reach


def test_convolutions_see_as_far_as_their_kernels_say() -> None:
    plain = compile_to_plain(new_teacher())
    assert measure_reach(new_teacher(), Takes(2)) == plain.info.receptive_field == 5
    assert Labeller(new_teacher(), Takes(2, 3, (0.0, 255.0)), NAME, "both").reach == 5
