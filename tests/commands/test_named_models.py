"""memsrc models, and networks that ship by name wherever a command takes a network's file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.command_line import Run

from memsr_compiler import Upscaler
from memsr_compiler.images.files import read_image
from memsr_compiler.models.catalogue import DEFAULT, find_model, list_models


def test_models_are_listed(run: Run) -> None:
    status, out, _ = run("models")
    assert status == 0
    for model in list_models():
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [model.name]]
        assert f"{model.psnr['Set5']:.2f}" in line and f"{model.parameters:,}" in line and model.licence in line
        if model.int8:
            assert f"as TFLite  {model.name}: Set5 {model.psnr_tflite['Set5']:.2f}, " in out
    status, out, _ = run("models", "--json")
    assert [entry["name"] for entry in json.loads(out)["models"]] == [model.name for model in list_models()]


def test_upscale_needs_no_network(run: Run, photographs: Path, tmp_path: Path) -> None:
    source, large = photographs / "0.png", tmp_path / "large.png"
    status, out, err = run("upscale", source, large)
    assert status == 0, err
    assert DEFAULT in out
    with Upscaler(find_model(DEFAULT).path) as upscale:
        expected = upscale(read_image(source)).astype(int)
    assert abs(read_image(large) - expected).max() <= 1  # by bands of other heights: the last bit of float32


def test_a_name_goes_wherever_a_file_does(run: Run, photographs: Path, tmp_path: Path) -> None:
    status, out, err = run("eval", DEFAULT, "bicubic", "--data", photographs)
    assert status == 0 and f"{DEFAULT}.onnx" in out, err
    status, _, err = run("quantize", DEFAULT, "--out", tmp_path / "a.onnx", "--calibration", photographs)
    assert status == 0, err


def test_a_file_comes_before_a_name(
    run: Run, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT).write_bytes(b"no network")
    status, _, err = run("upscale", photographs / "0.png", "large.png")
    assert status == 2 and f"{DEFAULT}: is no plain network" in err
    shutil.copy(find_model(DEFAULT).path, DEFAULT)
    assert run("upscale", photographs / "0.png", "large.png")[0] == 0


def test_a_wrong_name_ends_with_those_that_there_are(run: Run, photographs: Path, tmp_path: Path) -> None:
    status, _, err = run("upscale", photographs / "0.png", tmp_path / "large.png", "--model", "x2-smal")
    assert status == 2 and f"did you mean {DEFAULT}?" in err and err.count("\n") == 1
    assert not (tmp_path / "large.png").exists()
