"""The networks that ship, measured: PSNR and SSIM on three test sets, cost; and their catalogue, written.

    python benchmarks/shipped.py BENCHMARKS [--write]

BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, ..., Set14, B100, and x3, x4
--write     also write memsr_compiler/models/catalogue.json

Every .onnx file in memsr_compiler/models is measured, in ONNX Runtime; SOURCES says whose students they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from machine import machine

from memsr_compiler import evaluate
from memsr_compiler.evaluation.scores import mean
from memsr_compiler.models.catalogue import find_model
from memsr_compiler.plain.read import is_quantized, read_plain_file
from memsr_compiler.quantization.quantize import takes_of
from memsr_compiler.runtime.runners import OrtNetwork

FOLDER = Path(find_model.__code__.co_filename).parent
TESTS = ("Set5", "Set14", "B100")
SIZES = ("tiny", "small", "medium")
INTEGERS = "-int8"

MLPERF = "EDSR of 5 blocks of 64 channels, x2, of MLPerf Mobile (MLCommons), Apache-2.0"
SOURCES = {"x2-tiny": MLPERF, "x2-small": MLPERF, "x2-medium": MLPERF}
LICENCE = "Apache-2.0"


def measure(path: Path, benchmarks: Path) -> dict[str, Any]:
    """The catalogue's entry of a network."""
    name = path.stem
    plain = read_plain_file(path.with_name(f"{name.removesuffix(INTEGERS)}.onnx")).manifest
    scale = plain.info.scale
    network = OrtNetwork(path, threads=1)
    takes = takes_of(network.metadata) if is_quantized(path) else None
    psnr, ssim = {}, {}
    for test in TESTS:
        images = benchmarks / test / f"x{scale}"
        score = mean(evaluate(network, takes, images) if takes else evaluate(path, images))
        psnr[test], ssim[test] = round(score.psnr, 3), round(score.ssim, 4)
    weights = [layer.weight for layer in plain.layers]
    return {
        "name": name,
        "scale": scale,
        "layers": len(weights),
        "width": max(weight[0] for weight in weights[:-1]),
        "parameters": sum(o * i * k * k + o for o, i, k, _ in weights),
        "macs_per_pixel": sum(o * i * k * k for o, i, k, _ in weights),
        "psnr": psnr,
        "ssim": ssim,
        "teacher": SOURCES[name.removesuffix(INTEGERS)],
        "licence": LICENCE,
    }


def order(entry: dict[str, Any]) -> tuple[int, int, bool]:
    size = next(i for i, size in enumerate(SIZES) if size in entry["name"])
    return entry["scale"], size, entry["name"].endswith(INTEGERS)


def main(benchmarks: Path, *, write: bool) -> None:
    print(f"{machine()}, ONNX Runtime on one thread")
    entries = sorted((measure(path, benchmarks) for path in FOLDER.glob("*.onnx")), key=order)
    for entry in entries:
        scores = "  ".join(f"{test} {entry['psnr'][test]:.3f} / {entry['ssim'][test]:.4f}" for test in TESTS)
        print(
            f"{entry['name']:16} {entry['layers']:2} layers of {entry['width']:2}  {entry['parameters']:7,}  {scores}"
        )
    if write:
        (FOLDER / "catalogue.json").write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), write="--write" in sys.argv)
