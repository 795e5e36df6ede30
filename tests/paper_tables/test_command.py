"""python -m benchmarks.paper: all of it in --smoke, and what is wrong in one line."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from helpers.paper import smoke_settings
from paper import runs, table1, table2, table3, table5, table10
from paper.command import main, names
from paper.runs import run_method

ROOT = Path(__file__).parents[2]
TRAINED = {"table1": table1, "table2": table2, "table3": table3, "table5": table5, "table10": table10}


def test_the_names_are_the_modules() -> None:
    assert names()[:3] == ["table1", "table2", "table3"]
    assert names().index("table10") > names().index("table5")
    assert names().index("figure6") > names().index("table10")
    assert all(importlib.import_module(f"paper.{name}").make for name in names())


def test_all_of_it_works_and_a_second_call_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*TRAINED, "figure6", "--smoke", "--runs", str(tmp_path)]
    assert main(command) == 0, capsys.readouterr().err
    first = capsys.readouterr().out
    pages = tmp_path / "pages"
    for name, module in TRAINED.items():
        with open(pages / f"{name}-small.csv", encoding="utf-8", newline="") as file:
            rows = list(dict.fromkeys(row["row"] for row in csv.DictReader(file)))
        assert rows == ["the teacher", *(line.method.name for line in module.ROWS)]
        page = (pages / f"{name}-small.md").read_text("utf-8")
        assert page.startswith("# Table ")
        assert "2 steps of 2 patches of 16x16 pixels of the photographs that ship" in page
        assert "seeds: 1" in page
        assert page in first
    drawing = ET.parse(pages / "figure6-small.svg").getroot()
    assert len(drawing.findall(".//{*}polyline")) == len(table1.ROWS)
    monkeypatch.setattr(runs, "memsrc", None)
    assert main(command) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table8"], "table8: is no table or figure here; there are table1, table2, "),
        (["table1", "--data", "nowhere"], "--data nowhere: is no folder"),
        (["table1", "--tests", "nowhere"], "--tests nowhere: is no folder"),
        (["table1", "--models", "nowhere"], "--models nowhere: is no folder"),
        (["table1", "--pair", "teacher-m"], "its teacher does not ship; give --models, with teacher_m_x2.safetensors"),
        (["table1", "--models", "."], "has no edsr_5x32_x2.safetensors"),
        (["table1", "--tests", "."], "has none of Set5, Set14, B100, Urban100 with x2 in it"),
        (["table1", "--steps", "-1"], "want 1 or more"),
        (["table1", "--steps", "0"], "want 1 or more"),
        (["table1", "--seeds", "0"], "want 1 or more"),
        (["table1", "--smoke", "--data", "."], "no photograph"),
        (["table1", "--steps", "many"], "invalid int value"),
        (["table1", "--pair", "large"], "invalid choice"),
        ([], "NAME"),
        (["figure6", "--done"], "no run of Table 1 is done"),
        (["table4", "--row", "VDSR"], "--row VDSR: is no network here; there are SRCNN on Y; "),
        (["table11", "--row", "Plain-XL"], "--row Plain-XL: is no network here"),
        (["table11", "--size", "1920x1081"], "1920x1081: want multiples of 12"),
        (["table11", "--size", "large"], "--size: invalid"),
        (["figure7", "--pair", "teacher-m"], "its teacher does not ship; give --models, with teacher_m_x2.safetensors"),
        (["figure5", "--done"], "none of its three runs of Table 1 is done"),
        (["figure4", "--tests", "nowhere"], "--tests nowhere: is no folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--out", str(tmp_path / "pages")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("paper: ")
    assert err.count("\n") == 1
    assert words in err
    assert not list(tmp_path.rglob("*.md"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table1", "--device", "cuda"]) == 2
    assert "--device cuda: torch finds no such device here" in capsys.readouterr().err


def test_other_settings_in_the_same_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_method(table10.ROWS[0].method, 233, smoke_settings(tmp_path))
    capsys.readouterr()
    assert main(["table10", "--smoke", "--runs", str(tmp_path / "runs"), "--steps", "3"]) == 2
    assert "steps 2, not 3; give what it began with" in capsys.readouterr().err


def test_it_runs_from_the_root_of_the_repository() -> None:
    command = [sys.executable, "-m", "benchmarks.paper", "table8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("paper: table8: is no table or figure here")
    assert done.stderr.count("\n") == 1
