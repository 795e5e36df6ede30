"""A photograph from file to file, beside the network alone and beside tiles: CPU seconds and memory.

    python benchmarks/tiling.py [MODEL [PHOTOGRAPH [REPEATS]]]

MODEL   x2-tiny if not given, or another network that ships;   PHOTOGRAPH   a mosaic of 1800x1200 of those that ship
with scikit-image, as JPEG, if not given;   REPEATS   3, of which the best counts

    network   the whole frame, from array to array, in ONNX Runtime: nothing is read or written
    tiles     as Real-ESRGAN's scripts do it: tiles of 256 pixels with 10 around them, each through ONNX Runtime, put
              together in float32, rounded, written by Pillow (TIFF uncompressed, PNG as it does by default)
    ours      memsrc upscale, bands of rows

Each is a process of its own with one thread; its largest resident set is the system's, libraries and all, and its CPU
seconds are those after everything is imported and loaded.  At the end: whether our PNG is, pixel for pixel, the whole
frame.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from memsr_compiler.models.catalogue import find_file

TILE, AROUND = 256, 10
WAYS = ("network", "tiles .tif", "ours .tif", "tiles .png", "ours .png")


def session(model: str) -> Any:
    """The whole network, one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_network(loaded: Any, pixels: Any) -> Any:
    """(H, W, 3) uint8 -> (1, 3, s H, s W) float32; values from 0 to 255, as the networks that ship take them."""
    image = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
    return loaded.run(None, {loaded.get_inputs()[0].name: image})[0]


def to_levels(output: Any) -> Any:
    return np.rint(output[0].clip(0, 255)).astype(np.uint8).transpose(1, 2, 0)


def by_tiles(loaded: Any, pixels: Any) -> Any:
    """The result by tiles, which are cut with what is around them, and put together without."""
    height, width, _ = pixels.shape
    scale = run_network(loaded, pixels[:16, :16]).shape[2] // 16
    large = np.zeros((1, 3, height * scale, width * scale), np.float32)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            y, x = max(top - AROUND, 0), max(left - AROUND, 0)
            made = run_network(loaded, pixels[y : min(bottom + AROUND, height), x : min(right + AROUND, width)])
            inner = (slice((top - y) * scale, (bottom - y) * scale), slice((left - x) * scale, (right - x) * scale))
            outer = (slice(top * scale, bottom * scale), slice(left * scale, right * scale))
            large[0][:, outer[0], outer[1]] = made[0][:, inner[0], inner[1]]
    return to_levels(large)


def prepare(way: str, model: str, photograph: Path, target: Path) -> Any:
    """Load everything; a function that does the work."""
    if way.startswith("ours"):
        from memsr_compiler.images.streams import RowFile
        from memsr_compiler.runtime.upscale_file import ByBands, enlarge_file
        from memsr_compiler.runtime.upscaler import Upscaler

        engine = ByBands(Upscaler(model, threads=1), target.parent)
        engine.upscaler(np.zeros((16, 16, 3), np.uint8))  # its layers are made ready with the first image
        scale = engine.takes.scale
        return lambda: enlarge_file(engine, RowFile.open(photograph), target, scale)
    loaded = session(model)
    run_network(loaded, np.zeros((16, 16, 3), np.uint8))
    if way == "network":
        pixels = np.asarray(Image.open(photograph).convert("RGB"))
        return lambda: run_network(loaded, pixels)

    def tiles() -> None:
        pixels = np.asarray(Image.open(photograph).convert("RGB"))
        Image.fromarray(by_tiles(loaded, pixels)).save(target)

    return tiles


def peak() -> int:
    """Bytes of this process's largest resident set; `resource` tells its parent's where that was larger."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def one(way: str, model: str, photograph: Path, target: Path) -> None:
    work = prepare(way, model, photograph, target)
    start, cpu = time.perf_counter(), time.process_time()
    work()
    print(time.process_time() - cpu, time.perf_counter() - start, peak())


def whole_frame(model: str, photograph: Path) -> Any:
    return to_levels(run_network(session(model), np.asarray(Image.open(photograph).convert("RGB"))))


def main(model: str = "x2-tiny", photograph: str | None = None, repeats: str = "3") -> None:
    from machine import machine  # with torch, which what is measured does without
    from photograph import write_mosaic

    print(machine())
    model = str(find_file(model))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(photograph or Path(folder) / "photograph.jpg")
        if photograph is None:
            write_mosaic(Path(folder) / "photograph.jpg[Q=95]", 1800, 1200)
        best: dict[str, tuple[float, float, float]] = {}
        for _ in range(int(repeats)):
            for way in WAYS:
                target = Path(folder) / f"{way.partition(' ')[0]}{way[-4:]}"
                command = [sys.executable, __file__, "--one", way, model, str(source), str(target)]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                cpu, seconds, memory = map(float, said)
                best[way] = min(best.get(way, (cpu, seconds, memory)), (cpu, seconds, memory))
        network = best["network"][0]
        print("            CPU s   of the network  clock s  resident set      file")
        for way in WAYS:
            cpu, seconds, memory = best[way]
            file = Path(folder) / f"{way.partition(' ')[0]}{way[-4:]}"
            size = f"{file.stat().st_size / 1e6:6.1f} MB" if file.exists() else ""
            print(f"{way:10} {cpu:6.2f} {cpu / network:14.2f} {seconds:10.2f} {memory / 2**20:9.0f} MiB  {size}")
        for kind in (".tif", ".png"):
            (ours, _, less), (tiles, _, memory) = best[f"ours {kind}"], best[f"tiles {kind}"]
            print(f"{kind}: {ours / tiles:.2f} of tiles' CPU seconds, {less / memory:.2f} of their memory")
        difference = np.abs(np.asarray(Image.open(Path(folder) / "ours.png")).astype(int) - whole_frame(model, source))
        print(f"pixels unlike the whole frame's: {np.count_nonzero(difference)}, by {difference.max()} of 255 at most")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
    else:
        main(*sys.argv[1:])
