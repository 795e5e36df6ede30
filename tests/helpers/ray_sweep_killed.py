"""Runs examples/ray_sweep.py with two workers of which one is killed: python ray_sweep_killed.py PLACE.

PLACE holds teacher.pt and photographs, and gets curve.csv and curve.svg.  Whoever comes to the second student first is
killed (SIGKILL) when that is derived and not scored yet.  Prints which rows there are, and by which process each width
was begun.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from helpers.examples import load_example

from memsr_compiler.commands.students import sweeper
from memsr_compiler.commands.students.common import derive
from memsr_compiler.distributed import DeriveStudents

BUDGETS = ("width 4", "width 8", "width 12")
OPTIONS = {"samples": 4, "refit": 0}


class Mortal(DeriveStudents):
    """A worker that writes down what it begins, and dies once."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(folder, **options)
        place = Path(folder).parent

        def derive_and_die(teacher: Any, options: Any, budget: dict[str, int], *rest: Any) -> Any:
            with open(place / "log", "ab", buffering=0) as log:
                log.write(f"{os.getpid()} {budget['width']}\n".encode())
            net = derive(teacher, options, budget, *rest)
            if budget["width"] == 8 and not (place / "killed").exists():
                (place / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return net

        vars(sweeper)["derive"] = derive_and_die


def main(place: Path) -> None:
    options = {**OPTIONS, "calibration": str(place / "photographs")}
    rows = load_example("ray_sweep").main(place / "teacher.pt", place, 2, Mortal, BUDGETS, options)
    begun = [[*map(int, line.split())] for line in (place / "log").read_text().splitlines()]
    said = {"rows": [row["network"] for row in rows], "begun": begun, "killed": (place / "killed").exists()}
    sys.stdout.write(f"{json.dumps(said)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
