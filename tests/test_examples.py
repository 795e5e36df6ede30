"""The scripts in examples/ do what they say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from memsr_compiler import compile_to_plain, load_teacher
from memsr_compiler.images import sample_photographs, write_image

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    done = 0
    try:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    except SystemExit as stop:
        done = stop.code if isinstance(stop.code, int) else 0
    assert done == 0


def test_demo_keeps_the_teachers_psnr(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "demo.py", tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    scores = {
        name: line.split()[-2] for line in lines for name in ("teacher", "plain") if line.strip().startswith(name)
    }
    assert scores["teacher"] == scores["plain"], lines
    assert (tmp_path / "out" / "plain.cert.json").exists()
    assert len(list((tmp_path / "out").glob("*_plain.png"))) == len(sample_photographs())


def test_anyone_can_train_a_teacher_and_convert_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for i, image in enumerate(sample_photographs()[:2]):
        write_image(photographs / f"{i}.png", image[:96, :96])
    size = ("--blocks", 1, "--channels", 4, "--steps", 3, "--batch", 2, "--patch", 16, "--threads", 1)
    run(monkeypatch, "train_teacher.py", photographs, "--output", tmp_path / "teacher.pt", *size)
    assert compile_to_plain(load_teacher(tmp_path / "teacher.pt")).scale == 2
