"""CPU seconds and memory of the compiler, beside torch.export on the same network in the same process.

    python benchmarks/compile_time.py

CPU seconds on one thread, as the machine may be shared.  EDSR-baseline (16 blocks of 64 channels) with its x2 and x4
tails, by stage; then `memsrc convert` from shell prompt to written ONNX; then EDSR with 32 blocks of 256 channels, in
a process of its own, for its peak memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from machine import machine

from memsr_compiler import compile_to_plain
from memsr_compiler.lowering import compile as compiler
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.trace.trace import Traced, trace


def edsr_baseline(scale: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return EDSR(scale=scale, blocks=16, channels=64, mean=(0.4488, 0.4371, 0.4040), rgb_range=1).eval()


def seconds_of_export(model: torch.nn.Module) -> float:
    """torch.export with free height and width, as the reader uses it when it has to."""
    height, width = torch.export.Dim("height", min=2), torch.export.Dim("width", min=2)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.export(model, (torch.rand(2, 3, 24, 36),), dynamic_shapes=({2: height, 3: width},))
    return time.process_time() - start


def seconds_of_compile(model: torch.nn.Module) -> tuple[PlainNet, float, float]:
    """The plain network, CPU seconds of all and those of the trace alone."""
    of_trace = 0.0

    def time_trace(*args: Any, **options: Any) -> Traced:
        nonlocal of_trace
        start = time.process_time()
        traced = trace(*args, **options)
        of_trace = time.process_time() - start
        return traced

    with mock.patch.object(compiler, "trace", time_trace):
        start = time.process_time()
        net = compile_to_plain(model)
        return net, time.process_time() - start, of_trace


def by_stage(scale: int) -> None:
    """Measure as a script that converts one network would see it, so in a fresh process: cold, then once more."""
    torch.set_num_threads(1)
    model = edsr_baseline(scale)
    for state in ("first in the process", "again"):
        net, total, of_trace = seconds_of_compile(model)
        export = seconds_of_export(model)
        assert net.report is not None
        stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in net.report.seconds.items())
        after = total - of_trace
        print(f"EDSR-baseline x{scale}, {state}: {total:.2f} s CPU (by the clock: {stages})")
        print(
            f"  torch.export {export:.2f} s CPU; ratio {total / export:.2f}, "
            f"after the trace {after:.2f} s CPU; ratio {after / export:.2f}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  peak process memory, torch and its export included: {peak:.2f} GiB")


def from_the_shell() -> None:
    with tempfile.TemporaryDirectory() as folder:
        teacher, plain = Path(folder, "teacher.pt"), Path(folder, "plain.onnx")
        torch.save(edsr_baseline(4).state_dict(), teacher)
        start = time.perf_counter()
        command = [sys.executable, "-m", "memsr_compiler", "convert", str(teacher), "--out", str(plain)]
        subprocess.run([*command, "--no-probe", "--quiet"], check=True)  # it is not trained
        print(f"memsrc convert, EDSR-baseline x4, shell to ONNX: {time.perf_counter() - start:.1f} s", flush=True)


def large() -> None:
    torch.manual_seed(0)
    model = EDSR(scale=2, blocks=32, channels=256, res_scale=0.1).eval()
    start = time.perf_counter()
    net = compile_to_plain(model)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    parameters = sum(p.numel() for p in net.parameters())
    print(
        f"EDSR 32x256 x2: {time.perf_counter() - start:.0f} s, {parameters / 1e6:.0f} M parameters, "
        f"peak process memory {peak:.2f} GiB"
    )


if __name__ == "__main__":
    if "--large" in sys.argv:
        large()
    elif "--scale" in sys.argv:
        by_stage(int(sys.argv[-1]))
    else:
        print(machine(), flush=True)
        for scale in ("2", "4"):
            subprocess.run([sys.executable, __file__, "--scale", scale], check=True)
        from_the_shell()
        subprocess.run([sys.executable, __file__, "--large"], check=True)
