"""memsr_compiler.distributed: workers that derive the students of a sweep; in a cluster of Ray, where there is one."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ray_sweep_killed
from helpers.command_line import Run
from helpers.ray_environment import ray_environment
from helpers.teachers import write_teacher

from memsr_compiler import compile_to_plain, export_onnx
from memsr_compiler.commands.students import sweeper
from memsr_compiler.commands.students.common import derive
from memsr_compiler.distributed import DeriveStudents, write_curve
from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.locks import hold_folder
from memsr_compiler.teachers.families.edsr import EDSR

pytest.importorskip("fcntl", reason="Windows has no such locks")

QUICK: dict[str, Any] = {"samples": 4, "refit": 0}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a teacher and two photographs."""
    torch.manual_seed(0)
    write_teacher(EDSR(scale=2, blocks=1, channels=8), tmp_path / "teacher.pt")
    (tmp_path / "photographs").mkdir()
    for i, image in enumerate(sample_photographs()[:2]):
        write_image(tmp_path / "photographs" / f"{i}.png", image[100:220, 100:250])
    return tmp_path


def worker(place: Path, **options: Any) -> DeriveStudents:
    photographs = place / "photographs"
    return DeriveStudents(
        place / "done", **{"teacher": place / "teacher.pt", "calibration": photographs, **QUICK, **options}
    )


def rows(derive_students: DeriveStudents, *budgets: str) -> list[dict[str, Any]]:
    """What a batch gives, as rows."""
    done = derive_students({"budget": np.array(budgets)})
    return [dict(zip(done, values, strict=True)) for values in zip(*(v.tolist() for v in done.values()), strict=True)]


def test_nothing_that_other_code_gave_is_given_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the network that the code made before it was changed were given for the one that it makes now."""
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    torch.save({"0.weight": torch.rand(12, 3, 1, 1) / 3, "0.bias": torch.zeros(12)}, place / "own.pt")
    scores = []
    for activation in ("Identity", "ReLU6"):
        (place / "own_swept.py").write_text(
            "from torch import nn\n\n\ndef net():\n"
            f"    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.PixelShuffle(2), nn.{activation}())\n"
        )
        monkeypatch.delitem(sys.modules, "own_swept", raising=False)
        importlib.invalidate_caches()
        derive_students = worker(place, teacher=place / "own.pt", arch="own_swept:net", no_probe=True)
        scores += [row["psnr_y_db"] for row in rows(derive_students, "teacher")]
    assert len(list((place / "done").glob("*.json"))) == 2, scores


def test_nothing_that_was_scored_on_other_images_is_given_again(place: Path) -> None:
    """Images behind a link were not looked at; scores of those that lay there before were given."""
    (place / "set").mkdir()
    (place / "set" / "HR").symlink_to(place / "photographs")
    scores = []
    for step in (1, -1):
        for i, image in enumerate(sample_photographs()[:2]):
            write_image(place / "photographs" / f"{i}.png", image[100:160, 100:160][::step, ::step] // (3 + step))
        scores += [row["psnr_y_db"] for row in rows(worker(place, data=place / "set", calibration=None), "bicubic")]
    assert scores[0] != scores[1]


def sweep(run: Run, place: Path, *budgets: str) -> tuple[bytes, bytes]:
    """Table and plot of memsrc sweep."""
    files = place / "swept.csv", place / "swept.svg"
    options = [f"--{name}={value}" for name, value in QUICK.items()]
    status, _, err = run(
        "sweep", place / "teacher.pt", *budgets, "--calibration", place / "photographs", *options,
        "--csv", files[0], "--plot", files[1],
    )  # fmt: skip
    assert status == 0, err
    return files[0].read_bytes(), files[1].read_bytes()


def curve(place: Path, told: Sequence[dict[str, Any]]) -> tuple[bytes, bytes]:
    """Table and plot of what workers gave."""
    write_curve(told, csv=place / "curve.csv", plot=place / "curve.svg")
    return (place / "curve.csv").read_bytes(), (place / "curve.svg").read_bytes()


def test_a_batch_gives_the_curve_of_a_sweep_and_each_student_is_derived_once(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived: list[object] = []

    def note(teacher: Any, options: Any, budget: dict[str, Any], *rest: Any) -> Any:
        derived.append((options.samples, *budget.values()))
        return derive(teacher, options, budget, *rest)

    expected = sweep(run, place, "--width", "4,8")
    monkeypatch.setattr(sweeper, "derive", note)
    told = rows(worker(place), "bicubic", "width 4", "width  8", "width 4", "teacher")
    assert [row["network"] for row in told] == ["bicubic", "width 4", "width 8", "width 4", "teacher"]
    assert [row["error"] for row in told] == [""] * 5 and told[1] == told.pop(3)
    assert curve(place, told) == expected
    assert derived == [(4, 4), (4, 8)]
    again = rows(worker(place), "bicubic", "width 8", "width 4", "teacher", "width 12")
    assert [again[0], again[2], {**again[1], "budget": "width  8"}, again[3]] == told
    assert derived == [(4, 4), (4, 8), (4, 12)]
    rows(worker(place, samples=5), "width 4")
    assert derived[3:] == [(5, 4)]  # students of another sweep


def test_a_budget_that_is_none_or_that_no_student_fits_is_told(place: Path) -> None:
    wrong = {
        "narrow": "want a name and a value",
        "": "want a name and a value",
        "height 8": "names are theta, width",
        "width 8 width 16": "want a name and a value",
        "width 8,16": "want one whole number",
        "theta 2": "want numbers between 0 and 1",
        "width 8 theta 0.1": "in one way, not",
        "layers 3": "in one way, not nothing",
        "max-macs 10": "the limit of 10 is below",
    }
    told = rows(worker(place), *wrong, "width 4")
    for row, (budget, words) in zip(told, wrong.items(), strict=False):
        assert row["budget"] == row["network"] == budget and words in row["error"], row
        assert row["parameters"] == 0 and np.isnan(row["psnr_y_db"])
    assert told[-1]["error"] == "" and told[-1]["parameters"] > 0
    with pytest.raises(InvalidInput, match=r"^narrow: .*want a name and a value"):
        write_curve(told, csv=place / "curve.csv")
    assert not (place / "curve.csv").exists()


def test_budgets_are_those_of_shrink(place: Path) -> None:
    names = ("width 8 layers 3", "widths 4,8,4,4", "max-params 4K", "theta 0.5")
    told = rows(worker(place, layers=5), *names)
    assert [row["error"] for row in told] == [""] * 4
    assert [row["network"] for row in told] == ["width 8 layers 3", "widths 4,8,4,4", "max_params 4000", "theta 0.5"]
    assert [len(row["widths"].split()) for row in told] == [4, 6, 6, 6]  # an image, then what each layer gives
    assert told[2]["parameters"] <= 4000


def test_a_curve_is_of_one_sweep(place: Path) -> None:
    row = rows(worker(place), "bicubic")[0]
    for told, words in (([], "0 curves"), ([row, {**row, "curve": "another"}], "2 curves")):
        with pytest.raises(InvalidInput, match=words):
            write_curve(told, csv=place / "curve.csv")
    with pytest.raises(InvalidInput, match=r"a plot is written as \.svg"):
        write_curve([row], csv=place / "curve.csv", plot=place / "curve.png")
    assert not (place / "curve.csv").exists()


def test_students_come_of_a_plain_network_and_are_scored_on_given_images(place: Path) -> None:
    torch.manual_seed(0)
    export_onnx(compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval()), place / "plain.onnx")
    itself = rows(worker(place, teacher=place / "plain.onnx", data=place / "photographs"), "teacher")[0]
    assert itself["network"] == "plain" and f"on 2 images in {place / 'photographs'}" in itself["curve"]
    teacher = rows(worker(place, data=str(place / "photographs")), "teacher")[0]
    assert itself["psnr_y_db"] == pytest.approx(teacher["psnr_y_db"], abs=1e-4)  # float32, in another order
    assert itself["parameters"] > teacher["parameters"]


@pytest.mark.parametrize("name", ["teacher.pt", "plain.onnx"])
def test_a_worker_may_be_any_thread(place: Path, name: str) -> None:
    """Only the main one may say what Ctrl-C does, which a worker leaves to whom the process belongs."""
    torch.manual_seed(0)
    export_onnx(compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval()), place / "plain.onnx")
    told: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: told.extend(rows(worker(place, teacher=place / name), "teacher")))
    thread.start()
    thread.join()
    assert told[0]["error"] == ""


def test_what_does_not_fit_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memsr_compiler.locks._BEGINNING", 0.1)
    with pytest.raises(InvalidInput, match="the batch has columns path; want 'budget'"):
        worker(place)({"path": np.zeros(1)})
    with pytest.raises(InvalidInput, match="width: there is no such option; there are align, "):
        worker(place, width=8)
    with pytest.raises(InvalidInput, match=r"absent\.pt"):
        worker(place, teacher="absent.pt")
    with pytest.raises(InvalidInput, match=r"absent.*is no folder"):
        worker(place, data=place / "absent")
    (place / "file").touch()
    with pytest.raises(ExportError, match="file: cannot be made a folder"):
        DeriveStudents(place / "file", teacher=place / "teacher.pt")
    with hold_folder(place / "done"), pytest.raises(InvalidInput, match="is at work in it"):
        rows(worker(place), "bicubic")


def test_workers_that_enlarge_do_without_torch_and_none_needs_ray() -> None:
    program = "import sys, memsr_compiler.distributed as d; print({'torch', 'ray'} & {*sys.modules}, *d.__all__)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "set() DeriveStudents EnlargeFiles EnlargeImages write_curve\n"


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make ray")
def test_of_two_workers_of_ray_one_is_killed_and_no_student_is_lost_or_derived_twice(run: Run, place: Path) -> None:
    program = [sys.executable, ray_sweep_killed.__file__, str(place)]
    done = subprocess.run(program, capture_output=True, text=True, env=ray_environment(), timeout=500)
    assert done.returncode == 0, done.stderr
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"rows"')))
    assert said["killed"] and said["rows"] == ["bicubic", "width 4", "width 8", "width 12", "teacher"]
    assert sorted(width for _, width in said["begun"]) == [4, 8, 8, 12]  # 8 died with its worker
    assert len({process for process, width in said["begun"] if width == 8}) == 2
    made = (place / "curve.csv").read_bytes(), (place / "curve.svg").read_bytes()
    assert made == sweep(run, place, "--width", "4,8,12")
