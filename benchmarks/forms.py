"""The ReLU form and the PReLU form beside the teacher that both are: what they cost, in ONNX Runtime, OpenVINO, LiteRT.

    python benchmarks/forms.py [TEACHER...]

TEACHER   files; default: the shipped EDSR, and an ECBSR M4C32 x4 with random weights

CPU seconds of one thread at 240x135, the median of 9 rounds in which each network runs once, as a ratio to the
teacher's in ONNX Runtime (in OpenVINO to the teacher's there; LiteRT does not read the teacher: to ONNX Runtime's).
Behind it, the largest difference from the teacher on that image, of 255 grey levels.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from engine import Image, open_network
from machine import machine

from memsr_compiler import compile_to_plain, export_onnx, read_teacher
from memsr_compiler.analysis.cost import Cost, cost_of_graph
from memsr_compiler.lowering.compile import Report
from memsr_compiler.plain.tflite_model import export_tflite
from memsr_compiler.runtime.litert import LiteRTNetwork
from memsr_compiler.teachers.families.ecbsr import ECBSR
from memsr_compiler.teachers.teacher import Teacher, as_teacher
from memsr_compiler.trace.trace import trace

HERE = Path(__file__).parent
SIZE = (135, 240)
ROUNDS = 9
FORMS = {"ReLU": {"activation": "relu"}, "PReLU": {"activation": "prelu"}}
OUTSIDE = {f"{name}, image outside": {**options, "image_skip": "outside"} for name, options in FORMS.items()}

Runner = Callable[[Image], Image]


def ecbsr() -> Teacher:
    """ECBSR M4C32 x4, random, slopes as they are after training: one a channel, from 0.05 to 0.4."""
    torch.manual_seed(0)
    network = ECBSR(scale=4, blocks=4, channels=32).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, 0.05, 0.4)
    return as_teacher(network)


def write_teacher(teacher: Teacher, path: Path) -> None:
    """The teacher as ONNX, by torch's own exporter."""
    module = teacher.module.eval()
    image = torch.rand(1, trace(module).graph.input.channels, 16, 16)
    free = {"image": {2: "height", 3: "width"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, which is to be replaced by one that needs another package
        torch.onnx.export(
            module,
            (image,),
            str(path),
            input_names=["image"],
            output_names=["upscaled"],
            dynamic_axes=free,
            dynamo=False,
        )


def open_all(teacher: Teacher, folder: Path, forms: dict[str, dict[str, str]]) -> dict[tuple[str, str], Runner]:
    """By form and engine; prints what each costs."""
    runners: dict[tuple[str, str], Runner] = {}
    path = folder / "teacher.onnx"
    write_teacher(teacher, path)
    print(f"  teacher: {words(cost_of_graph(trace(teacher.module).graph))}")
    for engine in ("onnxruntime", "openvino"):
        runners["teacher", engine] = open_network(engine, path)
    for i, (name, options) in enumerate(forms.items()):
        net = compile_to_plain(teacher, **options)  # type: ignore[arg-type]
        assert isinstance(net.report, Report)
        print(f"  {name}: {words(net.report.cost)}, widths {net.widths}")
        path, lite = folder / f"{i}.onnx", folder / f"{i}.tflite"
        export_onnx(net, path)
        export_tflite(net, lite, size=SIZE)
        for engine in ("onnxruntime", "openvino"):
            runners[name, engine] = open_network(engine, path)
        network = LiteRTNetwork(lite, threads=1)
        runners[name, "litert"] = lambda x, network=network: network(torch.from_numpy(x)).numpy()  # type: ignore[misc]
    return runners


def words(cost: Cost) -> str:
    """Parameters, multiply-adds and feature maps at this size."""
    height, width = SIZE
    macs, memory = cost.macs_per_pixel * height * width / 1e9, cost.memory(height, width) / 2**20
    return f"{cost.parameters:,} parameters, {macs:.2f} G multiply-adds, {memory:.1f} MiB"


def measure(runners: dict[tuple[str, str], Runner], image: Image) -> dict[tuple[str, str], float]:
    """Median CPU seconds of each, all taking turns."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in runners}
    for _ in range(ROUNDS):
        for key, run in runners.items():
            start = time.process_time()
            run(image)
            seconds[key].append(time.process_time() - start)
    return {key: median(values) for key, values in seconds.items()}


def compare(name: str, teacher: Teacher) -> None:
    low, high = teacher.input_range
    graph = trace(teacher.module, input_range=teacher.input_range).graph
    skips = isinstance(teacher.module, ECBSR)
    noise = np.random.default_rng(0).random((1, graph.input.channels, *SIZE), dtype=np.float32)
    image: Image = noise * np.float32(high - low) + np.float32(low)
    print(name)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        expected = teacher.module(torch.from_numpy(image)).numpy()
        runners = open_all(teacher, Path(folder), FORMS | OUTSIDE if skips else FORMS)
        seconds = measure(runners, image)
        for (form, engine), run in runners.items():
            own = seconds["teacher", engine if engine != "litert" else "onnxruntime"]
            off = float(np.abs(run(image) - expected).max()) / (high - low) * 255
            print(f"  {engine:12} {form:22} {seconds[form, engine] / own:5.2f}  {off:.1e}")


def main(paths: list[str]) -> None:
    torch.set_num_threads(1)
    print(machine())
    for path in paths or [str(HERE.parent / "examples" / "edsr_8x32_x2.pt")]:
        compare(Path(path).name, read_teacher(path))
    if not paths:
        compare("ECBSR M4C32 x4", ecbsr())


if __name__ == "__main__":
    main(sys.argv[1:])
