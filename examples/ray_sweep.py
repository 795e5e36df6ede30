"""Derive students of a teacher by several workers of Ray, on this machine or a cluster; how good is each, at what cost?

    python examples/ray_sweep.py [TEACHER [RESULTS [WORKERS]]]

TEACHER  a trained network, by default the EDSR in this folder;   RESULTS  a folder, demo-output/sweep
WORKERS  2 if not given, each with one core

`pip install 'memsr_compiler[cpu,ray]'`.  It writes curve.csv and curve.svg, byte for byte as `memsrc sweep` does, and
keeps what each worker has done in RESULTS/done: a student is derived once, whoever dies, and a second run with more
budgets derives only those.  Where RAY_ADDRESS names a cluster, the workers are there, and the teacher and RESULTS have
to be on a file system that all of its machines share.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.data

from memsr_compiler.distributed import DeriveStudents, write_curve

BUDGETS = ("width 8", "width 16", "width 24", "width 32")  # options of memsrc shrink: "theta 0.05", "max-macs 30G"
OPTIONS = {"samples": 12, "refit": 0}  # for some minutes' work; without them students are better


def main(
    teacher: Path,
    results: Path,
    workers: int = 2,
    worker: type = DeriveStudents,
    budgets: Sequence[str] = BUDGETS,
    options: Mapping[str, Any] = OPTIONS,
) -> list[dict[str, Any]]:
    """Write the curve of a teacher's students; give its rows."""
    if "RAY_ADDRESS" not in os.environ:
        ray.init(num_cpus=workers, include_dashboard=False)
    rows = [{"budget": budget} for budget in ("bicubic", *budgets, "teacher")]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        worker,
        fn_constructor_kwargs={"folder": str(results.resolve() / "done"), "teacher": str(teacher.resolve()), **options},
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    by_budget = {row["budget"]: row for row in done.take_all()}
    curve = [by_budget[row["budget"]] for row in rows]
    write_curve(curve, csv=results / "curve.csv", plot=results / "curve.svg")
    return curve


if __name__ == "__main__":
    teacher = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("edsr_8x32_x2.pt")
    results = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("demo-output") / "sweep"
    for row in main(teacher, results, int(sys.argv[3]) if len(sys.argv) > 3 else 2):
        print(f"{row['network']:12} {row['multiply_adds'] / 1e9:8.1f} G multiply-adds {row['psnr_y_db']:8.3f} dB")
