"""CPU seconds that deriving a student takes, beside an earlier version of this repository, and what the student gives.

    git worktree add /tmp/earlier ced815d
    python benchmarks/shrink_time.py /tmp/earlier MODELS BENCHMARKS [ROUNDS]

MODELS      a folder with edsr_5x64_x2.safetensors (MLPerf Mobile's EDSR)
BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, Set14/...

Both versions take turns, one process for each student, one thread each, the image carried inside as in the earlier one;
of several rounds the least CPU seconds are told.  PSNR on Y, protocol edsr.  Eight minutes a round.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from machine import machine

HERE = Path(__file__).parents[1]
SHIPPED = HERE / "examples" / "edsr_8x32_x2.pt"
CHILD = """
import inspect, json, resource, sys
import torch
from memsr_compiler import evaluate, read_teacher, shrink
from memsr_compiler.evaluation.scores import mean
torch.set_num_threads(1)
teacher, options, *tests = json.loads(sys.argv[1])
teacher = read_teacher(teacher)
if "image_skip" in inspect.signature(shrink).parameters:
    options["image_skip"] = "none"
start = resource.getrusage(resource.RUSAGE_SELF)
net = shrink(teacher, **options)
end = resource.getrusage(resource.RUSAGE_SELF)
seconds = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
print(json.dumps([seconds, *(mean(evaluate(net, test)).psnr for test in tests)]))
"""


def derive(checkout: Path, teacher: Path, options: dict[str, int], tests: list[str]) -> list[float]:
    """CPU seconds, and PSNR on each of the tests, of a student that this version derives."""
    command = [sys.executable, "-c", CHILD, json.dumps([str(teacher), options, *tests])]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    numbers: list[float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def main(earlier: Path, models: Path, benchmarks: Path, rounds: int) -> None:
    print(machine())
    tests = [str(benchmarks / name / "x2") for name in ("Set5", "Set14")]
    cases: list[tuple[Path, dict[str, int]]] = [
        (SHIPPED, {"width": 16}),
        (SHIPPED, {"width": 24}),
        (SHIPPED, {"width": 24, "refit": 0}),
        (models / "edsr_5x64_x2.safetensors", {"width": 32}),
    ]
    for teacher, options in cases:
        told = [[derive(version, teacher, options, tests) for version in (earlier, HERE)] for _ in range(rounds)]
        old, new = (min(numbers) for numbers in zip(*told, strict=True))
        what = f"{teacher.stem}, {', '.join(f'{name} {value}' for name, value in options.items())}"
        for name, (seconds, *psnr) in (("earlier", old), ("now", new)):
            print(f"{what:36} {name:8} {seconds:6.1f} CPU s  {'  '.join(f'{p:.3f}' for p in psnr)} dB", flush=True)
        print(f"{'':36} {'':8} {new[0] / old[0]:6.2f} of that", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 1)
