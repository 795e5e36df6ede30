"""memsrc convert as a person meets it: what it writes, and what it says to wrong input."""

from __future__ import annotations

import errno
import json
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.command_line import Run, must_refuse
from helpers.teachers import write_teacher
from helpers.user_code import clamped
from helpers.wide_values import overflowing
from torch import Tensor, nn

from memsr_compiler import calibrate, compile_to_plain, load_plain, read_teacher
from memsr_compiler.commands.interface.options import ConvertOptions
from memsr_compiler.commands.results.deviations import TEACHER, Deviation, measure_deviations, require_accepted
from memsr_compiler.commands.verify import _photographs
from memsr_compiler.errors import CertificateError, ExportError
from memsr_compiler.images.files import write_image
from memsr_compiler.plain.halves import run_in_halves
from memsr_compiler.trace.subject import Subject, observe


def refused(run: Run, tmp_path: Path, source: Path, *words: str, options: tuple[str, ...] = ()) -> None:
    """convert says no in one line with these words, exits with 2 and writes nothing."""
    must_refuse(run, tmp_path, ("convert", source, "--out", tmp_path / "plain.onnx", *options), *words)


def test_converts_and_verifies(run: Run, teacher: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.onnx"
    status, out, _ = run("convert", teacher, "--out", plain, "--verbose")
    assert status == 0
    assert "certificate" in out and "fuse-1x1" in out and "exact for every image" in out
    assert plain.exists() and (tmp_path / "plain.cert.json").exists()
    status, out, _ = run("verify", teacher, plain)
    assert status == 0 and "equivalent" in out


@pytest.mark.parametrize("options", [(), ("--carry", "shift"), ("--approximate",)])
def test_a_teacher_is_read_once(
    options: tuple[str, ...], run: Run, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its constants, its plain form and the proof of that; how long it took is told."""
    seen: list[nn.Module] = []

    def look(model: nn.Module, input_range: tuple[float, float]) -> Subject:
        seen.append(model)
        return observe(model, input_range)

    monkeypatch.setattr("memsr_compiler.trace.trace.observe", look)
    status, out, err = run("convert", teacher, "--out", tmp_path / "plain.onnx", "--json", *options)
    assert status == 0, err
    assert len(seen) == 1
    assert json.loads(out)["seconds"]["trace"] > 0.001


def test_every_way_of_carrying_and_both_tails(run: Run, teacher: Path, tmp_path: Path) -> None:
    for options in (
        ("--carry", "split"),
        ("--carry", "shift", "--constant", "1000"),
        ("--carry", "shift", "--margin", "4"),
        ("--tail", "keep", "--align", "1"),
        ("--dtype", "float16"),
    ):
        status, out, err = run("convert", teacher, "--out", tmp_path / "plain.onnx", *options)
        assert status == 0, (options, err)
        status, out, err = run("verify", teacher, tmp_path / "plain.onnx")
        assert status == 0, (options, out, err)


ON_Y = """
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.tail = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x):
        x = self.head(x)
        return self.tail(x + self.body(x.relu()))
"""


def test_a_shift_as_a_teacher_says_its_condition(run: Run, teacher: Path, tmp_path: Path) -> None:
    """What is made of it is exact for every image, of a network that is its own teacher for some."""
    plain, again = tmp_path / "plain.onnx", tmp_path / "again.onnx"
    run("convert", teacher, "--out", plain, "--carry", "shift", "--constant", "1000")
    status, _, err = run("convert", plain, "--out", again)
    words = (
        "assumed: that it is the teacher, though it is exact only while every carried value has a magnitude of at most"
    )
    assert status == 0 and words in " ".join(err.split())
    status, _, err = run("convert", again, "--out", tmp_path / "third.onnx")
    assert status == 0 and "assumed" not in err


def test_a_clamp_that_no_value_reaches_is_named(run: Run, tmp_path: Path) -> None:
    """ "Use --carry split, and please report this" stood there, of what --carry split had made."""
    torch.save(clamped().state_dict(), tmp_path / "a.pth")
    own = ("--arch", "helpers.user_code:clamped", "--no-probe", "--input-range", "0", "1")
    refused(run, tmp_path, tmp_path / "a.pth", "the bound of a clamp that no value reaches", options=own)


def test_photographs_are_y_of_bt601_for_a_network_on_y(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for `calibrate` and `check_equivalence`; the mean of RGB is another number for a red photograph."""
    (tmp_path / "on_y.py").write_text(ON_Y)
    monkeypatch.syspath_prepend(str(tmp_path))
    import on_y  # type: ignore[import-not-found]

    torch.manual_seed(0)
    network = on_y.Network()
    write_teacher(network, tmp_path / "teacher.pt")
    (tmp_path / "photographs").mkdir()
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    write_image(tmp_path / "photographs" / "red.png", red)
    reading, plain = ("--arch", "on_y:Network"), tmp_path / "plain.safetensors"
    shift = ("--carry", "shift", "--margin", "8", "--calibration", tmp_path / "photographs")
    status, _, err = run("convert", tmp_path / "teacher.pt", "--out", plain, *reading, *shift)
    assert status == 0, err
    net = load_plain(plain)
    assert net.certificate is not None
    y = torch.full((1, 1, 16, 16), (16 + 65.481) / 255)
    constants = calibrate(network, y, margin=8, steps=0).constants
    assert constants and net.certificate.shifts == pytest.approx(constants, rel=1e-6)  # y was float32
    (image,) = _photographs(tmp_path / "photographs", net, (0.0, 255.0)).values()
    torch.testing.assert_close(image, y * 255)
    status, out, err = run("verify", tmp_path / "teacher.pt", plain, *reading, "--images", tmp_path / "photographs")
    assert status == 0 and "(6 inputs)" in out, (out, err)


def test_report_is_written(run: Run, teacher: Path, tmp_path: Path) -> None:
    status, _, _ = run("convert", teacher, "--out", tmp_path / "plain.onnx", "--report", tmp_path / "report.html")
    assert status == 0 and "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_missing_truncated_and_text_files(run: Run, teacher: Path, tmp_path: Path) -> None:
    refused(run, tmp_path, tmp_path / "absent.pt", "absent.pt")
    short = tmp_path / "short.pt"
    short.write_bytes(teacher.read_bytes()[:1000])
    refused(run, tmp_path, short, "short.pt")
    text = tmp_path / "text.pt"
    text.write_text("these are no weights")
    refused(run, tmp_path, text, "text.pt")


class _Runs:
    """Unpickling it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_that_would_run_code_does_not(run: Run, tmp_path: Path) -> None:
    mark, bad = tmp_path / "it_ran", tmp_path / "bad.pt"
    with bad.open("wb") as file:
        pickle.dump(_Runs(mark), file)
    refused(run, tmp_path, bad, "pickle that torch.save did not write")
    refused(run, tmp_path, bad, "pickle that torch.save did not write", options=("--allow-pickle",))
    torch.save(_Runs(mark), bad)
    refused(run, tmp_path, bad, "mkdir", "--allow-pickle")
    assert not mark.exists()


def test_weights_that_do_not_fit_or_are_no_numbers(run: Run, teacher: Path, tmp_path: Path) -> None:
    weights = torch.load(teacher, weights_only=True)
    torch.save({k: v for k, v in weights.items() if k != "tail.1.bias"}, tmp_path / "less.pt")
    refused(run, tmp_path, tmp_path / "less.pt", "less.pt", "--arch-args", options=("--arch", "edsr"))
    size = ("--arch", "edsr", "--arch-args", "scale=2,blocks=1,channels=8")
    refused(run, tmp_path, tmp_path / "less.pt", "tail.1.bias", options=size)
    for value in (float("nan"), float("inf")):
        weights["head.0.weight"][0, 0, 0, 0] = value
        torch.save(weights, tmp_path / "bad.pt")
        refused(run, tmp_path, tmp_path / "bad.pt", "head.0.weight")


OWN_CODE = """
import torch
from torch import nn

class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
    def forward(self, x, y):
        return self.conv(x) + y

class NoConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
    def forward(self, x):
        return self.linear(x)

class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
    def forward(self, x):
        if x.mean() > 0.5:
            return self.conv(x)
        return x
"""


@pytest.mark.parametrize(
    ("factory", "words"),
    [("TwoInputs", ("more than one input",)), ("NoConvolution", ("linear",)), ("Decides", ("if x.mean() > 0.5",))],
)
def test_networks_that_cannot_be_plain(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "own_code.py").write_text(OWN_CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_code  # type: ignore[import-not-found]

    write_teacher(getattr(own_code, factory)(), tmp_path / "own.pt")
    refused(run, tmp_path, tmp_path / "own.pt", *words, options=("--arch", f"own_code:{factory}"))
    sys.modules.pop("own_code")


def test_a_network_in_train_mode_is_refused_where_it_matters() -> None:
    from memsr_compiler import compile_to_plain
    from memsr_compiler.errors import InvalidInput

    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    with pytest.raises(InvalidInput, match=r"model\.eval\(\)"):
        compile_to_plain(model)
    assert compile_to_plain(model.eval()).scale == 1


def test_outputs_that_cannot_be_written(
    run: Run, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = run("convert", teacher, "--out", tmp_path / "nowhere" / "plain.onnx")
    assert status == 2 and "does not exist" in err
    status, _, err = run("convert", teacher, "--out", tmp_path / "plain.txt")
    assert status == 2 and ".onnx, .safetensors or .tflite" in err
    before = sorted(tmp_path.iterdir())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = run("convert", teacher, "--out", tmp_path / "plain.onnx")
    assert status == 2 and "No space left" in err
    assert sorted(tmp_path.iterdir()) == before


def test_options_that_contradict_each_other(run: Run, teacher: Path, tmp_path: Path) -> None:
    for options, word in (
        (("--carry", "never"), "auto, shift, split"),
        (("--constant", "10"), "shift"),
        (("--carry", "shift", "--constant", "-1"), "positive"),
        (("--carry", "shift", "--constant", "0.001"), "C is too small"),
        (("--tail", "cut"), "fold, keep"),
        (("--dtype", "int3"), "float16"),
        (("--input-range", "1", "0"), "input range"),
        (("--size", "big"), "480x270"),
        (("--arch-args", "blocks"), "NAME=VALUE"),
    ):
        refused(run, tmp_path, teacher, word, options=options)


@pytest.mark.parametrize(
    ("carry", "why"),
    [
        ((), "carry is 'auto'"),
        (("--carry", "split"), "carry is 'split'"),
        (("--carry", "shift", "--constant", "1000"), "--constant 1000 is given"),
    ],
)
def test_how_constants_are_measured_is_refused_where_none_are(
    run: Run, teacher: Path, tmp_path: Path, carry: tuple[str, ...], why: str
) -> None:
    words = ("constants are measured for --carry shift without --constant", why)
    calibration = ("--calibration", str(tmp_path))
    refused(run, tmp_path, teacher, *calibration, "Leave --calibration out", *words, options=(*carry, *calibration))
    refused(run, tmp_path, teacher, "Leave --margin out", *words, options=(*carry, "--margin", "4"))
    missing = ("--calibration", str(tmp_path / "nowhere"))
    refused(run, tmp_path, teacher, "nowhere: is no folder", options=(*carry, *missing))


def test_a_missing_calibration_folder_is_told_before_the_work(run: Run, tmp_path: Path) -> None:
    options = ("--carry", "shift", "--calibration", str(tmp_path / "nowhere"))
    refused(run, tmp_path, tmp_path / "no-teacher.pt", "nowhere: is no folder", options=options)


def overflowing_file(tmp_path: Path, **options: Any) -> tuple[Path, Path]:
    """A teacher whose values go beyond 65,504, as a .pt2 file, and where to write its plain network."""
    model = overflowing(**options)
    size = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    path = tmp_path / "wide.pt2"
    torch.export.save(torch.export.export(model, (torch.rand(1, 3, 8, 9),), dynamic_shapes=(size,)), path)
    return path, tmp_path / "plain.onnx"


HALVES_WORDS = "halves stored between layers, sums in float32, by torch on the CPU"


def test_float16_is_measured_as_float16_and_scaled_into_its_range(run: Run, tmp_path: Path) -> None:
    """ONNX Runtime's CPU computes float16 files in float32: all was NaN, and the deviation said 0.2."""
    source, plain = overflowing_file(tmp_path)
    wide = ("--input-range", "0", "255")
    options = ("--dtype", "float16", *wide, "--report", tmp_path / "report.html")
    status, out, err = run("convert", source, "--out", plain, *options, "--verbose")
    assert status == 0, err
    assert HALVES_WORDS in out and "float16 ends at 65,504" in out and "channels are stored as a smaller power" in out
    page = (tmp_path / "report.html").read_text("utf-8")
    assert HALVES_WORDS in page and "largest value, layer by layer" in page
    stored = load_plain(plain)
    for x in (torch.rand(1, 3, 24, 24) * 255, torch.full((1, 3, 7, 7), 255.0)):
        assert run_in_halves(stored, x).isfinite().all()
    status, out, err = run("verify", source, plain, *wide)
    assert status == 0 and HALVES_WORDS in out and "10 inputs" in out, (out, err)
    status, out, _ = run("convert", source, "--out", plain, *options, "--json")
    data = json.loads(out)
    assert status == 0 and data["arithmetic"]["plain.onnx (float16)"] == HALVES_WORDS
    assert data["arithmetic"]["plain in float32"] == "float32, by torch on the CPU"
    assert data["largest_values"][1] > 65504 and data["scaled_channels"][1] > 0 and data["scaled_channels"][2] == 0
    assert set(data["deviation"]) == set(data["deviation_accepted"]) == set(data["deviation_explained"])


def test_float16_that_no_scale_helps_is_refused(run: Run, tmp_path: Path) -> None:
    source, plain = overflowing_file(tmp_path, end=1e4)
    plain.write_bytes(b"an earlier one; memsr_format")
    options = ("--input-range", "0", "255", "--dtype", "float16")
    command = ("convert", source, "--out", plain, *options)
    must_refuse(run, tmp_path, command, "layers.2", "the output, reaches", "65,504", "--dtype float32")


@pytest.mark.parametrize("kind", ["plain.onnx", "plain.safetensors"])
def test_a_deviation_that_nobody_accepts_is_refused(run: Run, teacher: Path, tmp_path: Path, kind: str) -> None:
    """C = 1e8 in float32 is off by 26 of 1."""
    shift = ("--carry", "shift", "--constant")
    command = ("convert", teacher, "--out", tmp_path / kind, *shift, "1e8")
    words = ("is not written", "C = 1e+08", "grey levels", "smaller --constant", "--calibration", "--carry split")
    message = must_refuse(run, tmp_path, command, *words)
    assert "by torch on the CPU" in message or "by ONNX Runtime on the CPU" in message
    status, _, err = run("convert", teacher, "--out", tmp_path / kind, *shift, "1000")
    assert status == 0, err


def test_a_shift_that_leaves_nothing_of_the_image_in_float16_is_refused(
    run: Run, teacher: Path, tmp_path: Path
) -> None:
    options = ("--carry", "shift", "--constant", "1000", "--dtype", "float16")
    command = ("convert", teacher, "--out", tmp_path / "plain.onnx", *options)
    must_refuse(run, tmp_path, command, "is not written", HALVES_WORDS, "C = 1000", "--dtype float32")


@pytest.mark.parametrize("kind", ["plain.onnx", "plain.safetensors"])
def test_what_verify_would_not_accept_is_not_written(
    run: Run, teacher: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise CertificateError("rounding the constants takes too much")

    monkeypatch.setattr("memsr_compiler.commands.convert.check_certificate", refuse)
    shift = ("--carry", "shift", "--constant", "100")
    command = ("convert", teacher, "--out", tmp_path / kind, *shift)
    must_refuse(run, tmp_path, command, "is not written. rounding the constants takes too much")
    must_refuse(run, tmp_path, ("convert", teacher, "--out", tmp_path / kind), "is not written")


class Sparkle(nn.Module):
    """x, as relu(513 x) - 512 x, + 40 relu(x - 2 * what is around it): a lone bright pixel is 41 times as bright."""

    def __init__(self) -> None:
        super().__init__()
        one = torch.eye(3)[:, :, None, None]
        self.gain, self.lone = nn.Parameter(513 * one), nn.Parameter(-2 * one.expand(3, 3, 3, 3).clone())
        self.up = nn.Parameter(torch.cat([one, -512 * one, 40 * one], 1).repeat_interleave(4, 0))
        with torch.no_grad():
            self.lone[:, :, 1, 1] = torch.eye(3)

    def forward(self, x: Tensor) -> Tensor:
        parts = F.conv2d(x, self.gain).relu(), x, F.conv2d(x, self.lone, padding=1).relu()
        return F.pixel_shuffle(F.conv2d(torch.cat(parts, 1), self.up), 2)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
def test_large_values_on_one_image_excuse_no_other(run: Run, tmp_path: Path) -> None:
    """32 grey levels on a photograph, of a network that an impulse makes 41: `verify` refused what was written."""
    free = dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(Sparkle().eval(), (torch.rand(1, 3, 9, 8),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "a.pt2")
    command = ("convert", tmp_path / "a.pt2", "--no-probe", "--input-range", "0", "1", "--dtype", "float16")
    words = "of 255 grey levels, on the middle of sample photograph"
    must_refuse(run, tmp_path, (*command, "--out", tmp_path / "plain.onnx"), words)


def test_half_a_grey_level_is_accepted_in_float32_and_two_in_float16(teacher: Path, tmp_path: Path) -> None:
    net = compile_to_plain(teacher)
    own = Deviation(TEACHER, 1e-7, 1e-5, 0.5 / 255, "a probe", "float32, by torch on the CPU")
    for name, levels in (("plain.onnx in ONNX Runtime (float32)", 0.5), ("plain.onnx (float16)", 2.0)):
        for value, good in ((0.99, True), (1.01, False), (float("inf"), False)):
            written = replace(own, name=name, value=value * levels / 255, accepted=levels / 255)
            if good:
                require_accepted([own, own, written], net, tmp_path / "plain.onnx", (0.0, 1.0))
                continue
            with pytest.raises(ExportError, match=r"plain\.onnx: is not written.* is accepted"):
                require_accepted([own, own, written], net, tmp_path / "plain.onnx", (0.0, 1.0))
    ill = replace(own, value=0.01)  # what the teacher itself loses, its plain network may lose too
    require_accepted([ill, own, replace(own, value=0.019)], net, tmp_path / "plain.onnx", (0.0, 1.0))
    overflows = replace(own, value=float("inf"))  # even in float32: no excuse
    with pytest.raises(ExportError, match=r"is not written.*the teacher's own values are infinite.*--input-range"):
        require_accepted([overflows, own, overflows], net, tmp_path / "plain.onnx", (0.0, 1.0))


def test_safetensors_are_judged_in_their_own_precision(teacher: Path, tmp_path: Path) -> None:
    """1e8 leaves enough of float64, and nothing of float32."""
    model = read_teacher(teacher).module.double()
    net = compile_to_plain(model, carry="shift", constant=1e8)
    out = tmp_path / "plain.safetensors"
    measured = measure_deviations(model, net, out, None, ConvertOptions(), (0.0, 1.0), print)
    assert [d.name for d in measured] == [TEACHER, "plain in float32", "plain.safetensors (float64)"]
    assert measured[1].value > 1 and measured[2].value < 1e-5 and measured[2].arithmetic.startswith("float64, by torch")
    require_accepted(measured, net, out, (0.0, 1.0))
