"""memsrc export: TFLite files by the command line, and what is refused before any work."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import Run
from helpers.litert import LiteRT
from helpers.plain_nets import build, draw_image
from helpers.teachers import write_teacher

from memsr_compiler import compile_to_plain
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.quantization.quantize import quantize
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.teachers.families.edsr import EDSR


@pytest.fixture
def student(tmp_path: Path) -> Path:
    save_plain(build([8], [3, 3], image_skip="nearest"), tmp_path / "student.safetensors")
    return tmp_path / "student.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_every_precision_is_written(run: Run, student: Path, dtype: str) -> None:
    out = student.with_name("a.tflite")
    few = ["--samples", 4] if dtype == "int8" else []
    status, printed, _ = run("export", student, "--out", out, "--dtype", dtype, *few, "--json")
    assert status == 0
    said = json.loads(printed)
    assert (said["dtype"], said["io"]) == (dtype, "int8" if dtype == "int8" else "float32")
    assert said["bytes"] == out.stat().st_size
    net = build([8], [3, 3], image_skip="nearest")
    x = draw_image(net, 9, 14)
    allowed = {"float32": 1e-5, "float16": 3e-3, "int8": 0.2}[dtype]
    assert float((LiteRT(out)(x) - net(x)).abs().mean()) < allowed
    status, printed, _ = run("export", student, "--out", out, "--dtype", dtype, *few)  # its own are replaced
    measured = {"float32": "", "float16": "grey levels from the network as it is", "int8": "in 8 bits by ONNX Runtime"}
    assert status == 0 and measured[dtype] in printed


def test_a_shift_of_which_float16_leaves_no_digits_is_refused(run: Run, tmp_path: Path) -> None:
    """277 levels off the teacher, without a word; `convert --dtype float16` refused it."""
    teacher, plain, out = tmp_path / "teacher.pt", tmp_path / "plain.onnx", tmp_path / "a.tflite"
    write_teacher(EDSR(scale=2, blocks=1, channels=4), teacher)
    run("convert", teacher, "--no-probe", "--out", plain, "--carry", "shift", "--constant", "1000")
    status, _, err = run("export", plain, "--out", out, "--dtype", "float16")
    assert status == 2 and "a.tflite: is not written. In float16 it is" in err and "--carry auto" in err
    assert not out.exists()
    assert run("export", plain, "--out", out)[0] == 0


def test_integers_of_quantize_are_taken_as_they_are(run: Run, tmp_path: Path) -> None:
    net = build([8], [3, 3])
    export_onnx(net, tmp_path / "net.onnx")
    quantize(tmp_path / "net.onnx", tmp_path / "int8.onnx", [draw_image(net, 24, 24)], takes=Takes(2))
    out = tmp_path / "int8.tflite"
    assert run("export", "x2-tiny-int8", "--out", out)[0] == 0
    status, printed, _ = run("export", tmp_path / "int8.onnx", "--out", out, "--io", "float32", "--size", "10x6")
    assert status == 0 and "int8; float32 in and out, NHWC; images of 10x6 only" in printed
    assert list(LiteRT(out).image["shape"]) == [1, 6, 10, 3]


def test_refusals_write_nothing(run: Run, student: Path, tmp_path: Path) -> None:
    net = build([8], [3, 3])
    export_onnx(net, tmp_path / "net.onnx")
    quantize(tmp_path / "net.onnx", tmp_path / "int8.onnx", [draw_image(net, 24, 24)], takes=Takes(2))
    save_plain(build([8], [3, 3], image_skip="bicubic"), tmp_path / "bicubic.safetensors")
    export_onnx(net, tmp_path / "half.onnx", dtype="float16")
    teacher = EDSR(scale=2, blocks=1, channels=4).eval()
    save_plain(compile_to_plain(teacher, activation="prelu"), tmp_path / "prelu.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "teacher.pt")
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "a.tflite"
    for arguments, words in (
        ((student, "--out", tmp_path / "a.lite"), "name it .tflite"),
        ((tmp_path / "bicubic.safetensors", "--out", out), "bicubic interpolation"),
        ((tmp_path / "teacher.pt", "--out", out), "is no"),
        ((tmp_path / "int8.onnx", "--out", out, "--dtype", "float16"), "is in 8 bits"),
        ((tmp_path / "int8.onnx", "--out", out, "--samples", 3), "is in 8 bits already; leave --samples out"),
        ((tmp_path / "half.onnx", "--out", out, "--dtype", "int8"), "half.onnx: is float16; give the float32 network"),
        (
            (tmp_path / "prelu.safetensors", "--out", out, "--dtype", "int8"),
            "is in the PReLU form, which is not written",
        ),
        ((student, "--out", out, "--calibration", tmp_path), "nothing is measured for float32"),
        ((student, "--out", out, "--io", "float32"), "--io float32: is for --dtype int8"),
        ((student, "--out", out, "--size", "0x4"), "want WIDTHxHEIGHT"),
        ((student, "--out", out, "--dtype", "int8", "--calibration", student), "student.safetensors"),
    ):
        status, _, err = run("export", *arguments)
        assert status == 2 and words in err and err.count("\n") == 1, err
    assert sorted(tmp_path.iterdir()) == before


def test_convert_and_shrink_write_tflite(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(7)
    teacher = write_teacher(EDSR(scale=2, blocks=1, channels=4, tail="conv"), tmp_path / "t.pt")
    few = ("--width", 8, "--samples", 2, "--refit", 0)
    for command, options in (("convert", ()), ("shrink", few)):
        onnx, tflite = (tmp_path / f"{command}{ending}" for ending in (".onnx", ".tflite"))
        for out in (onnx, tflite):
            assert run(command, teacher, "--out", out, *options)[0] == 0
        x = draw_image(build([8], [3, 3]), 9, 7)
        # Two engines in float32, values of about 1, some twenty layers: a hundred units in the last place.
        assert torch.allclose(LiteRT(tflite)(x), OrtNetwork(onnx)(x), rtol=0, atol=1e-5)
    assert not (tmp_path / "shrink.cert.json").exists()
    status, _, err = run("convert", teacher, "--out", tmp_path / "h.tflite", "--dtype", "float16")
    assert status == 2 and "memsrc export writes these" in err and not (tmp_path / "h.tflite").exists()


def test_what_is_not_installed_is_named(run: Run, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "tflite":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    status, _, err = run("export", student, "--out", student.with_name("a.tflite"))
    assert status == 2 and "memsr_compiler[tflite]" in err
