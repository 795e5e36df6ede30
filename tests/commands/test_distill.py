"""memsrc distill: what it writes, runs that go on, options that do not fit."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from helpers.command_line import Run
from helpers.litert import LiteRT
from helpers.teachers import write_teacher
from helpers.training import (
    cut_sample_inputs,
    derive_student,
    forget_accelerator,
    forget_options,
    new_teacher,
    write_networks,
    write_photographs,
)
from PIL import Image

from memsr_compiler import compile_to_plain, evaluate, export_onnx, save_plain
from memsr_compiler.commands.distill import _name_outputs
from memsr_compiler.evaluation.scores import mean
from memsr_compiler.images.files import read_image
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.tflite_model import export_tflite
from memsr_compiler.quantization.tflite import export_integers
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.trace.trace import GraphModule, ImageSkip, trace
from memsr_compiler.training import checkpoints

pytest.importorskip("accelerate", reason="needs memsr_compiler[train]")

Command = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def another_process() -> None:
    forget_accelerator()


@pytest.fixture(autouse=True)
def _cut_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in this process begins from corners of what ships: reading all of it takes longer than the training."""
    monkeypatch.setattr("memsr_compiler.commands.distill.sample_inputs", cut_sample_inputs)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with teacher.pt and student.safetensors."""
    return write_networks(derive_student(), tmp_path_factory.mktemp("networks"))


@pytest.fixture
def distill(files: Path, photographs: Path, tmp_path: Path) -> Command:
    def command(out: str, *more: object) -> list[str]:
        given = ["distill", files / "student.safetensors", "--teacher", files / "teacher.pt", "--data", photographs]
        few = ["--steps", 6, "--batch", 2, "--patch", 16, "--every", 2, "--cache", tmp_path / "cache"]
        return [*map(str, [*given, "--out", tmp_path / out, "--val", photographs, *few, *more])]

    return command


def test_a_student_is_distilled_and_written(run: Run, distill: Command, tmp_path: Path) -> None:
    status, out, err = run(*distill("run", "--json"))
    assert status == 0, err
    told = json.loads(out)
    assert set(told["psnr"]) == {"bicubic", "teacher", "student before", "student after"}
    assert told["arithmetic"] == "float32, by torch on the CPU"
    assert told["psnr"]["student after"] >= told["psnr"]["student before"]
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {
        "best.ckpt", "config.yaml", "log.jsonl", "student.onnx", "student.safetensors", "tensorboard", "versions.yaml",
    }  # fmt: skip
    assert load_plain(tmp_path / "run" / "student.safetensors").widths == [3, 8, 8, 8, 8, 12]
    status, _, err = run(*distill("run"))
    assert status == 2 and "holds a run already" in err


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@pytest.mark.parametrize("labels", ["photographs", "teacher"])
def test_the_teacher_may_be_anybodys_onnx_or_tflite_file(
    run: Run, distill: Command, tmp_path: Path, suffix: str, labels: str
) -> None:
    """Such a network holds constants, and no parameters."""
    net = compile_to_plain(new_teacher())
    path = tmp_path / f"theirs{suffix}"
    if suffix == ".onnx":
        model = onnx.load(export_onnx(net, path).path)
        del model.metadata_props[:]
        onnx.save(model, path)
    else:
        export_tflite(net, path)
    options = ("--labels", labels, *(("--lambda", "0") if labels == "teacher" else ()))
    status, out, err = run(*distill("theirs", *options, "--teacher", path, "--json"))
    assert status == 0, err
    _, same, _ = run(*distill("same", *options, "--json"))
    # Equal here; an engine on another processor may round a label to the next float16.
    for name in ("teacher", "student after"):
        assert json.loads(out)["psnr"][name] == pytest.approx(json.loads(same)["psnr"][name], abs=1e-4), name


def test_students_that_ship_are_trained_and_teach(run: Run, photographs: Path, tmp_path: Path) -> None:
    places = ("--data", photographs, "--val", photographs, "--out", tmp_path / "run")
    for teacher, words in (("x2-small", "--scale 3: the student enlarges by 2"), ("x2-smal", "did you mean x2-small?")):
        status, _, err = run("distill", "x2-tiny", "--teacher", teacher, *places, "--scale", 3)
        assert status == 2 and words in err


def test_the_rate_is_by_the_students_depth_and_recorded(
    run: Run, distill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, deep in (("shallow", 6), ("deep", 5)):  # the student has 5 layers
        monkeypatch.setattr("memsr_compiler.commands.runs.choices.DEEP", deep)
        status, _, err = run(*distill(name, "--steps", 1, "-q"))
        assert status == 0, err
    rates = [(tmp_path / name / "config.yaml").read_text() for name in ("shallow", "deep")]
    assert "rate: 0.002\n" in rates[0] and "rate: 0.0002\n" in rates[1]
    assert run("distill", "--resume", tmp_path / "shallow", "-q") == (0, "", "")  # as it began, by another default


def test_channels_that_are_lowered_are_told_once(run: Run, distill: Command, tmp_path: Path) -> None:
    status, out, _ = run(*distill("run"))
    assert status == 0 and re.search(
        r"^lowered      32 channels of 4 layers, never below zero, by up to [0-9.]+$", out, re.M
    ), out
    (tmp_path / "run" / "step-00000006.ckpt").unlink()
    status, out, _ = run("distill", "--resume", tmp_path / "run")
    assert status == 0 and "\nlowered " not in out
    status, out, _ = run(*distill("published", "--as-published"))
    assert status == 0 and "\nlowered " not in out


def test_a_student_that_does_not_get_better_is_written_as_it_was_given(
    run: Run, distill: Command, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(student: PlainNet, images: object) -> list[object]:
        with torch.no_grad():
            student[-1].bias.sub_(0.1)
        return []

    monkeypatch.setattr("memsr_compiler.commands.distill.lower_channels", spoil)
    status, out, _ = run(*distill("run", "--rate", "1e-3"))
    assert status == 0 and "\nkept         the student as it was given: no step was better\n" in out, out
    written, x = load_plain(tmp_path / "run" / "student.safetensors"), torch.rand(1, 3, 9, 9)
    assert torch.equal(written(x), load_plain(files / "student.safetensors")(x))


def test_weights_that_are_no_numbers_are_told(run: Run, distill: Command) -> None:
    status, _, err = run(*distill("run", "--rate", "1e38", "--every", "1"))
    assert status != 0 and "lower --rate" in err and "Traceback" not in err


def test_a_teacher_that_overflows_is_named(run: Run, distill: Command, files: Path, tmp_path: Path) -> None:
    """It was the learning rate that was blamed."""
    teacher = read_teacher(files / "teacher.pt").module
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.mul_(1e12)
    write_teacher(teacher, tmp_path / "big.pt")
    given = distill("run")
    given[given.index("--teacher") + 1] = str(tmp_path / "big.pt")
    status, _, err = run(*given)
    assert status == 2 and "big.pt: gives NaN or infinite values for photographs" in err, err


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    run: Run, distill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memsr_compiler.commands.distill.sample_inputs", sample_inputs)  # as the other process has them
    longer = ("--steps", 60, "--every", 10)
    status, _, err = run(*distill("whole", *longer))
    assert status == 0, err
    command = [sys.executable, "-m", "memsr_compiler", *distill("killed", *longer)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums in another order are others
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while not list((tmp_path / "killed").glob("step-*.ckpt")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    status, _, err = run("distill", "--resume", tmp_path / "killed")
    assert status == 0, err
    ends = [checkpoints.load(checkpoints.newest(tmp_path / name)) for name in ("whole", "killed")]
    assert ends[0]["step"] == ends[1]["step"] == 60
    assert all(torch.equal(value, ends[1]["objective"][name]) for name, value in ends[0]["objective"].items())
    files = [(tmp_path / name / "student.safetensors").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]


def test_two_processes_distil(distill: Command, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "memsr_compiler"]
    command = [sys.executable, *launch, *distill("two", "--json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best_step"] in range(7)  # the first process speaks, and it alone
    assert checkpoints.steps(tmp_path / "two") == [4, 6] and (tmp_path / "two" / "student.onnx").exists()


def test_options_come_from_a_file_and_the_command_line_is_stronger(run: Run, distill: Command, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("steps: 4\nwarm-up: 0.5\nlambda: 0\n")
    status, _, err = run(*distill("run", "--config", tmp_path / "some.yaml", "-q"))
    assert status == 0, err
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert "steps: 6\n" in kept and "warm-up: 0.5\n" in kept and "lambda: 0" in kept
    for content, message in (
        ("stepz: 4", "no option of memsrc distill is called stepz"),
        ("- 3", "name: value"),
        ("a: [", "is no YAML"),
        ("clip: much", "Invalid value for '--clip'"),
    ):
        (tmp_path / "bad.yaml").write_text(content)
        status, _, err = run(*distill("other", "--config", tmp_path / "bad.yaml"))
        assert status == 2 and f"{tmp_path / 'bad.yaml'}: " in err and message in err
    _, _, err = run(*distill("other", "--config", tmp_path / "some.yaml", "--clip", "much"))
    assert "Invalid value for '--clip'" in err and "some.yaml" not in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patch", "15"], "no multiple of the scale"),
        (["--lambda", "-1"], "--lambda -1.0: want"),
        (["--lambda", "inf"], "--lambda inf: want"),
        (["--epsilon", "0"], "--epsilon 0.0: want"),
        (["--warm-up", "1"], "--warm-up 1.0: want"),
        (["--ema", "1"], "--ema 1.0: want"),
        (["--clip", "nan"], "--clip nan: want"),
        (["--data", "nowhere"], "nowhere: is no folder"),
        (["--val", "nowhere"], "nowhere: is no folder"),
        (["--scale", "3"], "enlarges by 2"),
        (["--maps", "zeros"], "want one of initialised, random"),
        (["--resume", "nowhere"], "there is no such run"),
        (["--rate", "0"], "--rate 0.0: want a learning rate"),
    ],
)
def test_options_that_do_not_fit(run: Run, distill: Command, tmp_path: Path, options: list[str], message: str) -> None:
    status, _, err = run(*distill("run", *options))
    assert status == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_features_of_a_student_of_few_layers_count(run: Run, distill: Command, files: Path, tmp_path: Path) -> None:
    student = tmp_path / "few.safetensors"
    command = (
        "shrink",
        files / "teacher.pt",
        "--width",
        4,
        "--layers",
        3,
        "--refit",
        0,
        "--samples",
        4,
        "--out",
        student,
    )
    status, _, err = run(*command)
    assert status == 0, err
    options = distill("run", "--lambda", 0.3, "-q")
    status, _, err = run(*[student if part.endswith("student.safetensors") else part for part in options])
    assert status == 0, err
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["features"] > 0
    assert load_plain(tmp_path / "run" / "student.safetensors").info.levels == load_plain(student).info.levels != ()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_fp16_needs_a_gpu(run: Run, distill: Command) -> None:
    status, _, err = run(*distill("run", "--precision", "fp16"))
    assert status == 2 and "--precision fp16 is for GPUs" in err


def test_a_run_replaces_nothing(run: Run, distill: Command, files: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    (place / "student.safetensors").write_bytes((files / "student.safetensors").read_bytes())
    before = (place / "student.safetensors").read_bytes()
    status, _, err = run(*distill("run"))
    assert status == 2 and "holds student.safetensors already" in err
    assert (place / "student.safetensors").read_bytes() == before and len(list(place.iterdir())) == 1
    (tmp_path / "file").write_text("")
    status, _, err = run(*distill("file"))
    assert status == 2 and "is a file" in err


def test_a_run_is_begun_anew_only_on_request(run: Run, distill: Command, tmp_path: Path) -> None:
    assert run(*distill("run", "-q"))[0] == 0
    status, _, err = run(*distill("run", "--steps", "2"))
    assert status == 2 and "holds a run already" in err and "--overwrite" in err
    status, _, err = run(*distill("run", "--steps", "2", "--overwrite", "-q"))
    assert status == 0, err
    assert "steps: 2\n" in (tmp_path / "run" / "config.yaml").read_text()
    kept = sorted(path.name for path in (tmp_path / "run").glob("step-*.ckpt"))
    assert kept == ["step-00000000.ckpt", "step-00000002.ckpt"]


def test_a_run_goes_on_as_it_began_wherever_it_is(
    run: Run, distill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = run(*distill("run", "-q"))
    assert status == 0, err
    config = (tmp_path / "run" / "config.yaml").read_text()
    for wrong in (("--steps", 9), ("--rate", 1e-3), ("--batch", 4), ("--lambda", 0.3), ("--optimizer", "adam")):
        status, _, err = run("distill", "--resume", tmp_path / "run", *wrong)
        assert status == 2 and f"{wrong[0]} {wrong[1]}" in err and "leave it out" in err, err
        assert (tmp_path / "run" / "config.yaml").read_text() == config
    status, _, err = run("distill", "--resume", tmp_path / "run", "--out", tmp_path / "other")
    assert status == 2 and "leave --out out" in err and not (tmp_path / "other").exists()
    (tmp_path / "run" / "config.yaml").write_text(f"{config}arch-args: []\n")  # as earlier versions wrote it
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "moved" / "step-00000006.ckpt").unlink()
    (tmp_path / "moved" / "student.onnx").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, _, err = run("distill", "--resume", Path("..", "moved"), "--every", 1, "-q")
    assert status == 0, err
    assert (tmp_path / "moved" / "student.onnx").exists() and not (tmp_path / "run").exists()


def test_a_run_of_before_there_were_choices_goes_on_as_it_began(run: Run, distill: Command, tmp_path: Path) -> None:
    as_then = ["--optimizer", "adam", "--labels", "photographs", "--ema", 0, "--rate", 5e-5]
    assert run(*distill("run", "-q", *as_then))[0] == 0
    config = tmp_path / "run" / "config.yaml"
    unknown = ("optimizer:", "labels:", "ema:")
    config.write_text("".join(line for line in config.open() if not line.startswith(unknown)))
    forget_options(tmp_path / "run")
    (tmp_path / "run" / "step-00000006.ckpt").unlink()
    status, _, err = run("distill", "--resume", tmp_path / "run", "-q")
    assert status == 0, err


def test_a_teachers_own_code_that_changed_since_is_told(
    run: Run, distill: Command, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write_code(comment: str) -> None:
        code = "from helpers.training import new_teacher\n\n\ndef own():\n    return new_teacher()"
        (tmp_path / "own_teacher.py").write_text(f"{code}  # {comment}\n")
        monkeypatch.delitem(sys.modules, "own_teacher", raising=False)
        importlib.invalidate_caches()
        forget_accelerator()

    write_code("first")
    short = ["--arch", "own_teacher:own", "--no-probe", "--steps", 2, "--lambda", 0]
    assert run(*distill("run", *short))[0] == 0
    write_code("second")
    status, _, err = run("distill", "--resume", tmp_path / "run")
    assert status == 2 and "code: 1 changed (own_teacher)" in err and err.count("\n") == 1, err


def test_a_best_network_that_was_lost_is_found_anew(run: Run, distill: Command, tmp_path: Path) -> None:
    assert run(*distill("run", "-q"))[0] == 0
    (tmp_path / "run" / "best.ckpt").write_bytes(b"x")
    status, _, err = run("distill", "--resume", tmp_path / "run" / "best.ckpt")
    assert status == 2 and "is no state of a run" in err
    assert run("distill", "--resume", tmp_path / "run", "-q") == (0, "", "")
    assert checkpoints.load(tmp_path / "run" / "best.ckpt")["step"] == 6


def test_another_teacher_is_told_and_a_plain_one_will_do(
    run: Run, distill: Command, files: Path, tmp_path: Path
) -> None:
    torch.manual_seed(9)
    write_teacher(EDSR(scale=2, blocks=1, channels=8, tail="conv"), tmp_path / "other.pt")
    status, _, err = run(*distill("run", "--teacher", tmp_path / "other.pt"))
    assert status == 0 and "was derived from another network" in " ".join(err.split())
    save_plain(compile_to_plain(new_teacher()), tmp_path / "plain.safetensors")
    status, _, err = run(*distill("second", "--teacher", tmp_path / "plain.safetensors"))
    assert status == 0 and "another network" not in err


def test_a_student_that_names_no_teacher_is_told(run: Run, distill: Command) -> None:
    _, _, *rest = distill("run")
    status, _, err = run("distill", "x2-tiny", *rest)
    words = " ".join(err.split())
    assert status == 0 and "x2-tiny.onnx: was derived from no network, or does not say from which" in words
    assert "another network" not in words


def test_labels_are_any_networks_of_the_scale_whatever_its_range(
    run: Run, distill: Command, files: Path, tmp_path: Path
) -> None:
    """The same weights on 0..255, biases scaled with them, are the same function of pixels: the same labels."""
    teacher = new_teacher()
    write_teacher(teacher, tmp_path / "small.pt")
    with torch.no_grad():
        for name, value in teacher.named_parameters():
            if name.endswith("bias"):
                value.mul_(255)
    write_teacher(teacher, tmp_path / "large.pt", (0.0, 255.0))
    scores = {}
    rounding = 1e-3  # dB: values up to 255 are rounded elsewhere than those up to 1
    for name in ("small", "large"):
        more = ("--teacher", tmp_path / f"{name}.pt", "--labels", "teacher", "--cache", tmp_path / name, "--json")
        status, out, err = run(*distill(name, *more))
        assert status == 0, err
        scores[name] = json.loads(out)["psnr"]
        assert scores[name]["teacher"] == pytest.approx(scores["small"]["teacher"], abs=rounding)
    assert scores["large"]["student after"] == pytest.approx(scores["small"]["student after"], abs=rounding)
    status, _, err = run(*distill("third", "--teacher", tmp_path / "large.pt", "--lambda", 0.3))
    assert status == 2 and "features cannot be compared; give --lambda 0" in err
    write_teacher(EDSR(scale=3, blocks=1, channels=8, tail="conv"), tmp_path / "three.pt")
    status, _, err = run(*distill("fourth", "--teacher", tmp_path / "three.pt"))
    assert status == 2 and "enlarges 3 channels by 3, the student 3 by 2" in err


def test_photographs_are_zoomed_and_labels_turned(
    run: Run, distill: Command, photographs: Path, tmp_path: Path
) -> None:
    status, out, err = run(*distill("run", "--zoom", "both", "--self-ensemble", "--patch", 8))
    assert status == 0, err
    count = len(list(photographs.iterdir()))
    assert f"{count} photographs in {photographs}, and {2 * count} zoomed out of or into" in " ".join(out.split())
    labels = [path.name for path in (tmp_path / "cache").iterdir() if path.name.endswith("-ensemble.raw")]
    assert len(labels) == 3 * count
    assert sum("-in-" in name for name in labels) == sum("-out-" in name for name in labels) == count


def test_photographs_that_hold_no_patch_zoomed_out_are_told(run: Run, distill: Command, photographs: Path) -> None:
    count = len(list(photographs.iterdir()))
    status, _, err = run(*distill("run", "--zoom", "out", "--patch", 40, "--steps", 1))
    told = f"--zoom out: {count} of {count} photographs, made smaller by two, hold no patch of 40 pixels"
    assert status == 0 and told in " ".join(err.split())


@pytest.mark.parametrize("asked", ["--labels=photographs", "--as-published"])
@pytest.mark.parametrize("options", [("--zoom", "in"), ("--zoom", "both"), ("--self-ensemble",)])
def test_only_the_teacher_tells_what_is_asked(
    run: Run, distill: Command, tmp_path: Path, options: tuple[str, ...], asked: str
) -> None:
    status, _, err = run(*distill("run", asked, *options))
    assert status == 2 and f"{' '.join(options)}: needs the teacher's output" in err
    assert f"give --labels both, or leave {options[0]} out" in err
    assert not (tmp_path / "run").exists()


def test_a_student_for_eight_bits(run: Run, distill: Command, photographs: Path, tmp_path: Path) -> None:
    """Its file gives in ONNX Runtime what validation said, and a run that was stopped ends with the same bits."""
    more = ("--int8", "--json")
    status, out, err = run(*distill("run", *more))
    assert status == 0, err
    told = json.loads(out)
    psnr = told["psnr"]
    assert {Path(path).name for path in told["written"]} == {"student.safetensors", "student.int8.onnx"}
    assert not (tmp_path / "run" / "student.onnx").exists()  # in floating point it would be poor
    assert "student after" not in psnr
    status, out, err = run("eval", tmp_path / "run" / "student.int8.onnx", "--data", photographs, "--json")
    assert status == 0, err
    (model,) = json.loads(out)["models"].values()
    engines = 0.02  # dB: of the last sum, of result and image, engines round the middle of two levels differently
    assert model["average"]["psnr"] == pytest.approx(psnr["student after, int8"], abs=engines)
    export_integers(tmp_path / "run" / "student.int8.onnx", tmp_path / "int8.tflite", ends="float32")
    lite = mean(evaluate(LiteRT(tmp_path / "int8.tflite"), Takes(2), photographs)).psnr
    assert lite == pytest.approx(psnr["student after, int8"], abs=engines)
    assert run(*distill("parts", *more))[0] == 0
    (tmp_path / "parts" / "step-00000006.ckpt").unlink()
    assert run("distill", "--resume", tmp_path / "parts", "--json")[0] == 0
    whole, parts = ((tmp_path / name / "student.int8.onnx").read_bytes() for name in ("run", "parts"))
    assert whole == parts


def test_eight_bits_start_where_quantize_ends(
    run: Run, distill: Command, files: Path, photographs: Path, tmp_path: Path
) -> None:
    status, out, err = run(*distill("run", "--int8", "--steps", 1, "--json"))
    assert status == 0, err
    psnr = json.loads(out)["psnr"]
    export_onnx(load_plain(files / "student.safetensors"), tmp_path / "student.onnx")
    command = ("quantize", tmp_path / "student.onnx", "--out", tmp_path / "int8.onnx", "--data", photographs)
    status, out, err = run(*command, "--calibration", photographs, "--json")
    assert status == 0, err
    engines = 0.02  # dB: torch's integers beside ONNX Runtime's, as above
    assert psnr["student before, int8"] == pytest.approx(json.loads(out)["psnr"]["int8"], abs=engines)
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["step"] == 0 and first["psnr"] == psnr["student before, int8"]


def test_eight_bits_are_calibrated_on_the_photographs_to_learn_from(
    run: Run, distill: Command, photographs: Path, tmp_path: Path
) -> None:
    """Not on those that ship, which validation is on unless told: from dark ones other steps come."""
    dark = tmp_path / "dark"
    dark.mkdir()
    for path in photographs.iterdir():
        Image.fromarray(read_image(path) // 8).save(dark / path.name)
    start = distill("bright", "--int8", "--steps", 1)
    assert run(*start)[0] == 0
    in_the_dark = distill("dark-run", "--int8", "--steps", 1)
    in_the_dark[in_the_dark.index("--data") + 1] = str(dark)
    assert run(*in_the_dark)[0] == 0
    bright, dim = (
        checkpoints.load(checkpoints.newest(tmp_path / name))["objective"]["network.value_scales"]
        for name in ("bright", "dark-run")
    )
    assert (dim < 0.9 * bright).all()


def test_eight_bits_begin_from_new_weights_where_told(run: Run, distill: Command, tmp_path: Path) -> None:
    starts = []
    for init in ("as-is", "he"):
        status, _, err = run(*distill(init, "--int8", "--lambda", 0, "--init", init, "--steps", 1, "--json"))
        assert status == 0, err
        starts.append(load_plain(tmp_path / init / "student.safetensors")[0].weight)
    assert not torch.allclose(starts[0], starts[1], atol=0.05)  # a step of training moves weights by far less


def test_eight_bits_do_without_features(run: Run, distill: Command, tmp_path: Path) -> None:
    status, _, err = run(*distill("run", "--int8", "--lambda", 0.3))
    assert status == 2 and "--int8 with --lambda" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_eight_bits_are_centred_unless_told(run: Run, distill: Command, tmp_path: Path) -> None:
    """From the same start another network comes of it."""
    files = []
    for name, more in (("yes", ()), ("no", ("--as-published", "--optimizer", "adam", "--rate", 1e-4, "--ema", 0.999))):
        status, _, err = run(*distill(name, "--int8", "--labels", "both", "--lambda", 0, *more))
        assert status == 0, err
        files.append(checkpoints.load(checkpoints.newest(tmp_path / name))["objective"])
    means = [[value for name, value in content.items() if ".mean_" in name] for content in files]
    assert all(bool(mean.any()) for mean in means[0]) and not any(bool(mean.any()) for mean in means[1])


def test_a_student_that_teaches_has_labels_of_its_own(
    run: Run, distill: Command, files: Path, photographs: Path, tmp_path: Path
) -> None:
    """It names the network that it was derived from, as another student of that one does."""
    status, _, err = run(*distill("first", "--labels", "teacher", "--teacher", files / "student.safetensors"))
    assert status == 0, err
    other = load_plain(files / "student.safetensors", require_certificate=False)
    with torch.no_grad():
        other[-1].bias.add_(0.25)
    save_plain(other, tmp_path / "other.safetensors")
    status, _, err = run(*distill("second", "--labels", "teacher", "--teacher", tmp_path / "other.safetensors"))
    assert status == 0, err
    assert len(list((tmp_path / "cache").glob("*-low-*.raw"))) == 2 * len(list(photographs.iterdir()))


def test_labels_are_told_apart_by_all_that_they_depend_on(
    run: Run, distill: Command, files: Path, photographs: Path, tmp_path: Path
) -> None:
    """The same layers are another function in another range, and beside another image."""
    net = load_plain(files / "student.safetensors", require_certificate=False)
    net.certificate = None
    told = (net.info, replace(net.info, input_range=(0.0, 255.0)), replace(net.info, image_skip="bilinear"))
    for i, info in enumerate(told):
        path = tmp_path / f"{i}.safetensors"
        save_plain(PlainNet(list(net), info), path)
        status, _, err = run(*distill(str(i), "--labels", "teacher", "--lambda", 0, "--teacher", path))
        assert status == 0, err
    assert len(list((tmp_path / "cache").glob("*-low-*.raw"))) == len(told) * len(list(photographs.iterdir()))


def test_labels_of_a_graph_are_told_apart_by_the_image_beside_it() -> None:
    graph = trace(new_teacher()).graph
    skips = (None, ImageSkip("bilinear", 2), ImageSkip("bicubic", 2))
    models = [GraphModule(graph, skip) for skip in skips]
    assert len({_name_outputs(model, LeveledTeacher.of(model, (0.0, 1.0))) for model in models}) == len(skips)


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("method", ["srkd", "fakd", "pisr"])
def test_each_method_trains_and_goes_on_bit_for_bit(
    run: Run, distill: Command, tmp_path: Path, method: str, published: bool
) -> None:
    """From its last state but one, which PISR's is in the second stage already, and from the first of all."""
    more = ["--method", method, *(["--as-published"] if published else []), "--rate", "1e-3", "--json"]
    status, out, err = run(*distill("whole", *more))
    assert status == 0, err
    assert set(json.loads(out)["psnr"]) == {"bicubic", "teacher", "student before", "student after"}
    assert f"method: {method}\n" in (tmp_path / "whole" / "config.yaml").read_text()
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").open()]
    assert all(line["features"] != 0 for line in log[1:])
    (tmp_path / "whole").rename(tmp_path / "parts")
    whole = checkpoints.load(tmp_path / "parts" / "step-00000006.ckpt")["objective"]
    (tmp_path / "parts" / "step-00000006.ckpt").unlink()
    status, _, err = run("distill", "--resume", tmp_path / "parts", "--json")
    assert status == 0, err
    parts = checkpoints.load(tmp_path / "parts" / "step-00000006.ckpt")["objective"]
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_an_auto_encoder_that_was_stopped_goes_on(
    run: Run, distill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["--method", "pisr", "--as-published", "--init", "he", "-q"]
    assert run(*distill("whole", *more))[0] == 0
    kept = checkpoints.save_step

    def stop(state: checkpoints.State, folder: Path, step: int) -> None:
        kept(state, folder, step)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_step", stop)
        run(*distill("parts", *more))
    assert not checkpoints.load(tmp_path / "parts" / "step-00000002.ckpt")["objective"]["taught"]
    assert run("distill", "--resume", tmp_path / "parts", "-q")[0] == 0
    states = [checkpoints.load(tmp_path / n / "step-00000006.ckpt")["objective"] for n in ("whole", "parts")]
    assert states[0]["taught"] and all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_loss_that_is_no_number_is_told_of_every_method(run: Run, distill: Command) -> None:
    status, _, err = run(*distill("run", "--method", "pisr", "--as-published", "--rate", "1e30"))
    assert status != 0 and "lower --rate" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "fakd", "--int8"], "--int8 with --method fakd"),
        (["--method", "pisr", "--labels", "teacher"], "--method pisr: learns from photographs"),
        (["--method", "pisr", "--zoom", "in"], "--method pisr with --zoom in: learns from photographs"),
        (["--method", "pisr", "--labels", "both", "--zoom", "both"], "give --zoom out, or none"),
        (["--method", "ofakd"], "want one of memsr, srkd, fakd, pisr"),
        (["--init", "orthogonal"], "want one of as-is, he, he-uniform, xavier, xavier-uniform, identity"),
    ],
)
def test_methods_that_do_not_fit(run: Run, distill: Command, tmp_path: Path, options: list[str], message: str) -> None:
    status, _, err = run(*distill("run", *options))
    assert status == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_pisr_is_for_one_process(run: Run, distill: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    status, _, err = run(*distill("run", "--method", "pisr"))
    assert status == 2 and "only one process" in err


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("init", ["he", "xavier-uniform", "identity"])
def test_every_start_is_trained_as_published_and_balanced(
    run: Run, distill: Command, tmp_path: Path, init: str, published: bool
) -> None:
    more = ["--init", init, *(["--as-published"] if published else []), "--steps", 1, "-q"]
    status, _, err = run(*distill("run", *more))
    assert status == 0, err
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert log[0]["psnr"] > 30  # an image before it is trained: that is outside
