"""PSNR on Set5 of students of teachers that have no plain form, before any training, beside those teachers.

    python benchmarks/gated_teachers.py MODELS BENCHMARKS [NAME ...]

MODELS      a folder with IMDN_x2.pth, IMDN_x3.pth, IMDN_x4.pth and RFDN_x4.pth
BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, Set5/x3/...
NAME        IMDN_x2, RFDN_x4, ...; default: all four, some 10 CPU minutes each

Students of 6 layers of 32 channels, by the default refit.  "frozen" is the teacher with numbers in place of its gates;
"to the teacher" compares outputs on the calibration images: the frozen network's, and the student's before and after
its refit.  Calibration: the photographs that come with scikit-image.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from machine import machine

from memsr_compiler import evaluate, read_teacher
from memsr_compiler.evaluation.scores import evaluate_bicubic, mean
from memsr_compiler.student.report import ShrinkReport
from memsr_compiler.student.shrink import shrink

NAMES = ("IMDN_x2", "IMDN_x3", "IMDN_x4", "RFDN_x4")


def run(path: Path, benchmarks: Path) -> None:
    teacher = read_teacher(path)
    start = time.process_time()
    student = shrink(teacher, layers=6, width=32)
    seconds = time.process_time() - start
    report: object = student.report
    assert isinstance(report, ShrinkReport) and report.frozen is not None
    set5 = benchmarks / "Set5" / f"x{student.info.scale}"
    scores = [
        mean(evaluate_bicubic(set5, scale=student.info.scale)),
        *(mean(evaluate(network, set5, takes=teacher.takes)) for network in (teacher, report.frozen.module, student)),
    ]
    cells = "  ".join(f"{score.psnr:7.3f}" for score in scores)
    fidelity = f"{report.frozen.psnr:.2f}  {report.fidelity[0]:.2f} -> {report.fidelity[-1]:.2f}"
    print(f"{path.stem:8}  {cells}   {report.cost.parameters / 1e3:3.0f} K  {fidelity}  {seconds:5.0f} s", flush=True)


def main(models: Path, benchmarks: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    print(machine())
    print("PSNR-Y on Set5, dB: bicubic, teacher, frozen, student; its parameters; dB to the teacher; CPU seconds")
    for name in names or NAMES:
        run(models / f"{name}.pth", benchmarks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
