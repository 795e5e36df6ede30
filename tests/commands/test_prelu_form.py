"""Every command on a network in the PReLU form: it does its work, or says in one line that it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.command_line import Run, must_refuse
from helpers.teachers import write_teacher
from PIL import Image
from torch import nn

from memsr_compiler import load_plain, read_teacher
from memsr_compiler.plain.halves import run_in_halves
from memsr_compiler.teachers.families.ecbsr import ECBSR
from memsr_compiler.teachers.families.edsr import EDSR


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_teacher(EDSR(scale=2, blocks=2, channels=8).eval(), tmp_path_factory.mktemp("prelu") / "teacher.pt")


@pytest.fixture
def plain(run: Run, teacher: Path, tmp_path: Path) -> Path:
    status, out, err = run("convert", teacher, "--activation", "prelu", "--out", tmp_path / "plain.onnx")
    assert status == 0, (out, err)
    return tmp_path / "plain.onnx"


@pytest.mark.parametrize("options", [(), ("--tail", "keep", "--align", "1"), ("--dtype", "float16")])
def test_converted_and_verified(run: Run, teacher: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    command = ("convert", teacher, "--activation", "prelu", "--out", tmp_path / "plain.onnx", *options)
    status, out, err = run(*command, "--report", tmp_path / "report.html", "--verbose")
    assert status == 0 and "exact for every image" in out, (out, err)
    assert "exact for every value" in out and "carried free" in (tmp_path / "report.html").read_text("utf-8")
    status, out, err = run("verify", teacher, tmp_path / "plain.onnx")
    assert status == 0 and "equivalent" in out, (out, err)


def test_each_kind_of_file(run: Run, teacher: Path, tmp_path: Path) -> None:
    pytest.importorskip("tflite", reason="needs memsr_compiler[tflite]")
    for name in ("plain.safetensors", "plain.tflite"):
        status, _, err = run("convert", teacher, "--activation", "prelu", "--out", tmp_path / name)
        assert status == 0, err
    stored = load_plain(tmp_path / "plain.safetensors")
    read = read_teacher(tmp_path / "plain.tflite", probe=False).module
    x = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        assert float((read(x) - stored(x)).abs().max()) < 1e-5
    assert any(layer.slope is not None for layer in stored)


def test_float16_is_scaled_into_its_range(run: Run, tmp_path: Path) -> None:
    """A value of 200,000 behind a slope, and one that is carried beside it."""
    torch.manual_seed(0)
    network = ECBSR(scale=2, blocks=1, channels=4).eval()
    first, second = (m for m in network.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 4)
    first.weight.data *= 4000
    second.weight.data /= 4000
    source, out = write_teacher(network, tmp_path / "teacher.pt", (0.0, 255.0)), tmp_path / "plain.onnx"
    status, told, err = run("convert", source, "--activation", "prelu", "--dtype", "float16", "--out", out)
    assert status == 0 and "channels are stored as a smaller power" in told, (told, err)
    assert run_in_halves(load_plain(out), torch.rand(1, 3, 24, 24) * 255).isfinite().all()
    status, told, err = run("verify", source, out)
    assert status == 0, (told, err)


def test_options_that_contradict_each_other(run: Run, teacher: Path, tmp_path: Path) -> None:
    command = ("convert", teacher, "--activation", "prelu", "--out", tmp_path / "plain.onnx", "--carry", "split")
    must_refuse(run, tmp_path, command, "carry 'split' is for activation relu")


def test_inspect_shows_both_forms_side_by_side(run: Run, teacher: Path) -> None:
    status, out, err = run("inspect", teacher)
    assert status == 0 and "plain, --carry auto" in out and "plain, --activation prelu" in out, err
    status, out, _ = run("inspect", teacher, "--json")
    costs = {p["carry"]: p["cost"] for p in json.loads(out)["predictions"]}
    assert costs["pass"]["macs"] < costs["auto"]["macs"] / 2
    assert costs["pass"]["parameters"] < costs["auto"]["parameters"] / 2
    assert costs["pass"]["feature_map_bytes"] < costs["auto"]["feature_map_bytes"]


def test_shrunk_as_the_other_form_is(run: Run, teacher: Path, plain: Path, tmp_path: Path) -> None:
    few = ("--width", "8", "--samples", "2", "--refit", "0")
    status, out, err = run("shrink", plain, "--out", tmp_path / "student.onnx", *few)
    assert status == 0, (out, err)
    student = load_plain(tmp_path / "student.onnx")
    assert student.info.carry == "data-aware" and all(layer.slope is None for layer in student)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = read_teacher(teacher).module(x)
        assert float((student(x) - expected).abs().mean()) < float((expected - expected.mean()).abs().mean())


def test_upscaled_by_bands_as_at_once(run: Run, plain: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    Image.fromarray(torch.randint(0, 256, (90, 70, 3), dtype=torch.uint8).numpy()).save(tmp_path / "in.png")
    for name, options in (("bands.png", ("--max-memory", "5MB")), ("whole.png", ())):
        status, out, err = run("upscale", tmp_path / "in.png", tmp_path / name, "--model", plain, *options)
        assert status == 0, (out, err)
    images = [Image.open(tmp_path / name).tobytes() for name in ("bands.png", "whole.png")]
    assert images[0] == images[1]


def test_it_is_not_written_in_8_bits(run: Run, plain: Path, tmp_path: Path) -> None:
    command = ("quantize", plain, "--out", tmp_path / "int8.onnx")
    must_refuse(run, tmp_path, command, "is in the PReLU form, which is not written in 8 bits; give a student")


def test_it_is_not_trained(run: Run, teacher: Path, plain: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="needs memsr_compiler[train]")
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "photographs" / "a.png")
    data = ("--data", tmp_path / "photographs", "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    command = ("distill", plain, "--teacher", teacher, *data)
    must_refuse(run, tmp_path, command, "is in the PReLU form, which is not trained; give a student")
