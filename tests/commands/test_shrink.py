"""memsrc shrink as a person meets it: what it prints and writes, and what it says to wrong input."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import Run, must_refuse
from helpers.html_outline import outline
from helpers.teachers import write_teacher
from helpers.two_processes import run_two
from helpers.user_code import thickening
from numpy.typing import NDArray
from PIL import Image

from memsr_compiler import load_plain, save_plain
from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.trace.trace import trace

QUICK = ("--samples", "4", "--refit", "0")


def shrink(teacher: Path, photographs: Path, *options: object, out: str = "student.onnx") -> tuple[object, ...]:
    return ("shrink", teacher, "--out", teacher.parent / out, "--calibration", photographs, *QUICK, *options)


def test_a_student_is_derived_and_written(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    saved = tmp_path / "student.safetensors"
    status, out, err = run(*shrink(teacher, photographs, "--width", "8", "--save", saved))
    assert status == 0 and err == "", err
    lines = [line.split() for line in out.splitlines()]
    assert any(line[:1] == ["1"] and "8" in line for line in lines), out
    for name in ("bicubic", "teacher", "plain", "student"):
        (row,) = [line for line in lines if line[:1] == [name]]
        assert row[-1] == "dB"
    scores = {line[0]: line[-2] for line in lines if line[:1] in (["teacher"], ["plain"])}
    assert scores["teacher"] == scores["plain"]
    assert "960x540" in out and "the calibration photographs" in out
    student = load_plain(tmp_path / "student.onnx")
    assert student.scale == 2 and student.widths[1:-1] == [8] * (len(student.widths) - 2)
    assert load_plain(saved).sha256() == student.sha256()


def test_a_teacher_is_traced_once(run: Run, teacher: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is said of it, and not again for the student."""
    traced: list[object] = []

    def count(*args: object, **how: object) -> object:
        traced.append(args)
        return trace(*args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("memsr_compiler.lowering.freezing.trace", count)
    status, _, err = run(*shrink(teacher, photographs, "--width", "8"))
    assert status == 0, err
    assert len(traced) == 1


@pytest.mark.parametrize(
    "budget",
    [
        ("--theta", "0.05"),
        ("--width", "8", "--init", "memsr", "--beta", "1"),
        ("--max-params", "9K"),
        ("--max-macs", "8G"),
        ("--max-memory", "100MiB"),
        ("--max-macs", "1G", "--size", "100x50"),
        ("--max-latency", "60000", "--size", "100x50", "--provider", "cpu", "--threads", "1"),
    ],
)
def test_every_way_to_say_how_narrow(
    run: Run, teacher: Path, photographs: Path, tmp_path: Path, budget: tuple[str, ...]
) -> None:
    status, out, err = run(*shrink(teacher, photographs, *budget, "--json"))
    assert status == 0, err
    found = json.loads(out)
    told = found["student"]
    assert found["arithmetic"] == "float32, by torch on the CPU"
    assert found["widths"] == load_plain(tmp_path / "student.onnx").widths
    assert found["size"] == ([100, 50] if "--size" in budget else [960, 540])
    if "--max-params" in budget:
        assert told["parameters"] <= 9_000
    if "--max-macs" in budget:
        assert told["macs"] <= (1e9 if "--size" in budget else 8e9)
    if "--max-latency" in budget:
        assert 0 < found["milliseconds"] <= 60_000
    if "--max-memory" in budget:
        assert told["feature_map_bytes"] <= 100 * 2**20


def test_few_layers_and_the_image_outside(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    command = shrink(teacher, photographs, "--width", "8", "--layers", "4")
    status, out, err = run(*command)
    assert status == 0 and err == "", err
    assert any(line.startswith("levels       ") and "the even choice" in line for line in out.splitlines()), out
    student = load_plain(tmp_path / "student.onnx")
    assert student.info.image_skip == "nearest" and len(student.layers) == 4
    status, out, err = run(*command, "--image-skip", "none", "--json", "--overwrite")
    assert status == 0, err
    told = json.loads(out)
    assert told["info"]["image_skip"] == load_plain(tmp_path / "student.onnx").info.image_skip == ""
    kept = told["levels"]["kept"]
    assert len(kept) == 3 and sum(layer["spans"] for layer in told["layers"]) == kept[-1]
    status, out, err = run(*shrink(teacher, photographs, "--width", "8", "--layers", "90", "--overwrite"))
    assert status == 2 and "layers=90: the teacher's plain form has" in err and err.count("\n") == 1


def test_what_a_foreign_plain_file_was_made_by_moves_no_cursor(
    run: Run, model: Path, photographs: Path, tmp_path: Path
) -> None:
    net = load_plain(model)
    net.info = replace(net.info, tool="x\x1b[2J\n" + "y" * 1000)
    save_plain(net, tmp_path / "foreign.safetensors")
    status, out, err = run(*shrink(tmp_path / "foreign.safetensors", photographs, "--width", "4"))
    assert status == 0, err
    assert "\x1b" not in out and "yyyy" not in out and " made by " in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--width", "8", "--threads", "1"), "--provider and --threads say what --max-latency is measured on"),
        (("--width", "8", "--provider", "cuda"), "--provider and --threads say what --max-latency is measured on"),
        (("--max-latency", "0.000001", "--size", "40x30"), "below what a student 8 wide everywhere takes"),
    ],
)
def test_limits_on_latency_that_are_none(
    run: Run, teacher: Path, photographs: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    status, _, err = run(*shrink(teacher, photographs, *options))
    assert status == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "student.onnx").exists()


def test_a_width_for_every_layer(run: Run, teacher: Path, photographs: Path) -> None:
    status, out, err = run(*shrink(teacher, photographs, "--width", "8", "--json"))
    layers = len(json.loads(out)["layers"])
    wanted = [8 + 8 * (i % 2) for i in range(layers)]
    teachers = [layer["teacher_width"] for layer in json.loads(out)["layers"]]
    wanted = [min(w, -(-t // 8) * 8) for w, t in zip(wanted, teachers, strict=True)]
    status, out, err = run(*shrink(teacher, photographs, "--widths", ",".join(map(str, wanted)), "--json"))
    assert status == 0, err
    assert [layer["width"] for layer in json.loads(out)["layers"]] == wanted


def test_the_report_is_written(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    status, _, err = run(*shrink(teacher, photographs, "--width", "8", "--report", page, "--quiet"))
    assert status == 0 and err == "", err
    found = outline(page.read_text("utf-8"))
    assert found.count("img") == 2 * 6
    for name in ("original", "bicubic", "teacher", "plain", "student"):
        assert found.text.count(f"{name} ") >= 2
    assert f"A student of {teacher.name}" in found.text and str(teacher) not in found.text  # pages are sent to others


def test_networks_on_luma_are_shrunk_too(run: Run, grey_teacher: Path, photographs: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    status, out, err = run(*shrink(grey_teacher, photographs, "--width", "8", "--report", page))
    assert status == 0 and err == "", err
    assert load_plain(tmp_path / "student.onnx").info.channels == 1
    assert "student" in out
    assert outline(page.read_text("utf-8")).count("img") == 2 * 6


def test_a_plain_network_is_shrunk_too(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    for name in ("plain.onnx", "plain.safetensors"):
        assert run("convert", teacher, "--out", tmp_path / name, "--quiet")[0] == 0
        page = tmp_path / "report.html"
        status, out, err = run(*shrink(tmp_path / name, photographs, "--width", "8", "--report", page))
        assert status == 0, err
        assert [line.split()[0] for line in out.splitlines() if line.endswith(" dB")] == ["bicubic", "plain", "student"]
        assert outline(page.read_text("utf-8")).count("img") == 2 * 5
    plain = tmp_path / "plain.onnx"
    must_refuse(run, tmp_path, shrink(plain, photographs, "--width", "8", "--arch", "edsr"), "--arch")
    must_refuse(run, tmp_path, shrink(plain, photographs, "--width", "8", "--input-range", "0", "255"), "--input-range")


def test_the_same_seed_gives_the_same_student(run: Run, teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    write_image(folder / "large.png", sample_photographs()[0][:400, :400])
    hashes = []
    for seed in ("1", "1", "2"):
        assert run(*shrink(teacher, folder, "--width", "8", "--seed", seed, "--quiet"))[0] == 0
        hashes.append(load_plain(tmp_path / "student.onnx").sha256())
    assert hashes[0] == hashes[1] != hashes[2]


def test_budgets_that_are_none(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    for options, words in (
        ((), ("nothing says how narrow", "--theta", "--max-memory")),
        (("--theta", "0.1", "--width", "8"), ("--theta and --width", "exactly one")),
        (("--max-macs", "3G", "--max-params", "1M", "--width", "8"), ("--width and --max-params and --max-macs",)),
        (("--theta", "0"), ("theta",)),
        (("--theta", "1"), ("theta",)),
        (("--theta", "-0.1"), ("theta",)),
        (("--theta", "nan"), ("theta",)),
        (("--width", "0"), ("width",)),
        (("--width", "-8"), ("width",)),
        (("--width", "100000"), ("width",)),
        (("--widths", "8,8"), ("width",)),
        (("--widths", "8,0,8"), ("width",)),
        (("--widths", "8,,8"), ("--widths", "16,24,32")),
        (("--widths", "8;8"), ("--widths", "16,24,32")),
        (("--max-params", "many"), ("--max-params", "1.2M")),
        (("--max-params", "-3"), ("--max-params",)),
        (("--max-params", "0"), ("--max-params",)),
        (("--max-macs", "3X"), ("--max-macs", "3G")),
        (("--max-memory", "40Mb/s"), ("--max-memory", "40MB")),
        (("--max-memory", "40 apples"), ("--max-memory", "40MB")),
        (("--width", "8", "--init", "random"), ("--init", "data-aware, memsr")),
        (("--width", "8", "--size", "big"), ("--size",)),
        (("--width", "8", "--align", "0"), ("align",)),
        (("--width", "8", "--samples", "0"), ("samples",)),
        (("--width", "8", "--refit", "-1"), ("refit",)),
        (("--width", "8", "--seed", "-1"), ("seed",)),
        (("--width", "8", "--init", "memsr", "--beta", "nan"), ("--beta nan", "mean shift of nan")),
        (
            ("--width", "8", "--init", "memsr", "--paper", "figure"),
            ("paper option 'figure'", "shift_over=negative|all"),
        ),
        (("--width", "8", "--paper", "code"), ("--paper is for --init memsr",)),
        (("--max-params", "1M", "--init", "memsr", "--paper", "kept=1"), ("keep the teacher's width",)),
    ):
        must_refuse(run, tmp_path, shrink(teacher, photographs, *options), *words)


def test_a_budget_below_the_minimum_names_the_minimum(
    run: Run, teacher: Path, photographs: Path, tmp_path: Path
) -> None:
    for option, text, unit in (("--max-params", "10", 1), ("--max-macs", "10K", 1), ("--max-memory", "1KB", 1)):
        message = must_refuse(run, tmp_path, shrink(teacher, photographs, option, text), "below", "takes")
        assert any(character.isdigit() for character in message), (message, unit)


def test_more_unknowns_than_samples(run: Run, teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_image(folder / "tiny.png", sample_photographs()[0][:10, :10])
    must_refuse(run, tmp_path, shrink(teacher, folder, "--width", "8"), "more")


def test_files_that_are_none(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    width = ("--width", "8")
    must_refuse(run, tmp_path, shrink(tmp_path / "absent.pt", photographs, *width), "absent.pt")
    must_refuse(run, tmp_path, shrink(teacher, photographs, *width, out="student.txt"), "student.txt", ".safetensors")
    must_refuse(run, tmp_path, shrink(teacher, photographs, *width, "--save", tmp_path / "a.onnx"), "a.onnx", "--save")
    must_refuse(run, tmp_path, shrink(teacher, photographs, *width, out="nowhere/s.onnx"), "nowhere", "does not exist")
    same = tmp_path / "s.safetensors"
    must_refuse(run, tmp_path, shrink(teacher, photographs, *width, "--save", same, out=same.name), "twice")
    plain = tmp_path / "plain.safetensors"
    assert run("convert", teacher, "--out", plain, "--quiet")[0] == 0
    must_refuse(run, tmp_path, shrink(plain, photographs, *width, out=plain.name), "is the network that is read")


def test_unreadable_images_are_named_and_passed_over(
    run: Run, teacher: Path, photographs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    must_refuse(run, tmp_path, shrink(teacher, folder, "--width", "8"), "no readable image")
    must_refuse(run, tmp_path, shrink(teacher, tmp_path / "absent", "--width", "8"), "absent", "is no folder")
    must_refuse(run, tmp_path, shrink(teacher, teacher, "--width", "8"), "is no folder")
    (folder / "notes.txt").write_text("no image")
    (folder / "cut.png").write_bytes((photographs / "0.png").read_bytes()[:500])
    (folder / ".hidden").write_text("")
    message = must_refuse(
        run, tmp_path, shrink(teacher, folder, "--width", "8"), "no readable image", "notes.txt", "cut.png"
    )
    assert ".hidden" not in message
    (folder / "1x1.png").write_bytes(png_of(np.zeros((1, 1, 3), np.uint8)))
    status, _, err = run(*shrink(teacher, folder, "--width", "8"))
    assert status == 2 and "1x1" in err and "no image in it is large enough" in err
    write_image(folder / "good.png", sample_photographs()[0][:128, :128])
    status, _, err = run(*shrink(teacher, folder, "--width", "8"))
    assert status == 0, err
    for name in ("notes.txt", "cut.png", "1x1.png"):
        assert err.replace("\n", "").count(name) == 1, err
    assert "good.png" not in err


def png_of(pixels: NDArray[np.uint8]) -> bytes:
    from memsr_compiler.images.files import png

    return png(pixels)


def test_all_kinds_of_images_are_taken(run: Run, teacher: Path, grey_teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kinds"
    folder.mkdir()
    colour = sample_photographs()[0][:96, :130]
    Image.fromarray(colour).convert("L").save(folder / "grey.png")
    Image.fromarray(np.dstack([colour, colour[..., 0]])).save(folder / "rgba.png")
    Image.fromarray(colour[..., 0].astype(np.uint16) * 257).save(folder / "16bit.png")
    Image.fromarray(colour).save(folder / "photo.jpg")
    Image.fromarray(colour[:5, :7]).save(folder / "small.png")
    Image.fromarray(np.full((40, 40, 3), 128, np.uint8)).save(folder / "constant.png")
    for network in (teacher, grey_teacher):
        status, out, err = run(*shrink(network, folder, "--width", "8", "--samples", "12"))
        assert status == 0, err
        assert load_plain(tmp_path / "student.onnx").sha256()
        assert "nan" not in out


def test_constant_images_alone_have_nothing_to_tell(run: Run, teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "constant"
    folder.mkdir()
    write_image(folder / "grey.png", np.full((200, 200, 3), 128, np.uint8))
    status, out, err = run(*shrink(teacher, folder, "--width", "8", "--json"))
    if status:
        assert status == 2 and "memsrc:" in err and err.count("\n") == 1
        assert not (tmp_path / "student.onnx").exists()
    else:
        assert all(torch.isfinite(layer.weight).all() for layer in load_plain(tmp_path / "student.onnx"))
        assert "NaN" not in out and "Infinity" not in out


def test_a_failed_disk_leaves_nothing(
    run: Run, teacher: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    page = tmp_path / "report.html"
    must_refuse(run, tmp_path, shrink(teacher, photographs, "--width", "8", "--report", page), "No space left")


def test_networks_that_have_no_plain_form(run: Run, photographs: Path, tmp_path: Path) -> None:
    """Nor would have if their gates were frozen: see test_approximate.py for those that would."""
    torch.save(thickening().state_dict(), tmp_path / "thickening.pt")
    own = ("--arch", "helpers.user_code:thickening", "--no-probe", "--input-range", "0", "1")
    must_refuse(run, tmp_path, shrink(tmp_path / "thickening.pt", photographs, "--width", "8", *own), "1: max_pool2d: ")


def test_two_processes_derive_what_one_derives(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    given = [str(word) for word in shrink(teacher, photographs, "--width", 8)]
    commands = [[*given[:2], "--out", str(tmp_path / f"{name}.safetensors"), *given[4:]] for name in ("one", "two")]
    assert run(*commands[0])[0] == 0
    run_two(["-m", "memsr_compiler", *commands[1]])
    found = [load_plain(tmp_path / f"{name}.safetensors") for name in ("one", "two")]
    for one, two in zip(*found, strict=True):
        # Sums of float64 in another order, 1e-15 apart, which solving with a ridge of 1e-6 makes 1e-9; then float32.
        torch.testing.assert_close(one.weight, two.weight, rtol=1e-6, atol=1e-6)


def test_help_has_examples(run: Run) -> None:
    for command in ("shrink", "sweep"):
        status, out, _ = run(command, "--help")
        assert status == 0 and f"Example: memsrc {command}" in out


FOUR_CHANNELS = """
from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
"""


def test_a_network_of_other_channels_says_what_it_needs(
    run: Run, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "four.py").write_text(FOUR_CHANNELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import four  # type: ignore[import-not-found]

    write_teacher(four.network(), tmp_path / "four.pt")
    command = shrink(tmp_path / "four.pt", photographs, "--width", "8", "--arch", "four:network")
    status, _, err = run(*command)
    assert status == 2 and "4 channels" in err and err.count("\n") == 1
