"""PSNR of students before any training, width by width, both ways of deriving them.

    python benchmarks/students.py MODELS BENCHMARKS [NAME ...]

MODELS      a folder with IMDN_noCCA_x4.pth and vdsr.safetensors
BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, Set14/...
NAME        edsr, vdsr, imdn; default: all, which takes about an hour of one core

Calibration: the photographs that come with scikit-image.  Costs are for a 960x540 input.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import machine
from pretrained import SHIPPED, luma_psnr, rgb_psnr
from torch import nn

from memsr_compiler import load_teacher
from memsr_compiler.student import shrink


@dataclass(frozen=True)
class Case:
    """A teacher, how it is scored, and the widths to try."""

    teacher: nn.Module
    scale: int
    score: Callable[[object, Path, int], float]
    widths: tuple[int, ...]


def cases(models: Path) -> dict[str, Case]:
    return {
        "edsr": Case(load_teacher(SHIPPED), 2, rgb_psnr, (16, 24, 32, 136)),
        "vdsr": Case(load_teacher(models / "vdsr.safetensors"), 2, luma_psnr, (48, 64)),
        "imdn": Case(load_teacher(models / "IMDN_noCCA_x4.pth"), 4, rgb_psnr, (64,)),
    }


def main(models: Path, benchmarks: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    print(machine())
    for name, case in cases(models).items():
        if names and name not in names:
            continue
        folders = [benchmarks / test / f"x{case.scale}" for test in ("Set5", "Set14")]
        teacher = [case.score(case.teacher, folder, case.scale) for folder in folders]
        print(f"{name} x{case.scale}: PSNR-Y on Set5, Set14, dB; the teacher {teacher[0]:.3f}, {teacher[1]:.3f}")
        print("width  parameters  multiply-adds  paper's           data-aware        refitted           CPU seconds")
        for width in case.widths:
            row, seconds, net = [], 0.0, None
            for options in ({"init": "memsr"}, {"refit": 0}, {}):
                start = time.process_time()
                net = shrink(case.teacher, width=width, **options)  # type: ignore[arg-type]
                seconds = time.process_time() - start
                row.append("  ".join(f"{case.score(net, folder, case.scale):7.3f}" for folder in folders))
            assert net is not None and net.report is not None and net.report.cost is not None
            macs = net.report.cost.macs_per_pixel * 960 * 540 / 1e9
            parameters = net.report.cost.parameters / 1e3
            print(f"{width:5}  {parameters:8.0f} K  {macs:11.1f} G  {'  '.join(row)}  {seconds:8.0f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
