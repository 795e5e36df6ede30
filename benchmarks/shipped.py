"""The networks that ship, measured: PSNR and SSIM on three test sets, cost; and their catalogue, written.

    python benchmarks/shipped.py BENCHMARKS [NAME...] [--write]

BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, ..., Set14, B100, and x3, x4
NAME        measure these alone (x4-small is not x4-small-int8); the catalogue keeps what it says of others
--write     also write memsr_compiler/models/catalogue.json

Every .onnx file in memsr_compiler/models is measured, in ONNX Runtime, and those in 8 bits as TFLite files too, which
LiteRT runs; SOURCES says whose students they are.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machine import machine

from memsr_compiler import evaluate
from memsr_compiler.evaluation.scores import Score, mean
from memsr_compiler.models.catalogue import find_model
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.read import is_quantized, read_plain_file
from memsr_compiler.quantization.tflite import export_integers
from memsr_compiler.runtime.litert import LiteRTNetwork
from memsr_compiler.runtime.runners import OrtNetwork

FOLDER = Path(find_model.__code__.co_filename).parent
CATALOGUE = FOLDER / "catalogue.json"
TESTS = ("Set5", "Set14", "B100")
SIZES = ("tiny", "small", "medium")
INTEGERS = "-int8"

MLPERF = "EDSR of 5 blocks of 64 channels, x2, of MLPerf Mobile (MLCommons), Apache-2.0"
LABELS = "labels of IMDN x2 (Hui et al. 2019), MIT"
IMDN_X3 = "IMDN x3 (Hui et al. 2019), MIT"
BASELINE = "IMDN x4 without attention, baseline of NTIRE 2022's efficient super-resolution, MIT"
SOURCES = {
    "x2-tiny": MLPERF,
    "x2-small": MLPERF,
    "x2-medium": f"{MLPERF}; {LABELS}",
    "x3-small": f"{MLPERF}; labels of {IMDN_X3}",
    "x4-small": f"{MLPERF}; labels of {BASELINE}",
    "x4-medium": BASELINE,
}
APACHE, MIT = "Apache-2.0", "MIT"


def measure(path: Path, benchmarks: Path) -> dict[str, Any]:
    """The catalogue's entry of a network."""
    name = path.stem
    plain = read_plain_file(path.with_name(f"{name.removesuffix(INTEGERS)}.onnx")).manifest
    scale = plain.info.scale
    network = OrtNetwork(path, threads=1)
    takes = Takes(scale, plain.info.channels, plain.info.input_range)
    scores = {test: mean(evaluate(network, takes, benchmarks / test / f"x{scale}")) for test in TESTS}
    psnr, ssim = round_scores(scores)
    psnr_tflite, ssim_tflite = round_scores(measure_tflite(path, takes, benchmarks) if is_quantized(path) else {})
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
        "psnr_tflite": psnr_tflite,
        "ssim_tflite": ssim_tflite,
        "teacher": SOURCES[name.removesuffix(INTEGERS)],
        "licence": APACHE if MLPERF in SOURCES[name.removesuffix(INTEGERS)] else MIT,
    }


def round_scores(scores: Mapping[str, Score]) -> tuple[dict[str, float], dict[str, float]]:
    """PSNR and SSIM by test set."""
    psnr = {test: round(score.psnr, 3) for test, score in scores.items()}
    return psnr, {test: round(score.ssim, 4) for test, score in scores.items()}


def measure_tflite(path: Path, takes: Takes, benchmarks: Path) -> dict[str, Score]:
    """Scores by test set of the TFLite file with the integers of this one."""
    with tempfile.TemporaryDirectory() as folder:
        export_integers(path, Path(folder) / "int8.tflite")
        network = LiteRTNetwork(Path(folder) / "int8.tflite", threads=1)
        return {test: mean(evaluate(network, takes, benchmarks / test / f"x{takes.scale}")) for test in TESTS}


def order(entry: dict[str, Any]) -> tuple[int, int, bool]:
    size = next(i for i, size in enumerate(SIZES) if size in entry["name"])
    return entry["scale"], size, entry["name"].endswith(INTEGERS)


def main(benchmarks: Path, names: list[str], *, write: bool) -> None:
    print(f"{machine()}, ONNX Runtime and LiteRT on one thread")
    kept = {entry["name"]: entry for entry in json.loads(CATALOGUE.read_text())} if names else {}
    paths = [path for path in FOLDER.glob("*.onnx") if path.stem in names or not names]
    measured = {path.stem: measure(path, benchmarks) for path in paths}
    for entry in sorted(measured.values(), key=order):
        scores = "  ".join(f"{test} {entry['psnr'][test]:.3f} / {entry['ssim'][test]:.4f}" for test in TESTS)
        print(
            f"{entry['name']:16} {entry['layers']:2} layers of {entry['width']:2}  {entry['parameters']:7,}  {scores}"
        )
        if entry["psnr_tflite"]:
            tflite = "  ".join(
                f"{test} {entry['psnr_tflite'][test]:.3f} / {entry['ssim_tflite'][test]:.4f}" for test in TESTS
            )
            print(f"{'as TFLite':16} {'':24}  {tflite}")
    if write:
        CATALOGUE.write_text(json.dumps(sorted({**kept, **measured}.values(), key=order), indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [name for name in sys.argv[2:] if name != "--write"], write="--write" in sys.argv)
