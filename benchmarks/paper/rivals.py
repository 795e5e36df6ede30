"""The networks of MemSR's Table 4 with random weights: what they count, and how they become files.

As their papers have them, RFDN as in its challenge.  FSRCNN is on RGB, as the table counts it; of SRCNN that is not
known, so both are here, on the enlarged image.  EDSR with one convolution for a tail is what MemSR's own teachers are:
most of what a plain network saves beside EDSR-baseline is the tail's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from networks import plain
from torch import nn

from memsr_compiler import export_onnx
from memsr_compiler.errors import InvalidInput
from memsr_compiler.models.catalogue import list_models, load_model
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime.open import NetworkFile
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
from paper.settings import Settings

SCALES = (2, 3, 4)
BASELINE = "EDSR-baseline"
SMOKE = ("SwinIR-S", "Plain-S")


@dataclass(frozen=True)
class Rival:
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

    def shape(self, scale: int, size: tuple[int, int]) -> tuple[int, int, int]:
        """Channels, height and width of the image from which it makes one of this size."""
        factor = 1 if self.enlarged else scale
        return self.colours, size[1] // factor, size[0] // factor


RIVALS = (
    Rival("SRCNN on Y", lambda scale: SRCNN(), colours=1, enlarged=True, published=(57, 57, 57)),
    Rival("SRCNN on RGB", lambda scale: SRCNN(colours=3), enlarged=True),
    Rival("FSRCNN", lambda scale: FSRCNN(scale=scale, colours=3)),
    Rival("IDN", lambda scale: IDN(scale=scale), published=(553, 553, 553)),
    Rival(BASELINE, lambda scale: EDSR(scale=scale, blocks=16, channels=64)),
    Rival("EDSR, one-conv tail", lambda scale: EDSR(scale=scale, blocks=16, channels=64, tail="conv")),
    Rival("LatticeNet", lambda scale: LatticeNet(scale=scale), published=(756, 765, 777)),
    Rival("RFDN", lambda scale: RFDN(scale=scale)),
    Rival("IMDN", lambda scale: IMDN(scale=scale), published=(694, 703, 715)),
    Rival("CARN", lambda scale: CARN(scale=scale), published=(1592, 1592, 1592)),
    Rival("SwinIR-S", lambda scale: SwinIR(scale=scale), published=(878, 886, 897)),
    Rival("Plain-S", lambda scale: plain(scale, layers=19)),
    Rival("Plain-M", lambda scale: plain(scale)),
    Rival("Plain-L", lambda scale: plain(scale, channels=100)),
)

PAPER = {(BASELINE, 2): "712.8", (BASELINE, 4): "257.5", ("Plain-M", 2): "636.3", ("Plain-M", 4): "161.8"}
PAPER |= {("IMDN", 2): "359", ("FSRCNN", 2): "34"}
"""Giga-multiply-adds that the paper's table gives, by network and scale."""

WEIGHTS: dict[tuple[str, int], tuple[str, tuple[float, float]]] = {
    **{("IMDN", scale): (f"IMDN_x{scale}.pth", (0.0, 1.0)) for scale in SCALES},
    ("RFDN", 4): ("RFDN_x4.pth", (0.0, 255.0)),
    (BASELINE, 4): ("edsr_baseline_x4.safetensors", (0.0, 255.0)),
    ("EDSR, one-conv tail", 2): ("teacher_m_x2.safetensors", (0.0, 255.0)),
}
"""Files of trained weights in the folder of models, and the range of their values, by network and scale."""


def choose_rivals(settings: Settings, scale: int) -> tuple[Rival, ...]:
    """The rivals and the students that ship, or those that are asked for.  Raises InvalidInput for other names."""
    every = {at: (*RIVALS, *_shipped(at)) for at in SCALES}
    names = dict.fromkeys(rival.name for rivals in every.values() for rival in rivals)
    for name in (name for name in settings.rows if name not in names):
        raise InvalidInput(f"--row {name}: is no network here; there are {'; '.join(names)}")
    wanted = settings.rows or (SMOKE if settings.smoke else tuple(names))
    return tuple(rival for rival in every[scale] if rival.name in wanted)


def _shipped(scale: int) -> tuple[Rival, ...]:
    """The students that ship."""

    def rival(name: str) -> Rival:
        return Rival(name, lambda scale: load_model(name))

    return tuple(rival(model.name) for model in list_models() if model.scale == scale and not model.int8)


def choose_scales(settings: Settings) -> tuple[int, ...]:
    """The scales of the tables."""
    return SCALES[:1] if settings.smoke and not settings.rows else SCALES


def count_inner_parameters(net: PlainNet) -> int:
    """Parameters of all layers but the first and the last."""
    return sum(p.numel() for layer in list(net)[1:-1] for p in layer.parameters())


def write_network(net: nn.Module, folder: Path, colours: int = 3) -> NetworkFile:
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
