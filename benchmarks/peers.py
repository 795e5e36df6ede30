"""The students that ship beside public mobile networks: PSNR, processor time, memory, parameters; the README's table.

    python benchmarks/peers.py [FOLDER]

FOLDER   where the pictures go: peers_x2.svg, peers_x4.svg

Ours: PSNR-Y as the catalogue has it (`shipped.py` measures it); measured here, both at a 240x135 input: time of ONNX
Runtime on one thread as a ratio to EDSR-baseline (16 blocks of 64 channels, random weights) in the same rounds, and
peak memory of a process.
The others' rows are figures that were measured once in the same way on such a machine, with their authors' weights
(mostly trained on DIV2K, for days), in ONNX Runtime too; they are not measured again, since those weights do not ship.
Time and memory do not depend on weights: one of ABPN M4C28's shape, without its clamp, is measured beside ours.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from machine import machine
from paper.rivals import write_onnx

from memsr_compiler import benchmark, load_model
from memsr_compiler.evaluation.bench import Measured
from memsr_compiler.models.catalogue import ShippedModel, list_models
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.reports.scatter import Dot, draw_scatter_svg
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.torch_helpers import one_thread

SIZE = (240, 135)
TESTS = ("Set5", "Set14", "B100")
NEAR = 0.12
"""Of EDSR-baseline's time: networks that take less are drawn, as far as ours go and their peers of more PSNR."""


@dataclass(frozen=True)
class Row:
    """A network: parameters, PSNR-Y in dB on TESTS, seconds by those of EDSR-baseline, bytes; ours, or a peer."""

    name: str
    parameters: int | None
    psnr: tuple[float, ...]
    ratio: float
    memory: int | None
    int8: float | None = None
    ours: bool = False


def _peer(
    name: str,
    thousands: float | None,
    psnr: tuple[float, ...],
    ratio: float,
    mebibytes: float | None,
    lost: float | None = None,
) -> Row:
    """A row of figures; `lost`: dB on Set5 that `memsrc quantize` takes."""
    parameters = None if thousands is None else round(thousands * 1000)
    memory = None if mebibytes is None else round(mebibytes * 2**20)
    return Row(name, parameters, psnr, ratio, memory, None if lost is None else psnr[0] - lost)


PEERS = {
    2: (
        _peer("ECBSR M4C16", 12, (37.177, 32.806, 31.601), 0.024, 5.2, 0.64),
        _peer("ETDS M5C16", 14, (37.187, 32.779, 31.610), 0.014, 4.2),
        _peer("ABPN M4C28", 33, (37.379, 32.979, 31.746), 0.031, 8.2, 0.10),
        _peer("ETDS M4C32", 42, (37.390, 32.982, 31.766), 0.032, 8.2),
        _peer("ETDS M6C32", 60, (37.559, 33.108, 31.850), 0.044, 8.2, 1.51),
        _peer("ECBSR M6C40", 92, (37.634,), 0.102, 11.9),
        _peer("ETDS M7C48", 152, (37.662,), 0.111, 12.4),
        _peer("PlainUSR", 311, (37.946,), 0.25, 33),
        _peer("EFDN", 261, (37.940,), 0.32, 51),
        _peer("RLFN", 527, (38.067,), 0.43, 37),
    ),
    4: (
        _peer("ECBSR M4C16", None, (30.890, 27.814), 0.020, None),
        _peer("ABPN M4C28", 62, (31.337, 28.117), 0.035, None),
        _peer("ETDS M4C32", None, (31.211, 28.029), 0.033, None),
        _peer("ETDS M6C32", None, (31.426, 28.147), 0.045, None),
        _peer("ABPN M6C40", None, (31.633, 28.292), 0.063, None),
        _peer("ETDS M7C48", None, (31.709, 28.333), 0.084, None),
        _peer("PlainUSR", None, (32.017, 28.543), 0.155, None),
        _peer("RLFN", None, (32.240, 28.624), 0.283, None),
    ),
}


def write_as_abpn(scale: int, path: Path) -> None:
    """A plain network of ABPN M4C28's layers (Du et al. 2021), random ones, the image outside."""
    widths = (3, *[28] * 5, *[3 * scale**2] * 2)
    layers = [PlainLayer(torch.randn(o, i, 3, 3) / 16, torch.zeros(o), relu=True) for i, o in pairwise(widths)]
    layers[-1] = PlainLayer(layers[-1].weight, layers[-1].bias, relu=False, shuffle=scale)
    info = dataclasses.replace(load_model(f"x{scale}-small").info, receptive_field=len(layers))
    export_onnx(PlainNet(layers, info), path)


def measure(models: Sequence[ShippedModel], scale: int) -> tuple[list[Row], Row, float]:
    """Rows of ours, that of ABPN's shape, and the seconds of EDSR-baseline."""
    torch.manual_seed(0)
    integers = {model.name.removesuffix("-int8"): model for model in list_models() if model.int8}
    with tempfile.TemporaryDirectory() as folder, one_thread():
        baseline = Path(folder, "baseline.onnx")
        write_onnx(EDSR(scale=scale, blocks=16, channels=64).eval(), baseline)
        abpn = Path(folder, "abpn.onnx")
        write_as_abpn(scale, abpn)
        files = [baseline, abpn, *(model.path for model in models)]
        first, shape, *measured = benchmark(files, size=SIZE, threads=1, repeats=15, images=None)
    rows = []
    for model, m in zip(models, measured, strict=True):
        twin = integers.get(model.name)
        psnr = tuple(model.psnr[test] for test in TESTS)
        int8 = None if twin is None else twin.psnr["Set5"]
        rows.append(Row(f"**{model.name}**", model.parameters, psnr, m.ratio, _bytes(m), int8, ours=True))
    return rows, Row("ABPN M4C28's shape", None, (), shape.ratio, _bytes(shape)), first.median


def _bytes(measured: Measured) -> int | None:
    return None if measured.memory is None else measured.memory.bytes


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, by time."""
    lines = ["| network | parameters | Set5 / Set14 / B100 | int8, Set5 | time | MiB |", "|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: row.ratio):
        psnr = " / ".join(f"{value:.2f}" for value in row.psnr)
        parameters = "" if row.parameters is None else f"{row.parameters / 1000:.0f} K"
        memory = "" if row.memory is None else f"{row.memory / 2**20:.1f}"
        int8 = "" if row.int8 is None else f"{row.int8:.2f}"
        lines.append(f"| {row.name} | {parameters} | {psnr} | {int8} | {row.ratio:.3f} | {memory} |")
    return "\n".join(lines)


def main(folder: Path | None) -> None:
    print(f"{machine()}, ONNX Runtime on one thread, {SIZE[0]}x{SIZE[1]} input", flush=True)
    for scale, peers in PEERS.items():
        ours, shape, baseline = measure([m for m in list_models() if m.scale == scale and not m.int8], scale)
        if not ours:
            continue
        print(f"\nx{scale}; EDSR-baseline takes {baseline * 1e3:,.0f} ms\n\n{table([*ours, *peers])}", flush=True)
        print(f"\nIn the same rounds, random weights:\n\n{table([shape])}", flush=True)
        if folder is not None:
            near = [row for row in (*ours, *peers) if row.ratio < NEAR]
            sized = all(row.memory is not None for row in near)  # else those without would look the least
            dots = [
                Dot(row.name.strip("*"), row.ratio * baseline, row.psnr[0], row.memory if sized else None)
                for row in near
            ]
            title = f"Set5 x{scale}, {SIZE[0]}x{SIZE[1]} input, ONNX Runtime on one thread"
            (folder / f"peers_x{scale}.svg").write_text(draw_scatter_svg(dots, title))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
