"""What each choice of `distill` buys at equal steps: optimizer, rate, labels, zoom, features.

    python benchmarks/training_choices.py STUDENT TEACHER PHOTOGRAPHS RUNS STEPS [NAME ...]

STUDENT      a plain student of TEACHER, as `memsrc shrink --layers 6 --width 32` writes it
PHOTOGRAPHS  a folder, BSDS400 say;   RUNS  where runs go, and photographs made ready
STEPS        of each, 16 patches of 96x96 pixels, the same in the same order
NAME         of CHOICES; default: all

PSNR-Y of averaged weights (--ema 0.999) on the photographs that ship, after the last step; nothing is chosen.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from machine import machine

from memsr_compiler.cli import app

CHOICES = {
    "Adam 2e-4, photographs (MemSR's)": ["--optimizer", "adam", "--rate", "2e-4", "--labels", "photographs"],
    "Adam 1e-3, photographs": ["--optimizer", "adam", "--rate", "1e-3", "--labels", "photographs"],
    "Adam 1e-3, both": ["--optimizer", "adam", "--rate", "1e-3", "--labels", "both"],
    "Muon 1e-3, photographs": ["--labels", "photographs"],
    "Muon 1e-3, teacher": ["--labels", "teacher"],
    "Muon 1e-3, both": [],
    "Muon 2e-3, both": ["--rate", "2e-3"],
    "Muon 5e-4, both": ["--rate", "5e-4"],
    "Muon 2e-3, both, Eq. 12, lambda 0.3": ["--rate", "2e-3", "--lambda", "0.3"],
    "Muon 2e-3, both, Eq. 12, lambda 3": ["--rate", "2e-3", "--lambda", "3"],
    "Muon 2e-3, both, zoomed out": ["--rate", "2e-3", "--zoom", "out"],
    "Muon 2e-3, both, zoomed in": ["--rate", "2e-3", "--zoom", "in"],
    "Muon 2e-3, both, zoomed both ways": ["--rate", "2e-3", "--zoom", "both"],
    "Muon 2e-3, both, self-ensemble": ["--rate", "2e-3", "--self-ensemble"],
    "Muon 2e-3, both, bf16": ["--rate", "2e-3", "--precision", "bf16"],
    "Muon 2e-3, both, compiled": ["--rate", "2e-3", "--compile"],
    "Muon 2e-3, both, bf16, compiled": ["--rate", "2e-3", "--precision", "bf16", "--compile"],
}
COMMON = ["--optimizer", "muon", "--rate", "1e-3", "--labels", "both", "--lambda", "0", "--ema", "0.999"]


def main(student: Path, teacher: Path, photographs: Path, runs: Path, steps: int, names: Sequence[str]) -> None:
    print(machine(), flush=True)
    for name in names or CHOICES:
        out = runs / name.replace(" ", "_").replace(",", "").split("(")[0].strip("_")
        options = CHOICES[name]
        begun = time.process_time()
        arguments = ["distill", student, "--teacher", teacher, "--data", photographs, "--out", out, "--quiet"]
        sizes = ["--steps", steps, "--every", steps, "--batch", 16, "--patch", 96, "--cache", runs / "cache"]
        app([str(a) for a in (*arguments, *sizes, *COMMON, *options, "--overwrite")], standalone_mode=False)
        psnr = [json.loads(line)["psnr"] for line in (out / "log.jsonl").read_text().splitlines()]
        print(f"{name:34} {psnr[0]:.3f} -> {psnr[-1]:.3f} dB  {time.process_time() - begun:5.0f} CPU s", flush=True)


if __name__ == "__main__":
    student, teacher, photographs, runs = map(Path, sys.argv[1:5])
    main(student, teacher, photographs, runs, int(sys.argv[5]), sys.argv[6:])
