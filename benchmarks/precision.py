"""Deviation of the three ways of carrying from the teacher in float64, in float32 and float16.

    python benchmarks/precision.py

The shipped teacher (values 0 to 1), and the same network for values 0 to 255; sample photographs, whole output.  The
plain networks run in ONNX Runtime, from files as `memsrc convert` writes them; the teacher in torch.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from machine import machine
from torch import Tensor, nn

from memsr_compiler import PlainNet, compile_to_plain, export_onnx, load_teacher
from memsr_compiler.images.files import sample_photographs, to_tensor
from memsr_compiler.runtime.runners import OrtNetwork

TEACHER = Path(__file__).parent.parent / "examples" / "edsr_8x32_x2.pt"


def scaled_to_255(teacher: nn.Module) -> nn.Module:
    """The same network on values 0 to 255: every bias 255 times as large."""
    scaled = copy.deepcopy(teacher)
    with torch.no_grad():
        for name, parameter in scaled.named_parameters():
            if name.endswith("bias"):
                parameter.mul_(255)
    return scaled


def deviation(network: Callable[[Tensor], Tensor], exact: list[Tensor], images: list[Tensor]) -> float:
    with torch.no_grad():
        outputs = [network(x) for x in images]
    return max(float((y.double() - e).abs().max()) for y, e in zip(outputs, exact, strict=True))


def main() -> None:
    print(machine())
    photographs = [to_tensor(p[:160, :160]) for p in sample_photographs()]
    print(f"{'largest deviation, in parts of the input range':52} {'float32':>9} {'float16':>9}")
    for top in (1, 255):
        teacher = load_teacher(TEACHER) if top == 1 else scaled_to_255(load_teacher(TEACHER))
        images = [x * top for x in photographs]
        double = copy.deepcopy(teacher).double()
        with torch.no_grad():
            exact = [double(x.double()) for x in images]
        half = copy.deepcopy(teacher).half()
        halves = [x.half() for x in images]
        pair = (deviation(teacher, exact, images), deviation(half, exact, halves))
        print(f"{f'0..{top}: teacher in torch':52} {pair[0] / top:9.1e} {pair[1] / top:9.1e}")
        ways: tuple[tuple[str, dict[str, Any]], ...] = (
            ("auto", {}),
            ("split", {"carry": "split"}),
            ("shift, C = 1000", {"carry": "shift", "constant": 1000.0}),
            ("shift, C = 10 x the range", {"carry": "shift", "constant": 10.0 * top}),
        )
        for name, options in ways:
            net = compile_to_plain(teacher, input_range=(0.0, float(top)), **options)
            pair = (in_onnxruntime(net, "float32", exact, images), in_onnxruntime(net, "float16", exact, images))
            print(f"{f'0..{top}: plain, {name}':52} {pair[0] / top:9.1e} {pair[1] / top:9.1e}")


def in_onnxruntime(
    net: PlainNet, dtype: Literal["float32", "float16"], exact: list[Tensor], images: list[Tensor]
) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plain.onnx")
        export_onnx(net, path, dtype=dtype)
        return deviation(OrtNetwork(path), exact, images)


if __name__ == "__main__":
    main()
