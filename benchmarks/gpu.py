"""Networks on one NVIDIA GPU: latency and memory of teachers, their plain networks and students, float32 and float16.

    python benchmarks/gpu.py   # the tables of docs/results/gpu.md

x2, an image of 960x540 to 1920x1080, batch 1.  torch: medians of 30 interleaved runs between synchronisations, and
`torch.cuda.max_memory_allocated` beyond weights and image, the result included; cuDNN chooses its algorithms by trying
(`torch.backends.cudnn.benchmark`), float32 convolutions use TF32, torch's default.  ONNX Runtime, where it has CUDA:
the same file by `OrtNetwork` with image and result bound to the GPU, and what the device has less of after a run
(`evaluation.memory.peak_memory`).  Then how far the results in each engine and precision are from float64 on the CPU.

Weights of the shipped networks are trained, those of the paper's networks (Teacher-M, Plain-M) and of EDSR-baseline as
initialised: time and memory do not depend on them.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch
from machine import machine
from networks import plain
from torch import Tensor, nn

from memsr_compiler import compile_to_plain, export_onnx, load_model, load_teacher
from memsr_compiler.evaluation.bench import time_in_turns
from memsr_compiler.evaluation.memory import peak_memory
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime.open import NetworkFile
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.teachers.families.edsr import EDSR

EXAMPLES = Path(__file__).parent.parent / "examples"
SIZE = (540, 960)
RUNS = 30
IN_ONNX = ("its plain network", "student, 32 channels", "student, 16 channels", "Plain-M, 35x64")
DTYPES = (torch.float32, torch.float16)


def networks() -> dict[str, nn.Module]:
    """Name -> network, the one that times are compared with first in each group."""
    torch.manual_seed(0)
    shipped = load_teacher(EXAMPLES / "edsr_8x32_x2.pt")
    teacher_m = EDSR(scale=2, blocks=16, channels=64, tail="conv")
    by_name: dict[str, nn.Module] = {
        "shipped teacher, EDSR 8x32": shipped,
        "its plain network": compile_to_plain(shipped),
        "student, x2-small": load_model("x2-small"),
        "EDSR-baseline, 16x64": EDSR(scale=2, blocks=16, channels=64),
        "Teacher-M, one-conv tail": teacher_m,
        "its plain network ": compile_to_plain(teacher_m),
        "Plain-M, 35x64": plain(2),
        "Plain-S, 19x64": plain(2, layers=19),
    }
    return {name: network.eval() for name, network in by_name.items()}


@dataclass(frozen=True)
class Row:
    """A network's time, the median in milliseconds, and its memory in bytes."""

    time: float
    memory: int | None


@torch.no_grad()
def in_torch(nets: dict[str, nn.Module], dtype: torch.dtype) -> dict[str, Row]:
    image = torch.rand(1, 3, *SIZE, device="cuda", dtype=dtype)
    placed = {name: copy.deepcopy(net).to("cuda", dtype) for name, net in nets.items()}

    def runner(net: nn.Module) -> Callable[[], object]:
        def run() -> None:
            net(image)
            torch.cuda.synchronize()

        return run

    memory = {}
    for name, net in placed.items():
        net(image)  # cuDNN tries its algorithms now, some of which want much memory
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        net(image)
        memory[name] = torch.cuda.max_memory_allocated() - before
    times = time_in_turns([runner(net) for net in placed.values()], RUNS)
    return {name: Row(statistics.median(t) * 1e3, memory[name]) for name, t in zip(placed, times, strict=True)}


def in_onnxruntime(nets: dict[str, nn.Module], dtype: torch.dtype, folder: Path) -> dict[str, Row]:
    image = torch.rand(1, 3, *SIZE)
    files = {}
    for i, (name, net) in enumerate(nets.items()):
        if isinstance(net, PlainNet) and name in IN_ONNX:
            files[name] = folder / f"{i}-{name_of(dtype)}.onnx"
            export_onnx(net, files[name], dtype=name_of(dtype))  # type: ignore[arg-type]
    runs = [OrtNetwork(file, provider="cuda").prepare(image) for file in files.values()]
    times = time_in_turns(runs, RUNS)
    rows = {}
    for (name, file), t in zip(files.items(), times, strict=True):
        taken = peak_memory(NetworkFile(file), (3, *SIZE), provider="cuda")
        rows[name] = Row(statistics.median(t) * 1e3, None if taken is None else taken.bytes)
    return rows


@torch.no_grad()
def errors(net: PlainNet, folder: Path, image: Tensor) -> dict[str, float]:
    """Largest difference to float64 on the CPU, in steps of 1/255."""
    want = copy.deepcopy(net).double()(image.double())
    differences = {}
    for dtype in DTYPES:
        got = copy.deepcopy(net).to("cuda", dtype)(image.to("cuda", dtype)).cpu()
        differences[f"torch {name_of(dtype)}"] = float((got.double() - want).abs().max()) * 255
        if has_cuda():
            file = folder / f"error-{name_of(dtype)}.onnx"
            export_onnx(net, file, dtype=name_of(dtype))  # type: ignore[arg-type]
            got = OrtNetwork(file, provider="cuda")(image)
            differences[f"ONNX Runtime {name_of(dtype)}"] = float((got.double() - want).abs().max()) * 255
    return differences


def name_of(dtype: torch.dtype) -> str:
    """The dtype's name as ONNX and `export_onnx` have it."""
    return str(dtype).removeprefix("torch.")


def has_cuda() -> bool:
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def table(nets: dict[str, nn.Module], results: dict[str, dict[str, Row]]) -> None:
    print("| |" + "".join(f" {kind} | memory |" for kind in results))
    print("|---|" + "---|" * (2 * len(results)))
    for name in nets:
        cells = []
        for rows in results.values():
            row = rows.get(name)
            cells.append("" if row is None else f"{row.time:.2f} ms")
            cells.append("" if row is None or row.memory is None else f"{row.memory / 2**20:,.0f} MiB")
        print(f"| {name.strip()} | " + " | ".join(cells) + " |")


def main() -> None:
    torch.backends.cudnn.benchmark = True
    nets = networks()
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    versions = f"cuDNN {cudnn}, ONNX Runtime {onnxruntime.__version__}"
    print("# On a GPU\n")
    print(f"`python benchmarks/gpu.py` on {torch.cuda.get_device_name()}; {machine()}, {versions}.\n")
    print(f"x2, {SIZE[1]}x{SIZE[0]} to {2 * SIZE[1]}x{2 * SIZE[0]}, one image: milliseconds, and memory beyond weights")
    print("and image.\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {f"torch, {name_of(d)}": in_torch(nets, d) for d in DTYPES}
        if has_cuda():
            results |= {f"ONNX Runtime, {name_of(d)}": in_onnxruntime(nets, d, folder) for d in DTYPES}
        table(nets, results)
        print("\nLargest difference to float64 on the CPU, of 255, on a 240x135 image of noise:\n")
        for label, net in nets.items():
            if isinstance(net, PlainNet) and label.startswith(("its plain network", "student")):
                image = torch.rand(1, 3, 135, 240)
                parts = ", ".join(f"{how} {error:.3f}" for how, error in errors(net, folder, image).items())
                print(f"- {label.strip()}: {parts}")


if __name__ == "__main__":
    main()
