"""A plain network by bands of rows, beside the whole frame: peak memory of the process and CPU time.

    python benchmarks/bands.py

Plain-M of the paper (35 layers, 64 channels) at x2, random weights; one thread.  Memory is the process's peak while the
image is processed, beyond what it had with model, input and result in place.  The whole frame runs in ONNX Runtime
(memory pattern off, arena on) and in torch; bands run in ONNX Runtime, layer by layer, without a limit and with some.
Every row is a process of its own; memory and CPU time are compared with the first one's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from machine import machine
from networks import plain
from numpy.typing import NDArray

from memsr_compiler import Upscaler, export_onnx, load_plain, save_plain
from memsr_compiler.runtime.runners import OrtNetwork

SIZES = ((960, 540), (480, 4000))
WAYS = ("ort", "torch", "bands", "64MB", "32MB", "16MB")
MEGABYTE = 10**6
Pixels: TypeAlias = NDArray[np.uint8]


def plain_m(folder: Path) -> None:
    net = plain(2)
    save_plain(net, folder / "net.safetensors")
    export_onnx(net, folder / "net.onnx")


def status(key: str) -> int:
    """Bytes, of this process."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) << 10


def one(way: str, width: int, height: int, folder: Path) -> None:
    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    run = runner(way, folder)
    run(image[: height // 8, : width // 8])  # the same axis is the longer one, or the layers would be loaded later
    room = np.ones((2 * height, 2 * width, 3), np.uint8)  # the result's place is no cost of the way it is made
    before = status("VmRSS")
    del room
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    start = time.process_time()
    run(image)
    print(status("VmHWM") - before, time.process_time() - start)


def runner(way: str, folder: Path) -> Callable[[Pixels], Pixels]:
    if way in ("ort", "torch"):
        network = OrtNetwork(folder / "net.onnx", threads=1) if way == "ort" else load_plain(folder / "net.safetensors")

        def whole(image: Pixels) -> Pixels:
            x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)) / 255
            with torch.no_grad():
                output = network(x)[0].mul_(255).round_().clamp_(0, 255)
            pixels: Pixels = output.permute(1, 2, 0).numpy().astype(np.uint8)
            return pixels

        return whole
    limit = None if way == "bands" else int(way.removesuffix("MB")) * MEGABYTE
    return Upscaler(folder / "net.safetensors", max_memory=limit, threads=1)


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        plain_m(Path(folder))
        for width, height in SIZES:
            print(f"{width}x{height}")
            first = (0.0, 0.0)
            for way in WAYS:
                command = [sys.executable, __file__, way, str(width), str(height), folder]
                figures = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                memory, seconds = float(figures[0]), float(figures[1])
                first = first if first[0] else (memory, seconds)
                shares = f"1/{first[0] / memory:.1f} of the memory, {seconds / first[1]:.2f} of the CPU time"
                print(f"  {way:6} {memory / 2**20:8.1f} MiB  {seconds:6.1f} CPU s  {shares}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
