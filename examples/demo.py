"""The main jobs, on what ships: a trained teacher and photographs -> plain network, student -> ONNX -> pictures.

    python examples/demo.py [FOLDER]

Writes plain.onnx, its certificate, student.onnx and PNGs to FOLDER (default demo-output) and prints what it measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from memsr_compiler import check_certificate, check_equivalence, compile_to_plain, export_onnx, load_teacher, shrink
from memsr_compiler.analysis.cost import cost_of_graph
from memsr_compiler.arithmetic import join_arithmetics, name_arithmetic
from memsr_compiler.commands.interface.output import Talk, widths_text
from memsr_compiler.images.files import sample_photographs, to_image, to_tensor, write_image
from memsr_compiler.images.metrics import psnr
from memsr_compiler.images.resize import resize
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.torch_helpers import one_thread
from memsr_compiler.trace.trace import trace

HERE = Path(__file__).parent
TEACHER = HERE / "edsr_8x32_x2.pt"
WIDTH = 24  # of the student: three quarters of the channels that the teacher's own convolutions have
SAMPLES, REFIT = 24, 60  # fewer crops and steps than shrink takes by itself, for a demo that ends soon

Network = Callable[[torch.Tensor], torch.Tensor]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    say = Console(highlight=False, soft_wrap=True)
    teacher = load_teacher(TEACHER)

    start = time.perf_counter()
    net = compile_to_plain(teacher)
    export_onnx(net, folder / "plain.onnx")
    say.print(f"converted {TEACHER.name} in {time.perf_counter() - start:.1f} s; {net.info.guarantee}")

    check_certificate(teacher, folder / "plain.onnx")
    exact = check_equivalence(teacher, net).require()
    say.print(f"certificate checked; deviation on probes {exact.deviation:.1e} (bound {exact.bound:.1e})")
    say.print(f"  ({exact.arithmetic})")

    start = time.perf_counter()
    with one_thread(), Talk().progress() as step:  # one: others may be at work here too
        student = shrink(teacher, width=WIDTH, samples=SAMPLES, refit=REFIT, on_step=step)
    export_onnx(student, folder / "student.onnx")
    say.print(f"derived a student of {WIDTH} channels in {time.perf_counter() - start:.1f} s, without training")

    networks = {name: OrtNetwork(folder / f"{name}.onnx") for name in ("plain", "student")}
    scores, worst = upscale_photographs({"teacher": teacher, **networks}, folder)
    assert net.report is not None and student.report is not None
    rows = {"teacher": cost_of_graph(trace(teacher).graph), "plain": net.report.cost, "student": student.report.cost}
    table = Table(title="On the sample photographs, 480x270 input for the costs", title_justify="left", box=None)
    for column in ("", "parameters", "multiply-adds", "feature maps", "PSNR-Y"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("bicubic", "", "", "", f"{np.mean(scores['bicubic']):.3f} dB")
    for name, cost in rows.items():
        assert cost is not None
        macs = cost.macs_per_pixel * 480 * 270 / 1e9
        memory = cost.memory(270, 480) / 2**20
        score = f"{np.mean(scores[name]):.3f} dB"
        table.add_row(name, f"{cost.parameters / 1e3:,.0f} K", f"{macs:.1f} G", f"{memory:.1f} MiB", score)
    say.print(table)
    say.print(f"widths: plain {widths_text(net.widths)}")
    say.print(f"        student {widths_text(student.widths)}")
    arithmetics = {"teacher": name_arithmetic("float32", "torch"), **{n: o.arithmetic for n, o in networks.items()}}
    say.print(f"computed in: {join_arithmetics(arithmetics)}")
    say.print(f"largest difference between teacher and ONNX Runtime, both float32: {worst:.1e}")
    say.print(f"pictures in {folder}: low, teacher, plain, student (enlarged), high")


def upscale_photographs(networks: dict[str, Network], folder: Path) -> tuple[dict[str, list[float]], float]:
    """PSNR-Y of bicubic and of each network for each photograph; the largest difference of plain to teacher."""
    scores: dict[str, list[float]] = {name: [] for name in ("bicubic", *networks)}
    worst = 0.0
    photographs = sample_photographs(scale=2)
    with Talk().progress(len(photographs)) as step:
        for i, high in enumerate(photographs):
            step(f"upscaling photograph {i + 1}")
            low = resize(high, 0.5)
            with torch.no_grad():
                outputs = {name: network(to_tensor(low)) for name, network in networks.items()}
            worst = max(worst, float((outputs["teacher"] - outputs["plain"]).abs().max()))
            scores["bicubic"].append(psnr(resize(low, 2, rounding=False) / 255, high, scale=2))
            write_image(folder / f"{i}_low.png", low)
            write_image(folder / f"{i}_high.png", high)
            for name, output in outputs.items():
                scores[name].append(psnr(to_image(output), high, scale=2))
                write_image(folder / f"{i}_{name}.png", to_image(output))
    return scores, worst


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo-output"), help="where results go")
    main(parser.parse_args().folder)
