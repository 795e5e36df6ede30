"""--device and --provider: refused before any work where they are not to be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.command_line import Run

from memsr_compiler import compile_to_plain, export_onnx
from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.teachers.families.edsr import EDSR


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a teacher, its plain network and a photograph, where the user is."""
    torch.manual_seed(0)
    teacher = EDSR(scale=2, blocks=1, channels=4).eval()
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    export_onnx(compile_to_plain(teacher), tmp_path / "plain.onnx")
    write_image(tmp_path / "a.png", sample_photographs()[0][:20, :20])
    monkeypatch.chdir(tmp_path)
    return tmp_path


WITH_DEVICE = [
    ("convert", "teacher.pt"),
    ("verify", "teacher.pt", "plain.onnx"),
    ("shrink", "teacher.pt", "--width", "8"),
    ("sweep", "teacher.pt", "--width", "8"),
    ("similarity", "teacher.pt", "plain.onnx"),
    ("eval", "teacher.pt"),
]
WITH_PROVIDER = [
    ("upscale", "a.png", "b.png", "--model", "plain.onnx"),
    ("upscale", "a.png", "b.png", "--model", "plain.onnx", "--tile", "off"),
    ("eval", "plain.onnx"),
    ("bench", "plain.onnx"),
]


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize("command", WITH_DEVICE)
def test_a_device_that_is_not_there_is_refused(run: Run, here: Path, command: tuple[str, ...]) -> None:
    before = sorted(here.iterdir())
    status, out, err = run(*command, "--device", "cuda")
    assert status == 2 and out == "" and err.count("\n") == 1
    assert "device cuda: torch" in err and "CUDA" in err
    assert sorted(here.iterdir()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize("command", WITH_PROVIDER)
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_refused(run: Run, here: Path, command: tuple[str, ...], provider: str) -> None:
    if command[0] == "upscale":
        pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")
    before = sorted(here.iterdir())
    status, out, err = run(*command, "--provider", provider)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert f"--provider {provider}" in err
    assert sorted(here.iterdir()) == before
