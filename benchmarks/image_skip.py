"""Students with the image outside, and with the image carried inside, on photographs that they are not derived from.

    python benchmarks/image_skip.py MODELS PHOTOGRAPHS

MODELS        a folder with edsr_5x64_x2.safetensors (MLPerf Mobile's EDSR)
PHOTOGRAPHS   a folder of photographs, of which every 20th is taken; no test set, since a default is chosen by this

Calibration: the photographs that come with scikit-image.  PSNR on Y, protocol edsr.  About 15 minutes of one core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from machine import machine
from pretrained import SHIPPED

from memsr_compiler import evaluate, read_teacher
from memsr_compiler.evaluation.scores import mean
from memsr_compiler.student.shrink import shrink

EVERY = 20
SHAPES: tuple[dict[str, Any], ...] = (
    {"width": 16},
    {"width": 32},
    {"width": 32, "layers": 6},
    {"width": 16, "layers": 5},
)


def run(path: Path, photographs: Sequence[Path]) -> None:
    teacher = read_teacher(path)
    print(f"{path.name}: {mean(evaluate(teacher, list(photographs))).psnr:.3f} dB", flush=True)
    for shape in SHAPES:
        for refit in (0, None):
            cells = []
            for image_skip in ("none", "nearest"):
                start = time.process_time()
                net = shrink(teacher, image_skip=image_skip, refit=refit, **shape)
                seconds = time.process_time() - start
                cells.append(f"{image_skip} {mean(evaluate(net, list(photographs))).psnr:.3f} dB {seconds:4.0f} CPU s")
            how = " ".join(f"{name} {value}" for name, value in shape.items())
            print(f"  {how:20} {'not refitted' if refit == 0 else 'refitted':13} {'   '.join(cells)}", flush=True)


def main(models: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    photographs = sorted(folder.iterdir())[::EVERY]
    print(f"{machine()}; {len(photographs)} photographs of {folder.name}")
    for path in (models / "edsr_5x64_x2.safetensors", SHIPPED):
        run(Path(path), photographs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
