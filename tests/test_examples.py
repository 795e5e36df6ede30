"""The scripts in examples/ do what they say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import memsr_compiler
from memsr_compiler.images import sample_photographs

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    done = 0
    try:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    except SystemExit as stop:
        done = stop.code if isinstance(stop.code, int) else 0
    assert done == 0


def test_demo_keeps_the_teachers_psnr_and_a_student_comes_close(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full, quick = memsr_compiler.shrink, {"samples": 3, "refit": 0}  # the demo takes its time, a test need not
    monkeypatch.setattr(memsr_compiler, "shrink", lambda model, **options: full(model, **{**options, **quick}))
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
        assert len(list((tmp_path / "out").glob(f"*_{name}.png"))) == len(sample_photographs())
