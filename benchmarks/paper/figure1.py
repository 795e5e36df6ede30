"""MemSR's Figure 1 for the shipped teacher: PSNR, latency and memory of it, its plain network, and students.

    python benchmarks/figure1.py docs/figures/bench.svg

Everything in ONNX Runtime, the teacher too (as torch's exporter writes it), one thread, 480x270 to 960x540.  PSNR-Y on
the photographs that ship, from crops of which the students are derived; on images that they have not seen: students.py.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from machine import machine
from table4 import write_onnx

from memsr_compiler import benchmark, compile_to_plain, export_onnx, load_teacher, shrink
from memsr_compiler.reports.scatter import Dot, draw_scatter_svg
from memsr_compiler.torch_helpers import one_thread

TEACHER = Path(__file__).parent.parent / "examples" / "edsr_8x32_x2.pt"
SIZE = (480, 270)
WIDTHS = (16, 24, 32)


def main(out: Path) -> None:
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder, one_thread():
        names = ("teacher", "plain", *(f"student, {width} channels" for width in WIDTHS))
        files = [Path(folder, f"{i}.onnx") for i in range(len(names))]
        teacher = load_teacher(TEACHER)
        write_onnx(teacher, files[0])
        export_onnx(compile_to_plain(teacher), files[1])
        for width, file in zip(WIDTHS, files[2:], strict=True):
            export_onnx(shrink(teacher, width=width), file)
        measured = benchmark(files, size=SIZE, threads=1, repeats=7)
    dots = []
    for name, m in zip(names, measured, strict=True):
        assert m.cost is not None and m.macs is not None and m.score is not None and m.memory is not None
        lower, upper = m.quartiles
        print(
            f"{name:22} {m.parameters or 0:9,} parameters {m.macs / 1e9:6.1f} G {m.median * 1e3:8,.0f} ms "
            f"({lower * 1e3:,.0f} to {upper * 1e3:,.0f}) {m.ratio:5.2f} {m.memory.bytes / 2**20:6.1f} MiB "
            f"{(m.feature_maps or 0) / 2**20:6.1f} MiB {m.score.psnr:.3f} dB"
        )
        dots.append(Dot(name, m.median, m.score.psnr, m.memory.bytes))
    out.write_text(draw_scatter_svg(dots, f"{TEACHER.name}, {SIZE[0]}x{SIZE[1]} input, ONNX Runtime on one thread"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
