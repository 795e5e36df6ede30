"""The paper's networks from teachers trained by us: Plain-S, Plain-M and Plain-X, before any training.

    python benchmarks/paper_networks.py TEACHERS BENCHMARKS [SCALE ...]

TEACHERS    a folder with teacher-s-x2.pt, teacher-m-x2.pt and the same at x4, as `memsrc train --arch teacher-s` writes
BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, Set14/x2/..., and x4
SCALE       2, 4; default: both, about half an hour of one core each

Plain-S is Teacher-S's student of 64 channels in every layer, Plain-M Teacher-M's, Plain-X(theta) Teacher-M's of the
widths that Eq. 15 gives.  Each is derived in the paper's way and in ours, from the photographs that ship.  PSNR-Y.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from machine import machine
from pretrained import rgb_psnr

from memsr_compiler import load_teacher
from memsr_compiler.student.shrink import shrink

STUDENTS: dict[str, tuple[str, dict[str, float]]] = {
    "Plain-S": ("teacher-s", {"width": 64}),
    "Plain-M": ("teacher-m", {"width": 64}),
    "Plain-X(0.05)": ("teacher-m", {"theta": 0.05}),
    "Plain-X(0.14)": ("teacher-m", {"theta": 0.14}),
}
WAYS = {"paper's": {"init": "memsr"}, "ours": {}}
TESTS = ("Set5", "Set14")


def main(teachers: Path, benchmarks: Path, scales: list[int]) -> None:
    torch.set_num_threads(1)
    print(machine())
    for scale in scales:
        loaded = {name: load_teacher(teachers / f"{name}-x{scale}.pt") for name in ("teacher-s", "teacher-m")}
        for name, network in loaded.items():
            print(f"x{scale}  {name:14} {'':16} {_scores(network, benchmarks, scale)}", flush=True)
        for name, (teacher, size) in STUDENTS.items():
            for way, options in WAYS.items():
                net = shrink(loaded[teacher], **size, **options)  # type: ignore[arg-type]
                assert net.report is not None and net.report.cost is not None
                count = f"{net.report.cost.parameters / 1e3:6,.0f} K {min(net.widths[1:-1])}-{max(net.widths[1:-1])}"
                scores = _scores(net, benchmarks, scale)
                print(f"x{scale}  {name:14} {count:16} {scores}  {way}", flush=True)


def _scores(network: object, benchmarks: Path, scale: int) -> str:
    return " / ".join(f"{rgb_psnr(network, benchmarks / test / f'x{scale}', scale):.3f}" for test in TESTS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(scale) for scale in sys.argv[3:]] or [2, 4])
