"""Networks and photographs for tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.teachers import write_teacher
from helpers.trained import SHIPPED

from memsr_compiler import compile_to_plain, export_onnx
from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.vdsr import VDSR


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """The file of a small trained network."""
    torch.manual_seed(0)
    path = tmp_path / "teacher.pt"
    write_teacher(EDSR(scale=2, blocks=1, channels=8), path)
    return path


@pytest.fixture(scope="module")
def teacher_of_255(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a trained network for 0..255, which a photograph shows, and `--no-probe` takes for one for 0..1."""
    path = tmp_path_factory.mktemp("teacher") / "of_255.pt"
    weights = torch.load(SHIPPED, weights_only=True)
    torch.save({name: held * 255 if name.endswith("bias") else held for name, held in weights.items()}, path)
    return path


@pytest.fixture
def grey_teacher(tmp_path: Path) -> Path:
    """The file of a small trained network on Y."""
    torch.manual_seed(0)
    path = tmp_path / "vdsr.pt"
    write_teacher(VDSR(blocks=2, channels=8), path)
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small ones."""
    folder = tmp_path_factory.mktemp("photographs")
    for i, image in enumerate(sample_photographs()[:2]):
        write_image(folder / f"{i}.png", image[100:220, 100:250])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small plain network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "plain.onnx"
    export_onnx(compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval()), path)
    return path
