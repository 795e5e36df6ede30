"""A photograph larger than memory, from file to file: peak memory of the whole process.

    python benchmarks/photograph.py MODEL [SIZE [LIMIT]]

MODEL   a plain network's file
SIZE    of the photograph, 12000x8000 if not given; LIMIT  for --max-memory, 160MB if not given

The photograph is a mosaic of those that ship with scikit-image.  It is read as PNG and written as TIFF by `memsrc
upscale` in a process of its own, whose largest resident set the operating system tells, libraries and all.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyvips
from machine import machine

from memsr_compiler.images.files import sample_photographs


def write_mosaic(path: Path, width: int, height: int) -> None:
    """Write the photograph, by rows too."""
    tiles = [pyvips.Image.new_from_array(np.ascontiguousarray(p[:256, :256])) for p in sample_photographs()]
    across = -(-width // 256)
    image = pyvips.Image.arrayjoin([tiles[i % len(tiles)] for i in range(across * -(-height // 256))], across=across)
    image.crop(0, 0, width, height).copy(interpretation="srgb").write_to_file(str(path))


def main(model: str, size: str = "12000x8000", limit: str = "160MB") -> None:
    width, height = map(int, size.split("x"))
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "photograph.png", Path(folder) / "large.tif"
        writer = multiprocessing.get_context("spawn").Process(target=write_mosaic, args=(source, width, height))
        writer.start()
        writer.join()
        command = [sys.executable, "-m", "memsr_compiler", "upscale", str(source), str(target)]
        start = time.perf_counter()
        process = subprocess.Popen([*command, "--model", model, "--max-memory", limit])
        _, status, used = os.wait4(process.pid, 0)  # of this process alone, which begins no larger than this script
        seconds = time.perf_counter() - start
        if status:
            sys.exit("memsrc upscale failed")
        large = pyvips.Image.new_from_file(str(target))
        print(f"{width}x{height} -> {large.width}x{large.height}, {target.stat().st_size / 1e6:,.0f} MB as TIFF")
        print(f"--max-memory {limit}: peak resident set {used.ru_maxrss * 1024 / 1e6:,.0f} MB, {seconds:,.0f} s")
        cpu = used.ru_utime + used.ru_stime
        print(f"{cpu:,.0f} CPU s, {width * height / cpu / 1e3:,.0f} thousand pixels in each")


if __name__ == "__main__":
    main(*sys.argv[1:])
