"""PSNR of students before any training, width by width, both ways of deriving them.

    python benchmarks/students.py MODELS BENCHMARKS [NAME[=WIDTH,WIDTH...] ...]

MODELS      a folder with IMDN_noCCA_x4.pth and vdsr.safetensors
BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, Set14/x2/..., and x3, x4
NAME        edsr, vdsr, imdn, with the widths to try; default: all, which takes about two hours of one core

All in the paper's form, the image carried inside (benchmarks/image_skip.py compares with the default, outside).
Calibration: the photographs that come with scikit-image.  Costs are for a 960x540 input.  After each student its PSNR-Y
on Set5 and Set14 (VDSR, which is one network for three scales: at x3 and x4 too), and in brackets how far below its
teacher that is.  No row "layer by layer" where the default is that: large students are not refitted.
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
from memsr_compiler.student.report import ShrinkReport
from memsr_compiler.student.shrink import shrink

WAYS = {"paper's": {"init": "memsr"}, "ours": {}, "layer by layer": {"refit": 0}}


@dataclass(frozen=True)
class Case:
    """A teacher, what it is scored on and how, and the widths to try."""

    teacher: nn.Module
    tests: tuple[tuple[str, int], ...]
    score: Callable[[object, Path, int], float]
    widths: tuple[int, ...]

    def scores(self, network: object, benchmarks: Path) -> list[float]:
        return [self.score(network, benchmarks / test / f"x{scale}", scale) for test, scale in self.tests]


def cases(models: Path) -> dict[str, Case]:
    imdn = (("Set5", 4), ("Set14", 4))
    vdsr = (("Set5", 2), ("Set14", 2), ("Set5", 3), ("Set5", 4))
    return {
        "edsr": Case(load_teacher(SHIPPED), (("Set5", 2), ("Set14", 2)), rgb_psnr, (16, 24, 32, 48, 136)),
        "vdsr": Case(load_teacher(models / "vdsr.safetensors"), vdsr, luma_psnr, (48, 64, 72)),
        "imdn": Case(load_teacher(models / "IMDN_noCCA_x4.pth"), imdn, rgb_psnr, (32, 48, 64, 96)),
    }


def run(name: str, case: Case, widths: tuple[int, ...], benchmarks: Path) -> None:
    teacher = case.scores(case.teacher, benchmarks)
    print(f"{name}: {', '.join(f'{test} x{scale}' for test, scale in case.tests)}; the teacher", end=" ")
    print(", ".join(f"{value:.3f}" for value in teacher), flush=True)
    for width in widths:
        refitted = True
        for way, options in WAYS.items():
            if options == {"refit": 0} and not refitted:
                continue  # the default was this
            start = time.process_time()
            net = shrink(case.teacher, width=width, image_skip="none", **options)  # type: ignore[arg-type]
            seconds = time.process_time() - start
            assert isinstance(net.report, ShrinkReport)
            refitted = len(net.report.fidelity) > 1
            macs = net.report.cost.macs_per_pixel * 960 * 540 / 1e9
            cost = f"{net.report.cost.parameters / 1e3:6.0f} K  {macs:6.1f} G"
            pairs = zip(case.scores(net, benchmarks), teacher, strict=True)
            scores = "  ".join(f"{value:.3f} ({whole - value:.2f})" for value, whole in pairs)
            print(f"{width:4}  {cost}  {way:15}{scores}  {seconds:5.0f} CPU s", flush=True)


def main(models: Path, benchmarks: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    print(machine())
    known = cases(models)
    for choice in names or list(known):
        name, _, widths = choice.partition("=")
        case = known[name]
        run(name, case, tuple(int(w) for w in widths.split(",")) if widths else case.widths, benchmarks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
