"""Deviation from the teacher in float64 of teachers and their plain networks, in float32 and float16.

    python benchmarks/precision.py [MODELS]

MODELS   a folder with edsr_5x32_x2, edsr_5x64_x2, teacher_m_x2 and edsr_baseline_x4 (.safetensors), IMDN_noCCA_x4.pth
         and vdsr.safetensors, for the second table

The middles of the sample photographs, 64 by 64, whole output.  float32: teachers in torch, plain networks in ONNX
Runtime, from files as `memsrc convert` writes them.  float16: halves stored between layers, sums in float32, by torch
on the CPU; of a teacher between all its operations.  The last column is what ONNX Runtime's CPU says of the float16
file, which it computes in float32.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor, nn

from memsr_compiler import PlainNet, compile_to_plain, export_onnx, ir, read_teacher
from memsr_compiler.errors import ExportError
from memsr_compiler.images.files import sample_photographs, to_tensor
from memsr_compiler.images.metrics import luma
from memsr_compiler.ir.interpreter import evaluate
from memsr_compiler.plain.halves import LayerPeak, run_in_halves
from memsr_compiler.plain.load import load_plain
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.trace.trace import trace

TEACHER = Path(__file__).parent.parent / "examples" / "edsr_8x32_x2.pt"
SIDE = 64
FILES: dict[str, tuple[str, tuple[float, float]]] = {
    "EDSR 5x32 x2 (MLPerf)": ("edsr_5x32_x2.safetensors", (0.0, 255.0)),
    "EDSR 5x64 x2 (MLPerf)": ("edsr_5x64_x2.safetensors", (0.0, 255.0)),
    "Teacher-M x2": ("teacher_m_x2.safetensors", (0.0, 255.0)),
    "EDSR-baseline x4": ("edsr_baseline_x4.safetensors", (0.0, 255.0)),
    "IMDN without attention, x4": ("IMDN_noCCA_x4.pth", (0.0, 1.0)),
    "VDSR": ("vdsr.safetensors", (0.0, 1.0)),
}

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Material:
    """Images in a network's range, and what the teacher makes of them in float64."""

    images: Sequence[Tensor]
    exact: Sequence[Tensor]
    span: float

    def levels(self, network: Network) -> float:
        """Largest deviation of a network, in grey levels of 255."""
        with torch.no_grad():
            outputs = [network(x) for x in self.images]
        worst = max(
            float(torch.nan_to_num((y.double() - e).abs(), nan=torch.inf).max())
            for y, e in zip(outputs, self.exact, strict=True)
        )
        return worst / self.span * 255


def material(teacher: nn.Module, channels: int, input_range: tuple[float, float]) -> Material:
    low, high = input_range
    images = []
    for pixels in sample_photographs():
        top, left = ((size - SIDE) // 2 for size in pixels.shape[:2])
        middle = pixels[top : top + SIDE, left : left + SIDE]
        image = to_tensor(middle) if channels == 3 else to_tensor((luma(middle) / 255)[..., None])
        images.append(image * (high - low) + low)
    double = copy.deepcopy(teacher).double()
    with torch.no_grad():
        return Material(images, [double(x.double()) for x in images], high - low)


def scaled_to_255(teacher: nn.Module) -> nn.Module:
    """The same network on values 0 to 255: every bias 255 times as large."""
    scaled = copy.deepcopy(teacher)
    with torch.no_grad():
        for name, parameter in scaled.named_parameters():
            if name.endswith("bias"):
                parameter.mul_(255)
    return scaled


def teacher_in_halves(teacher: nn.Module, input_range: tuple[float, float]) -> Network:
    """The teacher with the result of every operation rounded to halves."""
    graph = trace(teacher, input_range=input_range).graph

    def run(x: Tensor) -> Tensor:
        values: dict[str, Tensor] = {}
        for op in graph:
            value = x if isinstance(op, ir.Input) else evaluate(_in_halves(op), *(values[i] for i in op.inputs))
            values[op.name] = value.half().float()
        return values[graph.output]

    return run


def _in_halves(op: ir.Op) -> ir.Op:
    """The op with its weights rounded to halves."""
    rounded = {k: v.half().to(v.dtype) for k, v in vars(op).items() if isinstance(v, Tensor)}
    twin = copy.copy(op)
    for name, value in rounded.items():
        object.__setattr__(twin, name, value)
    return twin


def row(name: str, values: Sequence[float | None], peaks: Sequence[LayerPeak] = ()) -> None:
    cells = " ".join(f"{'refused' if value is None else f'{value:.2g}':>9}" for value in values)
    largest = f"{max(peak.value for peak in peaks):>12,.4g}" if peaks else ""
    print(f"{name:40} {cells} {largest}", flush=True)


def measure_teacher(name: str, teacher: nn.Module, input_range: tuple[float, float], on: Material) -> None:
    row(name, (on.levels(teacher), on.levels(teacher_in_halves(teacher, input_range))))


def measure_plain(name: str, net: PlainNet, on: Material) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plain.onnx")
        export_onnx(net, path)
        single = on.levels(OrtNetwork(path))
        try:
            peaks = export_onnx(net, path, dtype="float16").peaks
        except ExportError:
            row(name, (single, None, None))
            return
        half = load_plain(path)
        row(name, (single, on.levels(lambda x: run_in_halves(half, x)), on.levels(OrtNetwork(path))), peaks)


def main(models: Path | None) -> None:
    torch.set_num_threads(1)
    print(machine())
    print(f"{'largest deviation, grey levels of 255':40} {'float32':>9} {'float16':>9} {'as ORT':>9} {'largest':>12}")
    shipped = read_teacher(TEACHER).module
    for top in (1, 255):
        teacher, input_range = (shipped if top == 1 else scaled_to_255(shipped)), (0.0, float(top))
        on = material(teacher, 3, input_range)
        measure_teacher(f"0..{top}: teacher", teacher, input_range, on)
        ways: tuple[tuple[str, dict[str, Any]], ...] = (
            ("auto", {}),
            ("split", {"carry": "split"}),
            ("shift, C = 1000", {"carry": "shift", "constant": 1000.0}),
            ("shift, C = 10 x the range", {"carry": "shift", "constant": 10.0 * top}),
        )
        for name, options in ways:
            net = compile_to_plain(teacher, input_range=input_range, **options)
            measure_plain(f"0..{top}: plain, {name}", net, on)
    for name, (file, input_range) in FILES.items() if models else ():
        assert models is not None
        teacher = read_teacher(models / file).module
        net = compile_to_plain(teacher, input_range=input_range)
        on = material(teacher, net.info.channels, input_range)
        measure_teacher(f"{name}: teacher", teacher, input_range, on)
        measure_plain(f"{name}: plain", net, on)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
