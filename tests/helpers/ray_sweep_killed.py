"""Runs examples/ray_sweep.py with two workers of which one is killed: python ray_sweep_killed.py PLACE.

PLACE holds teacher.pt and photographs, and gets 1-curve.csv and 1-curve.svg.  Whoever comes to the second student first
is killed (SIGKILL) when that is derived and not scored yet.  Then there is a second run, with one more student.  Prints
of both which rows there are, and by which process each student was begun.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import ray
from helpers.examples import load_example

from memsr_compiler.commands import sweeper
from memsr_compiler.commands.student_common import derive
from memsr_compiler.distributed import DeriveStudents

OPTIONS = {"samples": 4, "refit": 0}
BUDGETS = ("width 4", "width 8", "width 12", "theta 0.2")


class Mortal(DeriveStudents):
    """A worker that writes down what it begins, and dies once."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(folder, **options)
        place = Path(folder).parent

        def derive_and_die(teacher: Any, options: Any, budget: dict[str, Any], *rest: Any) -> Any:
            with open(place / "log", "ab", buffering=0) as log:
                log.write(f"{os.getpid()},{' '.join(map(str, *budget.items()))}\n".encode())
            net = derive(teacher, options, budget, *rest)
            if budget == {"width": 8} and not (place / "killed").exists():
                (place / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return net

        vars(sweeper)["derive"] = derive_and_die


def main(place: Path) -> None:
    example, said = load_example("ray_sweep"), []
    for budgets in (BUDGETS[:-1], BUDGETS):
        (place / "log").touch()
        options = {**OPTIONS, "calibration": str(place / "photographs")}
        rows = example.main(place / "teacher.pt", place, 2, Mortal, budgets, options)
        begun = [line.split(",") for line in (place / "log").read_text().splitlines()]
        said.append({"rows": [row["network"] for row in rows], "begun": begun})
        (place / "log").unlink()
        for name in ("curve.csv", "curve.svg"):
            (place / name).rename(place / f"{len(said)}-{name}")
        ray.shutdown()
    sys.stdout.write(f"{json.dumps({'runs': said, 'killed': (place / 'killed').exists()})}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
