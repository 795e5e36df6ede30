"""The scripts in examples/ do what they say."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import memsr_compiler
from memsr_compiler import load_plain
from memsr_compiler.images import files
from memsr_compiler.images.files import read_image, sample_photographs, to_tensor
from memsr_compiler.images.resize import resize
from memsr_compiler.models.catalogue import list_models

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    done = 0
    try:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    except SystemExit as stop:
        done = stop.code if isinstance(stop.code, int) else 0
    assert done == 0


def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples take their time to derive a student, a test need not."""
    full = memsr_compiler.shrink
    crops = [to_tensor(resize(image, 0.5)[50:98, 50:98]) for image in sample_photographs()]
    quick = {"calibration": crops, "samples": len(crops), "refit": 0}
    monkeypatch.setattr(memsr_compiler, "shrink", lambda model, **options: full(model, **{**options, **quick}))


@pytest.mark.parametrize("path", [EXAMPLES / "edsr_8x32_x2.pt", *(m.path for m in list_models())], ids=lambda p: p.name)
def test_networks_that_ship_are_those_of_the_model_card(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"{digest}  {path.name}" in (EXAMPLES / "MODELS.md").read_text("utf-8")


def test_demo_keeps_the_teachers_psnr_and_a_student_comes_close(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quickly(monkeypatch)
    monkeypatch.setattr(files, "sample_photographs", lambda **options: sample_photographs(**options)[:2])
    run(monkeypatch, "demo.py", tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    names = ("bicubic", "teacher", "plain", "student")
    scores = {
        name: float(line.split()[-2])
        for line in lines
        for name in names
        if line.strip().startswith(name) and line.strip().endswith(" dB")
    }
    assert scores["teacher"] == scores["plain"], lines
    assert scores["bicubic"] + 1 < scores["student"] < scores["teacher"], lines
    assert (tmp_path / "out" / "plain.cert.json").exists()
    for name in ("plain", "student"):
        assert len(list((tmp_path / "out").glob(f"*_{name}.png"))) == 2


def test_a_network_of_ones_own_gives_in_onnx_runtime_what_it_gives_in_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "own_network.py", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "convertible: True"
    assert lines[1].endswith("exact for every image without negative values")
    difference = float(lines[-1].split("at most ")[1].split()[0])
    assert difference < 1e-5  # float32: some 20 layers, each to half a unit in the last place of values around 1
    assert (tmp_path / "plain.onnx").exists()


def test_a_converted_network_is_proved_and_a_changed_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "convert_and_prove.py", tmp_path)
    out = capsys.readouterr().out
    assert "proved: exact for every image without negative values\n" in out
    assert re.search(
        r"^measured: largest difference \S+e-1[3-9], .*^noticed: .*^refused: ", out, re.DOTALL | re.MULTILINE
    )
    assert not (tmp_path / "changed.onnx").exists()


def test_a_student_is_scored_and_shown_beside_its_teacher(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quickly(monkeypatch)
    run(monkeypatch, "shrink_and_look.py", tmp_path)
    teacher, student = (
        [float(number) for number in re.findall(r"([\d.]+) dB", line)]
        for line in capsys.readouterr().out.splitlines()[:2]
    )
    assert all(t - 3 < s < t for t, s in zip(teacher, student, strict=True)), (teacher, student)
    assert read_image(tmp_path / "look.png").shape == (2 * 192, 4 * 192, 3)


def test_a_photograph_larger_than_its_limit_goes_through_without_seams(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "large_photograph.py", tmp_path, 1600, 1200, 5)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "5.5 MiB became 22.0 MiB, within 5.0 MB"
    difference = int(second.split("differs by ")[1].split()[0])
    assert difference <= 1  # of 255: a value between two is rounded either way
    assert np.load(tmp_path / "result.npy", mmap_mode="r").shape == (2400, 3200, 3)


def test_two_processes_train_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "train_two_processes.py", tmp_path, 4)
    out = capfd.readouterr().out
    assert re.findall(r"^step (\d+): [\d.]+ dB$", out, re.MULTILINE) == ["0", "2", "4"]
    assert load_plain(tmp_path / "run" / "plain.onnx").scale == 2


def test_the_notebook_runs_from_the_first_cell_to_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = json.loads((EXAMPLES / "tour.ipynb").read_text("utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    cells = book["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    required = {"markdown": {"cell_type", "id", "metadata", "source"}}
    required["code"] = required["markdown"] | {"execution_count", "outputs"}
    assert all(set(cell) == required[cell["cell_type"]] for cell in cells)
    code = [(cell["id"], "".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in cells), "clear the outputs before committing"

    quickly(monkeypatch)
    shutil.copy(EXAMPLES / "edsr_8x32_x2.pt", tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for name, source in code:
        exec(compile(source, f"tour.ipynb, cell {name}", "exec"), names)
    equal, changed = capsys.readouterr().out.splitlines()[:2]
    assert float(equal) < 1e-12
    assert changed.startswith("worst deviation")
    assert (tmp_path / "demo-output" / "student.onnx").exists()
