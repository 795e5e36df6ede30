"""Widths level by level for a limit on multiply-adds or memory, beside one theta for all levels.

    python benchmarks/budgets.py BENCHMARKS

BENCHMARKS   a folder with Set5/x2/HR, Set5/x2/LR, Set14/...  The shipped teacher; students with as many multiply-adds
(as much memory) as the one that theta gave; costs for a 960x540 input.  About 25 minutes of one core.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from machine import machine
from pretrained import SHIPPED, rgb_psnr

from memsr_compiler import load_teacher
from memsr_compiler.student.shrink import shrink

SIZE = (960, 540)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    print(machine())
    teacher = load_teacher(SHIPPED)

    def row(name: str, **options: object) -> tuple[int, int]:
        net = shrink(teacher, size=SIZE, image_skip="none", **options)  # type: ignore[arg-type]
        assert net.report is not None and net.report.cost is not None
        cost = net.report.cost
        macs, memory = cost.macs_per_pixel * SIZE[0] * SIZE[1], cost.memory(SIZE[1], SIZE[0])
        psnr = "  ".join(f"{rgb_psnr(net, folder / test / 'x2', 2):.3f}" for test in ("Set5", "Set14"))
        print(f"{name:22} {macs / 1e9:6.1f} G  {memory / 2**20:6.1f} MiB  {psnr} dB  {net.widths}", flush=True)
        return macs, memory

    for theta in (0.2, 0.14):
        macs, memory = row(f"theta {theta:g}", theta=theta)
        row("  as many multiply-adds", max_macs=macs)
        row("  as much memory", max_memory=memory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
