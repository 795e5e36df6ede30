"""Students in other engines than ONNX Runtime: PSNR in float and in half, and time as a ratio to ONNX Runtime's.

    python benchmarks/engines.py BENCHMARKS MODEL.onnx... [--arm build/arm]

BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR
MODEL       plain networks, x2
--arm       what `make arm` has made: also on an ARM processor with half-precision arithmetic, as phones have, emulated

PSNR-Y by protocol A: on this processor of the whole images; on the emulated one of the middle of each, 64x64 pixels of
input, as it is a hundred times slower.  Time: CPU seconds of one thread at 240x135, the least of 7.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from engine import PRECISIONS, Image, Network, convert, open_network
from machine import machine
from numpy.typing import NDArray

from memsr_compiler import load_plain
from memsr_compiler.images.files import read_images, to_image
from memsr_compiler.images.metrics import psnr

HERE = Path(__file__).parent
Pairs: TypeAlias = "dict[str, tuple[Image, NDArray[np.uint8]]]"


def middles(pairs: Pairs, side: int = 64) -> Pairs:
    """The middle of every image, `side` pixels of the small one square."""
    result = {}
    for name, (low, high) in pairs.items():
        top, left = ((n - side) // 2 for n in low.shape[2:])
        large = high[2 * top : 2 * (top + side), 2 * left : 2 * (left + side)]
        result[name] = np.ascontiguousarray(low[:, :, top : top + side, left : left + side]), large
    return result


def read_pairs(folder: Path, top: float) -> Pairs:
    """Images as a network for values from 0 to `top` takes them, and the photographs they were made of."""
    images = zip(read_images(folder / "LR"), read_images(folder / "HR"), strict=True)
    return {
        f"image{i}": (
            np.ascontiguousarray(low.transpose(2, 0, 1)[None], dtype=np.float32) * np.float32(top / 255),
            high,
        )
        for i, (low, high) in enumerate(images)
    }


def score(results: Mapping[str, Image], pairs: Pairs, top: float) -> float:
    values = [psnr(to_image(torch.from_numpy(results[n] / top)), high, scale=2) for n, (_, high) in pairs.items()]
    return float(np.mean(values))


def least_seconds(network: Network, top: float) -> float:
    image = np.random.default_rng(0).random((1, 3, 135, 240), dtype=np.float32) * np.float32(top)
    network(image)
    seconds = []
    for _ in range(7):
        start = time.process_time()
        network(image)
        seconds.append(time.process_time() - start)
    return min(seconds)


def run_on_arm(arm: Path, engine: str, file: Path, precision: str, pairs: Pairs) -> dict[str, Image]:
    """What the engine computes on the emulated processor, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        images, results = Path(folder, "images.npz"), Path(folder, "results.npz")
        np.savez(images, **{name: low for name, (low, _) in pairs.items()})  # type: ignore[arg-type]
        words = [arm / "python", HERE / "engine.py", engine, file, precision, images, results]
        subprocess.run(list(map(str, words)), check=True, capture_output=True)
        with np.load(results) as arrays:
            return dict(arrays)


def report(model: Path, benchmarks: Path, arm: Path | None, folder: Path) -> None:
    _, top = load_plain(model, require_certificate=False).info.input_range
    pairs = read_pairs(benchmarks / "Set5" / "x2", top)
    small = middles(pairs)
    onnx = open_network("onnxruntime", model)
    unit = least_seconds(onnx, top)
    exact, exact_small = (score({n: onnx(low) for n, (low, _) in p.items()}, p, top) for p in (pairs, small))
    print(f"{model.name}: {exact:.3f} dB in ONNX Runtime, {exact_small:.3f} dB on the middles", flush=True)
    for engine, precisions in PRECISIONS.items():
        file = convert(engine, model, folder)
        for precision in precisions:
            network = open_network(engine, file, precision)
            here = score({name: network(low) for name, (low, _) in pairs.items()}, pairs, top)
            line = f"  {engine:12} {precision:20} {here - exact:+7.3f} dB  {least_seconds(network, top) / unit:5.2f}"
            if arm is not None and engine != "onnxruntime":
                there = score(run_on_arm(arm, engine, file, precision, small), small, top)
                line += f"  on ARM {there - exact_small:+7.3f} dB"
            print(line, flush=True)
    runtime = HERE.parent / "examples" / "web" / "runtime"
    if runtime.is_dir():  # the time alone: tests/deployment/test_web_page.py compares the pixels
        done = subprocess.run(["node", HERE / "web.mjs", model], check=True, capture_output=True, text=True)
        print(f"  {'web':12} {'float':20} {'':10}  {float(done.stdout) / unit:5.2f}", flush=True)


def main(benchmarks: Path, models: list[Path], arm: Path | None) -> None:
    torch.set_num_threads(1)
    print(f"{machine()}; {', '.join(f'{name} {version(name)}' for name in ('onnxruntime', 'ncnn', 'MNN', 'openvino'))}")
    print("loss in PSNR-Y on Set5 against ONNX Runtime in float32; time against it")
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            report(model, benchmarks, arm, Path(folder))


if __name__ == "__main__":
    words = sys.argv[1:]
    emulated = Path(words.pop(words.index("--arm") + 1)) if "--arm" in words else None
    main(Path(words[0]), [Path(word) for word in words[1:] if word != "--arm"], emulated)
