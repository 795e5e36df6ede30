"""A derived student beside new weights of the same shape, trained on the same patches: at every moment of the run.

    python benchmarks/opponent.py TEACHER PHOTOGRAPHS RUNS STEPS [NAME ...]

TEACHER      a file, MLPerf Mobile's EDSR say, of which `shrink` derives 6 layers of 32 channels, the image outside
PHOTOGRAPHS  a folder, BSDS400 say;   RUNS  where runs go, and photographs made ready; those that are there go on
STEPS        of each, 16 patches of 96x96 pixels, the same in the same order, averaged weights
NAME         of ROWS; default: all

PSNR-Y on the photographs that ship at the start and at each twelfth of the run; nothing is chosen by any other image.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from machine import machine

from memsr_compiler.cli import app

SHAPE = ("--layers", "6", "--width", "32", "--image-skip", "nearest")
NEW = ("train", "--arch", "plain", *SHAPE, "--scale", "2")
DISTILLED = ("--lambda", "0", "--labels", "both", "--optimizer", "muon", "--rate", "2e-3")
POINTS = 12
ROWS = {
    **{
        f"new weights, Adam {rate}": (*NEW, "--optimizer", "adam", "--rate", rate)
        for rate in ("5e-4", "1e-3", "2e-3", "4e-3", "8e-3")
    },
    **{
        f"new weights, Muon {rate}": (*NEW, "--optimizer", "muon", "--rate", rate)
        for rate in ("1e-3", "2e-3", "4e-3", "8e-3")
    },
    "new weights, Muon 2e-3, both labels": ("distill", "--init", "he", *DISTILLED),
    "derived, Muon 2e-3, photographs": ("distill", *DISTILLED, "--labels", "photographs"),
    "derived, Muon 2e-3, both labels": ("distill", *DISTILLED),
}


def main(teacher: Path, photographs: Path, runs: Path, steps: int, names: Sequence[str]) -> None:
    print(machine(), flush=True)
    runs.mkdir(parents=True, exist_ok=True)
    student = runs / "derived.safetensors"
    if not student.exists():
        _call("shrink", teacher, *SHAPE, "--out", student)
    every = max(1, steps // POINTS)
    print(f"{'step':38}" + "".join(f"{step:8}" for step in range(0, steps + 1, every)))
    for name in names or ROWS:
        command, *options = ROWS[name]
        out = runs / f"{name} {steps}".replace(",", "").replace(" ", "_")
        of_student = [student, "--teacher", teacher] if command == "distill" else []
        sizes = ["--steps", steps, "--every", every, "--batch", 16, "--patch", 96, "--ema", "0.999"]
        where = ["--data", photographs, "--out", out, "--cache", runs / "cache"]
        if not (out / "log.jsonl").exists():
            _call(command, *of_student, *where, *sizes, *options)
        elif _read(out)[-1]["step"] < steps:
            _call(command, "--resume", out)
        print(f"{name:38}" + "".join(f"{line['psnr']:8.3f}" for line in _read(out)), flush=True)


def _call(command: str, *arguments: object) -> None:
    app([command, *map(str, arguments), "--quiet"], standalone_mode=False)


def _read(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]


if __name__ == "__main__":
    teacher, photographs, runs = map(Path, sys.argv[1:4])
    main(teacher, photographs, runs, int(sys.argv[4]), sys.argv[5:])
