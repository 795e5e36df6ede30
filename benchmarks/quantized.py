"""The cost and gain of 8 bits: PSNR, size and time of a student of the shipped teacher, and what each choice is worth.

    memsrc shrink examples/edsr_8x32_x2.pt --width 32 --image-skip none --out student.onnx
    python benchmarks/quantized.py student.onnx BENCHMARKS

BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, Set14/x2/...

`memsrc quantize` as it is and with one thing changed at a time.  Times: one thread, 480x270 input, float32 and int8 in
turn, the median of the ratios.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx
import onnxruntime
import onnxruntime.quantization
import torch
from machine import machine
from onnxruntime.quantization import CalibrationMethod
from pretrained import rgb_psnr
from torch import Tensor

from memsr_compiler import quantize
from memsr_compiler.commands.quantize import time_ratio
from memsr_compiler.plain.info import Takes
from memsr_compiler.quantization import quantize as quantization
from memsr_compiler.quantization import round_convolutions
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.student.crops import batches

TESTS = ("Set5", "Set14")
OURS: dict[str, Any] = {  # and their modules
    "equalise_channels": quantization,
    "round_convolutions": quantization,
    "WEIGHT_LIMIT": round_convolutions,
}
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "channels as they are": {"equalise_channels": lambda *_: None},
    "weights rounded to the nearest": {"round_convolutions": lambda *_: 0},
    "weights in 8 bits instead of 7": {"reduce_range": False, "WEIGHT_LIMIT": 127},
    "one range for all channels of weights": {"per_channel": False},
    "moving averages instead of extremes": {"extra_options": {"CalibMovingAverage": True}},
    "99.999% of values instead of extremes": {
        "calibrate_method": CalibrationMethod.Percentile,
        "extra_options": {"CalibPercentile": 99.999},
    },
}


@contextlib.contextmanager
def change_settings(change: Mapping[str, Any]) -> Iterator[None]:
    """Quantise otherwise while it lasts.

    change   names in OURS: of our modules; the others: arguments of ONNX Runtime's quantize_static
    """
    static = onnxruntime.quantization.quantize_static
    own = {name: value for name, value in change.items() if name in OURS}
    other = {name: value for name, value in change.items() if name not in OURS}
    with contextlib.ExitStack() as stack:
        for name, value in own.items():
            stack.enter_context(patch.object(OURS[name], name, value))

        def changed_static(*args: Any, extra_options: dict[str, Any], **options: Any) -> None:
            more = {"extra_options": {**extra_options, **other.get("extra_options", {})}}
            static(*args, **{**options, **other, **more})

        stack.enter_context(patch.object(onnxruntime.quantization, "quantize_static", changed_static))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))  # histograms are announced
        yield


def changes(source: Path) -> dict[str, dict[str, Any]]:
    names = [node.name for node in onnx.load(str(source)).graph.node if node.op_type == "Conv"]
    return {**CHANGES, "first and last convolution in float32": {"nodes_to_exclude": [names[0], names[-1]]}}


def scores(path: Path, benchmarks: Path) -> str:
    network = OrtNetwork(path, threads=1)
    return " / ".join(f"{rgb_psnr(network, benchmarks / test / 'x2', 2):.3f}" for test in TESTS)


def calibration(change: Mapping[str, Any]) -> list[Tensor]:
    """The command's calibration; for histograms, which take images of one size only, the largest part of it that is."""
    crops: Sequence[Tensor] = batches(sample_inputs(scale=2, channels=3, input_range=(0.0, 1.0)), samples=36)
    if "calibrate_method" not in change:
        return list(crops)
    sizes = [batch.shape for batch in crops]
    return [batch for batch in crops if batch.shape == max(sizes, key=sizes.count)]


def main(source: Path, benchmarks: Path) -> None:
    torch.set_num_threads(1)
    print(f"{machine()}, ONNX Runtime {onnxruntime.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "int8.onnx")
        print(f"PSNR-Y on {' / '.join(TESTS)} x2, dB; size; time as a part of that of float32")
        print(f"{'float32':48} {scores(source, benchmarks)}  {source.stat().st_size / 1e3:4.0f} kB", flush=True)
        for name, change in changes(source).items():
            with change_settings(change):
                quantize(source, out, calibration(change), takes=Takes(2))
            exact, integer = (OrtNetwork(path, threads=1) for path in (source, out))
            _, ratio = time_ratio(exact, integer, torch.rand(1, 3, 270, 480))
            print(
                f"{f'int8, {name}':48} {scores(out, benchmarks)}  {out.stat().st_size / 1e3:4.0f} kB  {ratio:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
