"""What commands say of a network whose file does not say everything."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import onnx
import pytest
import torch
from helpers.command_line import Run, must_refuse
from helpers.trained import Edsr

from memsr_compiler.commands.given.teachers import parse_arguments, set_up
from memsr_compiler.commands.interface.options import TeacherOptions
from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.load import read_teacher

ASSUMED = "assumed: res_scale 0.1, input values 0 to 255, ReLU, zero padding, no clamp at the end"


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """The file of a trained network with res_scale 0.1, for images of 0..255, which says neither."""
    torch.save(Edsr(0.1, 255.0).state_dict(), tmp_path / "teacher.pt")
    return tmp_path / "teacher.pt"


def test_inspect_lists_it(run: Run, teacher: Path, caplog: pytest.LogCaptureFixture) -> None:
    status, out, _ = run("inspect", teacher)
    assert status == 0 and f"teacher.pt: {ASSUMED}" in out
    taken = "taken: res_scale 0.1, input values 0 to 255, since so it restores a photograph to 30.3 dB, against"
    assert taken in caplog.text
    status, out, _ = run("inspect", teacher, "--json")
    assert status == 0
    assert json.loads(out)["assumed"] == [
        "res_scale 0.1",
        "input values 0 to 255",
        "ReLU",
        "zero padding",
        "no clamp at the end",
    ]
    assert json.loads(out)["input_range"] == [0.0, 255.0]


def test_what_is_written_carries_it(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.onnx"
    status, _, err = run("convert", teacher, "--out", plain)
    assert status == 0 and f"teacher.pt: {ASSUMED}\n" in err
    metadata = {p.key: p.value for p in onnx.load(plain).metadata_props}
    assert metadata["assumed"] == "res_scale 0.1; input values 0 to 255; ReLU; zero padding; no clamp at the end"
    assert metadata["input_range"] == "0.0 255.0"
    assert run("verify", teacher, plain)[0] == 0
    student, integers = tmp_path / "s.onnx", tmp_path / "int8.onnx"
    few = ("--samples", "4", "--calibration", photographs)
    status, _, err = run("shrink", teacher, "--width", "8", "--refit", "0", *few, "--out", student)
    assert status == 0 and ASSUMED in err
    status, _, err = run("quantize", student, "--out", integers, *few, "--size", "16x16")
    assert status == 0, err
    for made in (student, integers):
        assert {p.key: p.value for p in onnx.load(made).metadata_props}["assumed"] == metadata["assumed"]


def test_networks_that_are_run_are_read_alike(run: Run, teacher: Path, photographs: Path) -> None:
    status, out, err = run("eval", teacher, "bicubic", "--data", photographs, "--json")
    assert status == 0 and ASSUMED in err
    models = json.loads(out)["models"]
    assert (
        models[str(teacher)]["assumed"]
        and models[str(teacher)]["average"]["psnr"] > models["bicubic"]["average"]["psnr"]
    )
    assert models["bicubic"]["assumed"] == []
    status, out, err = run("bench", teacher, "--size", "32x32", "--repeats", "1", "--data", photographs, "--json")
    assert status == 0 and err.count(ASSUMED) == 1
    assert json.loads(out)["models"][0]["assumed"] == [
        "res_scale 0.1",
        "input values 0 to 255",
        "ReLU",
        "zero padding",
        "no clamp at the end",
    ]


def test_what_is_told_is_not_assumed(run: Run, teacher: Path) -> None:
    told = ("--input-range", "0", "255", "--arch-args", "res_scale=0.1")
    status, out, err = run("inspect", teacher, *told)
    assert status == 0 and "assumed: ReLU, zero padding, no clamp at the end" in out and "taken" not in err


def test_words_of_json_and_yaml_are_values_too() -> None:
    """`mean_shift=false` is no text, which would count as true."""
    given = ["mean_shift=false,a=True", "b = null", "tail=conv", "mean=[1,2.5]", "c=None", "d='false'"]
    assert parse_arguments(given) == {
        "mean_shift": False, "a": True, "b": None, "tail": "conv", "mean": [1, 2.5], "c": None, "d": "false",
    }  # fmt: skip


def test_a_mean_shift_is_left_out_when_told(run: Run, tmp_path: Path) -> None:
    torch.save(Edsr(mean_shift=True).state_dict(), tmp_path / "a.pt")
    for value, words in (("false", "mean_shift=False"), ("True", "mean_shift=True")):
        status, out, err = run("inspect", tmp_path / "a.pt", "--no-probe", "--arch-args", f"mean_shift={value}")
        assert status == 0 and words in out, err


def test_quiet_is_quiet(run: Run, teacher: Path, tmp_path: Path) -> None:
    told = ("--input-range", "0", "255", "--arch-args", "res_scale=0.1")
    assert run("convert", teacher, "--out", tmp_path / "plain.onnx", "--quiet", *told) == (0, "", "")


def test_an_untrained_network_needs_a_word(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "new.pt"
    torch.save(EDSR(scale=2, blocks=1, channels=8).state_dict(), path)
    command = ("convert", path, "--out", tmp_path / "plain.onnx")
    must_refuse(run, tmp_path, command, "does not restore a photograph", "--no-probe", "--input-range LOW HIGH")
    status, _, err = run(*command, "--no-probe")
    assert status == 0 and "assumed: res_scale 1, input values 0 to 1" in err


def test_what_train_writes_says_all(run: Run, photographs: Path, tmp_path: Path) -> None:
    options = ("--steps", "1", "--batch", "2", "--patch", "16", "--cache", tmp_path / "cache")
    arch = ("--arch", "edsr", "--blocks", "1", "--channels", "4", "--arch-args", "res_scale=0.1")
    out = tmp_path / "run"
    status, _, err = run("train", *arch, "--scale", "2", "--data", photographs, "--out", out, *options)
    assert status == 0, err
    teacher = read_teacher(out / "network.pt")
    assert (teacher.assumed, teacher.hyper["res_scale"], teacher.input_range) == ((), 0.1, (0.0, 1.0))
    status, _, err = run("inspect", out / "network.pt")
    assert status == 0 and "ssumed" not in err


def test_a_message_is_said_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Commands read their teacher several times, and each says what it found."""
    monkeypatch.setattr(logging.root, "handlers", [])
    set_up(TeacherOptions(teacher=Path("teacher.pt")), Talk())
    for size in (1, 2, 1):
        logging.getLogger("memsr_compiler").warning("decides at %d", size)
    assert capfd.readouterr().err == "decides at 1\ndecides at 2\n"
