"""memsrc sweep as a person meets it: table, file and plot, and what it says to wrong input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from shutil import copytree
from typing import Any
from xml.etree import ElementTree

import pytest
from helpers.command_line import Run, must_refuse
from helpers.two_processes import run_two

from memsr_compiler.analysis.cost import cost_of_layers
from memsr_compiler.commands import sweep
from memsr_compiler.commands.students import sweeper
from memsr_compiler.commands.students.common import derive
from memsr_compiler.commands.students.curve import Row, write_table
from memsr_compiler.commands.students.sweeper import Entry, Place
from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.images.resize import resize
from memsr_compiler.sharing import Launch
from memsr_compiler.torch_helpers import one_thread

QUICK = ("--samples", "4", "--refit", "0")


def test_a_sweep_is_a_table_a_file_and_a_plot(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    table, plot = tmp_path / "curve.csv", tmp_path / "curve.svg"
    files = ("--csv", table, "--plot", plot)
    status, out, err = run("sweep", teacher, "--width", "8,16", "--calibration", photographs, *QUICK, *files)
    assert status == 0 and err == "", err
    rows = list(csv.DictReader(table.open(encoding="utf-8", newline="")))
    assert [row["network"] for row in rows] == ["bicubic", "width 8", "width 16", "teacher"]
    for row in rows:
        assert f"{float(row['psnr_y_db']):.3f} dB" in out
    assert [row["arithmetic"] for row in rows] == ["", *["float32, by torch on the CPU"] * 3]
    assert "computed in  float32, by torch on the CPU" in out
    assert int(rows[1]["parameters"]) < int(rows[2]["parameters"])
    assert rows[1]["widths"].startswith("3 8 ")
    words = [node.text for node in ElementTree.parse(plot).iter("{http://www.w3.org/2000/svg}text")]
    assert {"width 8", "width 16", "teacher", "bicubic"} <= set(words)


def test_a_sweep_is_scored_on_given_images(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("HR", "LR"):
        (data / name).mkdir(parents=True)
    for i, image in enumerate(sample_photographs()[:2]):
        write_image(data / "HR" / f"{i}.png", image[:80, :60])
        write_image(data / "LR" / f"{i}x2.png", resize(image[:80, :60], 0.5))
    options = ("--theta", "0.2", "--calibration", photographs, *QUICK, "--json")
    scores = []
    for folder in (data, data / "HR"):
        status, out, err = run("sweep", teacher, *options, "--data", folder)
        assert status == 0, err
        scores.append(json.loads(out)["students"][0]["psnr"])
    assert scores[0] == scores[1]  # LR is what HR alone is made into
    write_image(data / "LR" / "1x2.png", resize(sample_photographs()[1][:90, :60], 1 / 3))
    status, _, err = run("sweep", teacher, *options, "--data", data)
    assert status == 0 and "1.png" in err and "60x80" in err and "20x30" in err
    (data / "LR" / "1x2.png").unlink()
    status, out, err = run("sweep", teacher, *options, "--data", data)
    assert status == 0 and "1.png" in err and json.loads(out)["students"][0]["psnr"] != scores[0]  # of the other image


def test_a_luma_network_is_scored_by_the_factor_of_lr(run: Run, grey_teacher: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("HR", "LR"):
        (data / name).mkdir(parents=True)
    image = sample_photographs()[0][:120, :120]
    write_image(data / "HR" / "a.png", image)
    write_image(data / "LR" / "a.png", resize(image, 1 / 3))
    status, out, err = run("sweep", grey_teacher, "--width", "8", *QUICK, "--data", data, "--json")
    assert status == 0, err
    from memsr_compiler.images.metrics import psnr

    low = resize(image, 1 / 3)
    assert json.loads(out)["bicubic"]["psnr"] == pytest.approx(
        psnr(resize(low, 3, rounding=False) / 255, image, scale=3)
    )
    assert json.loads(out)["protocol"] == "edsr"


def test_sweeps_that_are_none(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    for options, words in (
        ((), ("nothing says how narrow", "--theta, --width")),
        (("--theta", "0.1", "--width", "8"), ("exactly one",)),
        (("--theta", "0.1,2"), ("--theta 0.1,2", "between 0 and 1")),
        (("--theta", "0.1,"), ("--theta",)),
        (("--width", "8,0"), ("width",)),
        (("--width", "8,x"), ("--width",)),
        (("--width", "8", "--plot", tmp_path / "curve.png"), ("curve.png", ".svg")),
        (("--width", "8", "--csv", tmp_path / "nowhere" / "a.csv"), ("does not exist",)),
        (("--width", "8", "--csv", teacher), ("is the network that is read",)),
        (("--width", "8", "--data", tmp_path / "absent"), ("absent", "is no folder")),
    ):
        must_refuse(run, tmp_path, ("sweep", teacher, "--calibration", photographs, *QUICK, *options), *words)


def test_several_processes_share_a_sweep_out(run: Run, teacher: Path, photographs: Path, tmp_path: Path) -> None:
    """Which have a thread each, as this one has for it."""
    command = ["sweep", str(teacher), "--width", "4,8", "--calibration", str(photographs), *QUICK, "--json", "--csv"]
    with one_thread():
        status, alone, err = run(*command, tmp_path / "alone.csv")
    assert status == 0, err
    said = [json.loads(out) for out in (alone, run_two(["-m", "memsr_compiler", *command, tmp_path / "two.csv"]))]
    assert said[0]["students"] == said[1]["students"] and said[0]["teacher"] == said[1]["teacher"]
    assert (tmp_path / "alone.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert not list(tmp_path.glob(".memsrc-sweep*"))


def test_a_shared_sweep_goes_on_with_what_is_done(
    run: Run, teacher: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl", reason="Windows has no such locks")
    monkeypatch.setattr("memsr_compiler.sharing._COMING", 0)
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    derived: list[int] = []

    def derive_or_stop(source: Any, options: Any, budget: dict[str, Any], *rest: Any) -> Any:
        derived.append(budget["width"])
        if derived == [4, 8]:
            raise KeyboardInterrupt
        return derive(source, options, budget, *rest)

    monkeypatch.setattr(sweeper, "derive", derive_or_stop)
    folder = Path(copytree(photographs, tmp_path / "photographs"))
    (folder / "gone.png").symlink_to("nowhere")  # which is passed over, as alone
    table = tmp_path / "curve.csv"
    command = ("sweep", teacher, "--width", "4,8", "--calibration", folder, *QUICK, "--csv", table)
    assert run(*command)[0] == 130 and not table.exists() and len(list(tmp_path.glob(".memsrc-sweep*"))) == 1
    status, out, err = run(*command)
    assert status == 0, err
    assert derived == [4, 8, 8] and "width 4" in out and not list(tmp_path.glob(".memsrc-sweep*"))
    status, _, err = run(*command[:-2])
    assert status == 2 and "give --csv or --plot" in err
    monkeypatch.setenv("RANK", "1")
    assert run(*command, "--overwrite")[:2] == (0, "")  # it talks no more than it writes
    assert derived == [4, 8, 8, 4, 8]  # what is done and told is not gone on with


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"psnr": 30.25', '"psnr": 90.25'),
        lambda text: text.replace('"psnr": 30.25, ', ""),
        lambda text: "[" * 100_000,
        lambda text: text[:-4],
    ],
)
def test_a_student_whose_entry_was_changed_is_derived_again(
    damage: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that was changed is a number too; and an entry may lack what belongs into it."""
    pytest.importorskip("fcntl", reason="Windows has no such locks")
    monkeypatch.setattr("memsr_compiler.sharing._COMING", 0)
    entry = Entry("width 4", 30.25, cost_of_layers([((12, 3, 3, 3), 2)]), [3, 12])
    done: list[str] = []
    launches = count()

    def stop() -> Entry:
        raise KeyboardInterrupt

    def derive_it() -> Entry:
        done.append("width 4")
        return entry

    def share(first: Callable[[], Entry], second: Callable[[], Entry]) -> dict[str, Entry]:
        place = Place.make(tmp_path / "hidden", "key")
        return sweep._share({"first": first, "second": second}, place, Launch(str(next(launches)), 0, 1, 1, 0))

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            share(derive_it, stop)
    assert done == ["width 4"]
    (kept,) = (tmp_path / "hidden").glob("*.json")
    changed = damage(kept.read_text())
    assert changed != kept.read_text()
    kept.write_text(changed)
    assert share(derive_it, derive_it) == {"first": entry, "second": entry} and done == ["width 4"] * 3


def test_names_that_are_not_utf_8_in_tables(tmp_path: Path) -> None:
    """All had been measured when the table could not be written."""
    write_table(tmp_path / "t.csv", [Row("n\udcff.onnx", psnr_y_db=30.0)])
    assert b"\nn\\udcff.onnx," in (tmp_path / "t.csv").read_bytes()
