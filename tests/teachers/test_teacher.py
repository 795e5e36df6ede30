"""Teachers: what a file, a module or a plain network is taken for, and what is assumed of it."""

from __future__ import annotations

import gc
import hashlib
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.teachers import write_teacher
from torch import Tensor, nn

from memsr_compiler import compile_to_plain, export_onnx, load_teacher, read_teacher, save_plain
from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.vdsr import VDSR
from memsr_compiler.teachers.teacher import Teacher, as_teacher, assume_range, measure_takes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return write_teacher(EDSR(scale=3, blocks=1, channels=4), tmp_path / "teacher.pt")


def test_a_teacher_says_what_has_to_be_known(file: Path) -> None:
    teacher = read_teacher(file)
    assert (teacher.family, teacher.scale, teacher.path) == ("edsr", 3, file)
    assert teacher.takes == Takes(3, 3, teacher.input_range)
    assert teacher.hyper["blocks"] == 1 and not teacher.module.training
    assert teacher.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    for a, b in zip(teacher.module.parameters(), load_teacher(file).parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_a_person_means(file: Path, tmp_path: Path) -> None:
    module = nn.Conv2d(3, 3, 1)
    teacher = Teacher(module=module, input_range=(0.0, 255.0))
    assert as_teacher(teacher) is teacher
    assert as_teacher(module).module is module and as_teacher(module).range_is_assumed
    assert as_teacher(module).input_range == (0.0, 1.0)
    assert as_teacher(str(file)).sha256 == read_teacher(file).sha256
    net = compile_to_plain(module, input_range=(-1.0, 1.0))
    export_onnx(net, tmp_path / "plain.onnx")
    assert as_teacher(net).input_range == (-1.0, 1.0)
    plain = as_teacher(tmp_path / "plain.onnx", plain=True)
    assert isinstance(plain.module, PlainNet) and plain.input_range == (-1.0, 1.0) and not plain.range_is_assumed


def test_a_module_from_a_file_keeps_the_range_that_the_file_says(tmp_path: Path) -> None:
    """It was taken for one of 0 to 1, beside the warning that 0 to 255 had been taken."""
    torch.manual_seed(0)
    file = tmp_path / "teacher.pt"
    torch.save(EDSR(scale=2, blocks=1, channels=4, mean=(0.45, 0.44, 0.4), rgb_range=255).state_dict(), file)
    teacher, module = read_teacher(file, probe=False), load_teacher(file, probe=False)
    assert teacher.input_range == (0.0, 255.0)
    assert as_teacher(teacher.module).input_range == (0.0, 255.0)
    known = as_teacher(module)
    assert known.module is module
    assert (known.input_range, known.assumed) == (teacher.input_range, teacher.assumed)
    assert known.stated_range == teacher.stated_range
    assert compile_to_plain(module).info.input_range == (0.0, 255.0)
    assert compile_to_plain(module).info.assumed == compile_to_plain(teacher).info.assumed
    told = as_teacher(module, input_range=(0.0, 1.0))
    assert told.input_range == (0.0, 1.0) and not told.range_is_assumed
    around = as_teacher(nn.Sequential(module))
    assert around.input_range == (0.0, 1.0) and around.range_is_assumed
    assert as_teacher(load_teacher(file, input_range=(0.0, 255.0), probe=False)).input_range == (0.0, 255.0)


def test_what_is_known_of_a_module_does_not_keep_it(file: Path) -> None:
    module = weakref.ref(load_teacher(file))
    gc.collect()
    assert module() is None


def test_a_range_that_is_told_is_not_assumed() -> None:
    told = as_teacher(nn.Conv2d(3, 3, 1), input_range=(0.0, 255.0))
    assert told.input_range == (0.0, 255.0) and not told.range_is_assumed
    assert as_teacher(
        Teacher(module=nn.Identity(), assumed=("a", assume_range((0.0, 1.0)))), input_range=(0, 1)
    ).assumed == ("a",)


@pytest.mark.parametrize("wrong", [(1.0, 0.0), (0.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_range_that_is_none(wrong: tuple[float, float]) -> None:
    with pytest.raises(InvalidInput, match=r"is empty or infinite; most networks take 0 1 or 0 255"):
        as_teacher("nowhere.pt", input_range=wrong)  # before the file is looked for
    with pytest.raises(InvalidInput, match="is empty or infinite"):
        Teacher(module=nn.Identity(), input_range=wrong)


@pytest.mark.parametrize("wrong", [(0.0, 1e39), (-1e300, 1.0), (0.0, 1e-310)])
def test_a_range_beyond_float32(wrong: tuple[float, float], tmp_path: Path) -> None:
    """Which ended in errors of torch's and of Python's own."""
    with pytest.raises(InvalidInput, match=r"is beyond what float32 computes with; most networks take 0 1 or 0 255"):
        Teacher(module=nn.Identity(), input_range=wrong)
    net = compile_to_plain(EDSR(scale=2, blocks=1, channels=4, mean=None).eval())
    net.info = replace(net.info, input_range=wrong)
    with pytest.raises(ExportError, match="is beyond what float32"):
        save_plain(net, tmp_path / "plain.safetensors")


@pytest.mark.parametrize("wrong", [None, 3, [nn.Identity()], torch.zeros(1), nn.Identity])
def test_what_is_no_teacher(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=f"a teacher is wanted: .* not {type(wrong).__name__}"):
        as_teacher(wrong)


class Fussy(nn.Module):
    """Takes one channel, and says so with an error that is not torch's."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 1:
            raise ValueError("grey images only")
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_what_a_network_takes_is_measured() -> None:
    assert Teacher(module=VDSR(blocks=1, channels=2)).takes == Takes(1, 1, (0.0, 1.0))
    assert Teacher(module=Fussy()).takes == Takes(2, 1, (0.0, 1.0))
    assert measure_takes(nn.PixelShuffle(1), (0.0, 255.0), "it") == Takes(1, 3, (0.0, 255.0))
    for wrong in (nn.Flatten(), Two(), nn.MaxPool2d(2)):
        with pytest.raises(InvalidInput, match=f"{type(wrong).__name__}: does not enlarge images by a whole factor"):
            Teacher(module=wrong).scale  # noqa: B018
