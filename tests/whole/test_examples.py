"""The scripts in examples/ do what they say."""

from __future__ import annotations

import hashlib
import runpy
import sys
from pathlib import Path

import pytest

import memsr_compiler
from memsr_compiler import Takes, load_plain
from memsr_compiler.evaluation.image_sets import TestImage
from memsr_compiler.evaluation.scores import evaluate, mean
from memsr_compiler.images.files import sample_photographs

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    done = 0
    try:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    except SystemExit as stop:
        done = stop.code if isinstance(stop.code, int) else 0
    assert done == 0


@pytest.mark.parametrize(("name", "least"), [("student_32_x2", 34.5), ("student_16_x2", 34.1)])
def test_the_students_that_ship_are_those_of_the_model_card(name: str, least: float) -> None:
    path = EXAMPLES / f"{name}.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"{digest}  {path.name}" in (EXAMPLES / "MODELS.md").read_text("utf-8")
    net = load_plain(path, require_certificate=False)
    images = [TestImage.of(str(i), image, 2) for i, image in enumerate(sample_photographs())]
    assert mean(evaluate(net, Takes(2), images, scale=2)).psnr > least  # bicubic has 31.99, the teacher 34.39


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
