"""The worth of each part of the method when a student is trained: MemSR's Table 1, and ours beside it.

    python benchmarks/distillation.py DATA BENCHMARKS RUNS [STEPS [WIDTH]]

DATA         a folder of photographs to train on, BSDS500's 400 of train and test, say
BENCHMARKS   a folder with Set5/x2/HR, Set5/x2/LR, Set14/..., B100/...
RUNS         where the runs are kept: a row whose run is there is not trained again, one that was stopped goes on
STEPS, WIDTH of the student, 1000 and 32 if not given

The shipped teacher, x2.  All rows: the same seed, the same patches in the same order, batches of 8 patches of 96x96
pixels, one thread.  The paper's rows as published (`--as-published`), ours by the defaults of `distill`; "balanced" is
the paper's training with channels balanced and inputs centred, `trained as ours` the other way about.
PSNR on Y in dB: before, after the last step, and how far the lowest validation on the way (photographs that ship
with scikit-image, 20 validations) was below the start.  The curves, MemSR's Figure 6, are written to RUNS/curves.csv
and RUNS/curves.svg.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from curves import Curve, draw_curves
from machine import machine
from pretrained import SHIPPED, rgb_psnr

from memsr_compiler import load_plain, load_teacher
from memsr_compiler.training import checkpoints

SETS = ("Set5", "Set14", "B100")
PUBLISHED = ("--as-published",)
BALANCED = ("--optimizer", "adam", "--rate", "2e-4", "--labels", "photographs", "--ema", "0")
NO_DISTILLATION = ("--lambda", "0")


@dataclass(frozen=True)
class Row:
    """A way to derive a student (options of shrink) and to train it (options of distill)."""

    name: str
    shrink: tuple[str, ...]
    distill: tuple[str, ...]


PAPER = ("--init", "memsr")
OURS = ("--image-skip", "none")  # the paper's form, of the teacher's depth
ROWS = (
    Row("He", PAPER, ("--init", "he", *PUBLISHED, *NO_DISTILLATION)),
    Row("Xavier", PAPER, ("--init", "xavier", *PUBLISHED, *NO_DISTILLATION)),
    Row("paper's, no mean shift", (*PAPER, "--beta", "0"), (*PUBLISHED, *NO_DISTILLATION)),
    Row("paper's", PAPER, (*PUBLISHED, *NO_DISTILLATION)),
    Row("paper's, distilled, M random", PAPER, (*PUBLISHED, "--maps", "random")),
    Row("paper's, distilled", PAPER, PUBLISHED),
    Row("paper's, balanced", PAPER, BALANCED),
    Row("paper's, trained as ours", PAPER, ()),
    Row("ours, trained as published", OURS, (*PUBLISHED, *NO_DISTILLATION)),
    Row("ours, balanced", OURS, BALANCED),
    Row("ours", OURS, ()),
    Row("ours, distilled", OURS, ("--lambda", "0.3")),
)


def memsrc(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "memsr_compiler", *map(str, arguments), "--quiet"], check=True)


def train(row: Row, data: Path, runs: Path, steps: int, width: int) -> Path:
    """Train the student of a row, as far as it is not done; its run."""
    derived = runs / f"{'_'.join(part.strip('-') for part in row.shrink) or 'ours'}-{width}.safetensors"
    if not derived.exists():
        memsrc("shrink", SHIPPED, "--width", width, *row.shrink, "--out", derived)
    run = runs / f"{row.name.replace(' ', '_').replace(',', '')}-{width}-{steps}"
    if (run / "student.safetensors").exists():
        return run
    if run.is_dir() and checkpoints.steps(run):
        memsrc("distill", "--resume", run)
        return run
    how = ("--steps", steps, "--batch", 8, "--patch", 96, "--every", max(steps // 20, 1), *row.distill)
    memsrc("distill", derived, "--teacher", SHIPPED, "--data", data, "--out", run, *how)
    return run


def load_last(run: Path, derived: Path) -> torch.nn.Module:
    """The student after the last step, not the best one of a validation: nothing is chosen by any image."""
    net = load_plain(derived, require_certificate=False).float()
    low, high = net.info.input_range
    state = checkpoints.load(checkpoints.newest(run))
    objective = {**state["objective"], **(state["average"] or {})}
    with torch.no_grad():
        for i, layer in enumerate(net):
            weight = objective[f"network.layers.{i}.weight"]
            layer.weight.copy_(weight)
            assert layer.bias is not None
            layer.bias.copy_(objective[f"biases.{i}"] * (high - low) - weight.sum(dim=(2, 3)) @ objective[f"mean_{i}"])
    return net


def main(data: Path, benchmarks: Path, runs: Path, steps: int = 1000, width: int = 32) -> None:
    torch.set_num_threads(1)
    runs.mkdir(parents=True, exist_ok=True)
    print(machine())

    def scores(network: torch.nn.Module) -> str:
        return "  ".join(f"{rgb_psnr(network, benchmarks / name / 'x2', 2):7.3f}" for name in SETS)

    print(f"{steps} steps of 8 patches of 96x96, width {width}")
    print(f"{', '.join(SETS)}: before | after | the lowest validation, by the start")
    print(f"{'teacher':30} {scores(load_teacher(SHIPPED))}")
    curves: list[Curve] = []
    for row in ROWS:
        run = train(row, data, runs, steps, width)
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        curves.append(Curve(row.name, tuple((entry["step"], entry["psnr"]) for entry in log)))
        done = run / "student.safetensors"
        fresh = "he" in row.distill or "xavier" in row.distill
        derived = runs / f"{'_'.join(part.strip('-') for part in row.shrink) or 'ours'}-{width}.safetensors"
        before = "   new weights         " if fresh else scores(load_plain(derived, require_certificate=False))
        start, lowest = log[0]["psnr"], min(entry["psnr"] for entry in log)
        dip = "" if fresh else f"{lowest - start:+.3f}"
        print(f"{row.name:30} {before} | {scores(load_last(run, done))} | {dip}", flush=True)
    with open(runs / "curves.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "step", "psnr_y_db"])
        writer.writerows((curve.name, step, psnr) for curve in curves for step, psnr in curve.points)
    title = f"students of width {width} in training: PSNR on the photographs that ship"
    (runs / "curves.svg").write_text(draw_curves(curves, title), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))
