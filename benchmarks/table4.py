"""MemSR's Table 4: parameters and multiply-adds at an output of 1920x1080, and what memory really is.

    python benchmarks/table4.py            # counts, of shapes alone
    python benchmarks/table4.py --memory   # and the process's peak for each network, in ONNX Runtime, one thread

Random weights; networks as their papers have them, FSRCNN on RGB as the table counts it.  "true" is every parameter and
the multiply-adds of all convolutions; "as published" is the paper's convention (`cost.published_macs`; of plain
networks only the 33 inner convolutions' parameters).  IMDN's attention, which is not read by the compiler, is 3,072
multiply-adds for a whole image; its parameters are counted, and networks are run with it.

Memory is the peak of a process beyond network and image, the result included: `memory.peak_memory`.  EDSR with one
convolution for a tail is what the paper's own teachers are: most of what a plain network saves beside EDSR-baseline is
the tail's.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import torch
from machine import machine
from networks import plain
from torch import nn

from memsr_compiler import compile_to_plain, export_onnx
from memsr_compiler.analysis.cost import cost_of_graph, published_macs
from memsr_compiler.evaluation.memory import peak_memory
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime.open import NetworkFile
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.fsrcnn import FSRCNN
from memsr_compiler.teachers.families.imdn import IMDN
from memsr_compiler.trace.trace import trace

PIXELS = 1920 * 1080
PAPER = {("EDSR-baseline", 2): 712.8, ("EDSR-baseline", 4): 257.5, ("Plain-M", 2): 636.3, ("Plain-M", 4): 161.8}
PAPER |= {("IMDN", 2): 359, ("FSRCNN", 2): 34}


def networks(scale: int) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    by_name = {
        "EDSR-baseline": EDSR(scale=scale, blocks=16, channels=64),
        "EDSR, one-conv tail": EDSR(scale=scale, blocks=16, channels=64, tail="conv"),
        "Plain-M": plain(scale),
        "Plain-S": plain(scale, layers=19),
        "FSRCNN": FSRCNN(scale=scale, colours=3),
        "IMDN": IMDN(scale=scale),
    }
    return {name: net.eval() for name, net in by_name.items()}


def counts(scale: int) -> None:
    columns = f"{'parameters':>11} {'as publ.':>10} {'multiply-adds':>14} {'as publ.':>10} {'the paper':>10}"
    print(f"\nx{scale}, input {1920 // scale}x{1080 // scale}\n{'':20} {columns}")
    for name, net in networks(scale).items():
        parameters = sum(p.numel() for p in net.parameters())
        inner = inner_parameters(net) if isinstance(net, PlainNet) else parameters
        graph = trace(IMDN(scale=scale, attention=False).eval() if name == "IMDN" else net).graph
        area = PIXELS // scale**2
        true, published = (n * area / 1e9 for n in (cost_of_graph(graph).macs_per_pixel, published_macs(graph)))
        paper = PAPER.get((name, scale))
        last = f"{paper:g} G" if paper else ""
        print(
            f"{name:20} {parameters / 1e3:9,.0f} K {inner / 1e3:8,.0f} K {true:12,.1f} G {published:8,.1f} G {last:>10}"
        )


def inner_parameters(net: PlainNet) -> int:
    """Parameters of all layers but the first and the last."""
    return sum(p.numel() for layer in list(net)[1:-1] for p in layer.parameters())


def memory(scale: int) -> None:
    width, height = 1920 // scale, 1080 // scale
    print(f"\nx{scale}, input {width}x{height}: peak memory of the process; live feature maps in theory")
    teacher = EDSR(scale=scale, blocks=16, channels=64, tail="conv").eval()
    measured = networks(scale) | {"EDSR, one-conv tail, converted": compile_to_plain(teacher)}
    for name, net in measured.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "net.onnx")
            write_onnx(net, path)
            peak = peak_memory(NetworkFile(path), (3, height, width), threads=1)
        assert peak is not None
        graph = trace(IMDN(scale=scale, attention=False).eval() if name == "IMDN" else net).graph
        theory = cost_of_graph(graph).memory(height, width)
        least = "at least " if peak.at_least else ""
        print(f"{name:32} {least}{peak.bytes / 2**20:8,.1f} MiB {theory / 2**20:8,.1f} MiB", flush=True)


def write_onnx(net: nn.Module, path: Path) -> None:
    """Write a network as ONNX: plain ones by our exporter, the others by torch's."""
    if isinstance(net, PlainNet):
        export_onnx(net, path)
        return
    free = {2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the older one, and says so; the newer needs onnxscript
        torch.onnx.export(
            net,
            (torch.rand(1, 3, 32, 32),),
            str(path),
            input_names=["image"],
            output_names=["upscaled"],
            dynamic_axes={"image": free, "upscaled": free},
            dynamo=False,
        )


def main() -> None:
    print(machine())
    for scale in (2, 4):
        counts(scale)
    if "--memory" in sys.argv:
        for scale in (2, 4):
            memory(scale)


if __name__ == "__main__":
    main()
