"""MemSR's Table 4: parameters and multiply-adds at an output of 1920x1080, and what memory really is.

    python benchmarks/table4.py                  # counts, of shapes alone
    python benchmarks/table4.py STUDENT ...      # with plain networks from files: Plain-X, of `shrink --theta`
    python benchmarks/table4.py --memory         # and the process's peak for each network, one thread

Random weights; networks as their papers have them, RFDN as in its challenge.  FSRCNN is on RGB, as the table counts
it; of SRCNN that is not known, so both are here, on the enlarged image.  "true" is every parameter, and the multiply-
adds of convolutions, linear layers and the products of matrices within attention (`counted_run`).  "as publ." is, of
parameters, what the network's own paper gives, and of plain networks what MemSR counts: the 33 inner convolutions
alone; of multiply-adds the convention of MemSR's table, that of thop, the counter in its authors' requirements
(`count_published`): layers as modules, with one for each bias and each leaky ReLU, transposed convolutions at their
output, and not the products within attention, which are no module.  SwinIR works on whole windows, 960x544 and
480x272, and that is counted.  The paper's numbers stand where we know them, "?" where not.

Memory is the peak of a process beyond network and image, the result included: `memory.peak_memory`, in ONNX Runtime;
SwinIR in torch, as its windows are numbered by the size of the image.  EDSR with one convolution for a tail is what the
paper's own teachers are: most of what a plain network saves beside EDSR-baseline is the tail's.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import machine
from networks import plain
from torch import nn

from memsr_compiler import compile_to_plain, export_onnx
from memsr_compiler.analysis.counted_run import count_multiply_adds, count_published
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.evaluation.memory import peak_memory
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime.open import NetworkFile
from memsr_compiler.runtime.room import least_memory
from memsr_compiler.teachers.families.carn import CARN
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.fsrcnn import FSRCNN
from memsr_compiler.teachers.families.idn import IDN
from memsr_compiler.teachers.families.imdn import IMDN
from memsr_compiler.teachers.families.latticenet import LatticeNet
from memsr_compiler.teachers.families.rfdn import RFDN
from memsr_compiler.teachers.families.srcnn import SRCNN
from memsr_compiler.teachers.families.swinir import SwinIR
from memsr_compiler.teachers.remarks import attach_remarks

WIDTH, HEIGHT = 1920, 1080
SCALES = (2, 3, 4)
NEAR = 0.01
"""Of the paper's number: what is further off gets a reason."""


@dataclass(frozen=True)
class Row:
    """A network of the table.

    build      makes it for a scale
    colours    channels of the image that it takes
    enlarged   whether it is given the image enlarged already
    published  parameters in thousands that its own paper gives, for SCALES
    """

    name: str
    build: Callable[[int], nn.Module]
    colours: int = 3
    enlarged: bool = False
    published: tuple[int, ...] = ()

    def shape(self, scale: int) -> tuple[int, int, int]:
        """Channels, height and width of the image for an output of 1920x1080."""
        factor = 1 if self.enlarged else scale
        return self.colours, HEIGHT // factor, WIDTH // factor


ROWS = (
    Row("SRCNN on Y", lambda scale: SRCNN(), colours=1, enlarged=True, published=(57, 57, 57)),
    Row("SRCNN on RGB", lambda scale: SRCNN(colours=3), enlarged=True),
    Row("FSRCNN", lambda scale: FSRCNN(scale=scale, colours=3)),
    Row("IDN", lambda scale: IDN(scale=scale), published=(553, 553, 553)),
    Row("EDSR-baseline", lambda scale: EDSR(scale=scale, blocks=16, channels=64)),
    Row("EDSR, one-conv tail", lambda scale: EDSR(scale=scale, blocks=16, channels=64, tail="conv")),
    Row("LatticeNet", lambda scale: LatticeNet(scale=scale), published=(756, 765, 777)),
    Row("RFDN", lambda scale: RFDN(scale=scale)),
    Row("IMDN", lambda scale: IMDN(scale=scale), published=(694, 703, 715)),
    Row("CARN", lambda scale: CARN(scale=scale), published=(1592, 1592, 1592)),
    Row("SwinIR-S", lambda scale: SwinIR(scale=scale), published=(878, 886, 897)),
    Row("Plain-S", lambda scale: plain(scale, layers=19)),
    Row("Plain-M", lambda scale: plain(scale)),
    Row("Plain-L", lambda scale: plain(scale, channels=100)),
)

PAPER = {("EDSR-baseline", 2): 712.8, ("EDSR-baseline", 4): 257.5, ("Plain-M", 2): 636.3, ("Plain-M", 4): 161.8}
PAPER |= {("IMDN", 2): 359, ("FSRCNN", 2): 34}
"""Giga-multiply-adds that the paper's table gives, by network and scale."""

NOTES = (
    "Bicubic: interpolation, no parameters; it is not counted",
    "IDN: its paper's parameters are on Y;  CARN: its paper's are one network's, with upsamplers for x2, x3, x4",
    "SwinIR-S: its paper's parameters are less by one 3x3 convolution of 60 channels (32,460), which its files have",
    "?: not known to us; the difference is to the paper's multiply-adds, by its convention",
)


def counts(scale: int, students: Sequence[Row]) -> None:
    columns = f"{'parameters':>11} {'as publ.':>10} {'multiply-adds':>14} {'as publ.':>11} {'the paper':>10} {'off':>7}"
    print(f"\nx{scale}, input {WIDTH // scale}x{HEIGHT // scale}\n{'':24} {columns}")
    for row in (*ROWS, *students):
        print(line(row, scale), flush=True)


def line(row: Row, scale: int) -> str:
    """The row's numbers."""
    net = row.build(scale).eval()
    shape = (1, *row.shape(scale))
    parameters = sum(p.numel() for p in net.parameters())
    inner = inner_parameters(net) if isinstance(net, PlainNet) else None
    thousands = f"{inner / 1e3:,.0f}" if inner else f"{row.published[scale - 2]:,}" if row.published else "?"
    true, published = (count(net, shape) / 1e9 for count in (count_multiply_adds, count_published))
    paper = PAPER.get((row.name, scale))
    known, off = ("?", "") if paper is None else (f"{paper:g} G", difference(published, paper))
    numbers = f"{parameters / 1e3:9,.0f} K {thousands:>8} K {true:12,.1f} G {published:9,.1f} G {known:>10} {off:>7}"
    return f"{row.name:24} {numbers}".rstrip()


def difference(ours: float, paper: float) -> str:
    """How far ours is from the paper's number, which is rounded: none where both are one number at its digits."""
    digits = 0 if paper == int(paper) else 1
    if round(ours, digits) == paper:
        return "0"
    off = ours / paper - 1
    return f"{off:+.1%}" + ("" if abs(off) <= NEAR else " !")


def inner_parameters(net: PlainNet) -> int:
    """Parameters of all layers but the first and the last."""
    return sum(p.numel() for layer in list(net)[1:-1] for p in layer.parameters())


def memory(scale: int, students: Sequence[Row]) -> None:
    print(f"\nx{scale}, input {WIDTH // scale}x{HEIGHT // scale}: peak memory of the process; live results in theory")

    def convert(scale: int) -> nn.Module:
        return compile_to_plain(EDSR(scale=scale, blocks=16, channels=64, tail="conv").eval())

    for row in (*ROWS, Row("EDSR, one-conv tail, converted", convert), *students):
        net = row.build(scale).eval()
        theory = least_memory(net, (1, *row.shape(scale)))
        assert theory is not None, "these networks look at no values"
        with tempfile.TemporaryDirectory() as folder:
            file = write(net, Path(folder), row.colours)
            try:
                peak = peak_memory(file, row.shape(scale), threads=1)
            except MemsrError as error:
                print(f"{row.name:32} {error}", flush=True)
                continue
        assert peak is not None
        least = "at least " if peak.at_least else ""
        engine = "torch" if file.path.suffix == ".pt" else "ONNX Runtime"
        print(f"{row.name:32} {least}{peak.bytes / 2**20:8,.1f} MiB {theory / 2**20:8,.1f} MiB  {engine}", flush=True)


def write(net: nn.Module, folder: Path, colours: int) -> NetworkFile:
    """Write a network so that it can be measured in a process of its own."""
    if not isinstance(net, SwinIR):
        write_onnx(net, folder / "net.onnx", colours)
        return NetworkFile(folder / "net.onnx")
    state = net.state_dict()
    attach_remarks(state, "swinir", {}, (0.0, 1.0))
    torch.save(state, folder / "net.pt")
    return NetworkFile(folder / "net.pt", probe=False)


def write_onnx(net: nn.Module, path: Path, colours: int = 3) -> None:
    """Write a network as ONNX: plain ones by our exporter, the others by torch's."""
    if isinstance(net, PlainNet):
        export_onnx(net, path)
        return
    free = {2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the older one, and says so; the newer needs onnxscript
        torch.onnx.export(
            net,
            (torch.rand(1, colours, 32, 32),),
            str(path),
            input_names=["image"],
            output_names=["upscaled"],
            dynamic_axes={"image": free, "upscaled": free},
            dynamo=False,
        )


def student_row(path: Path) -> Row:
    """The row of a plain network in a file."""
    net = load_plain(path, require_certificate=False)
    if net.info.scale not in SCALES or net.info.channels != 3:
        raise InvalidInput(f"{path}: enlarges {net.info.channels} channels by {net.info.scale}; want RGB by 2, 3 or 4")
    return Row(path.stem, lambda scale: net)


def main(arguments: Sequence[str]) -> None:
    students: dict[int, list[Row]] = {scale: [] for scale in SCALES}
    for path in (Path(argument) for argument in arguments if argument != "--memory"):
        row = student_row(path)
        students[load_plain(path, require_certificate=False).info.scale].append(row)
    print(machine())
    for scale in SCALES:
        counts(scale, students[scale])
    print("\n" + "\n".join(NOTES))
    if "--memory" in arguments:
        for scale in SCALES:
            memory(scale, students[scale])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MemsrError as error:
        sys.exit(f"table4: {error}")
