"""Networks to train: MemSR's own by name (Sec. 4.1), and every known family."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import nn

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.quantities import say_count
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.registry import find_family
from memsr_compiler.teachers.own_code import import_factory
from memsr_compiler.teachers.state_dict import call
from memsr_compiler.version import VERSION

TEACHERS = {"teacher-s": (8, 64), "teacher-m": (16, 64), "teacher-l": (16, 100)}
"""Residual blocks and channels; EDSR's blocks, one convolution before the pixel shuffle (MemSR Sec. 4.1)."""

PLAIN = {"plain-s": (19, 64), "plain-m": (35, 64), "plain-l": (35, 100)}
"""Layers and channels.  Plain-X is what `shrink --theta` makes of Teacher-M; any other is "plain", with its shape."""

SIDE = 48  # of the image that a new network is tried on; attention of RFDN's kind needs some pixels


def new_network(
    arch: str, arguments: Mapping[str, object], *, scale: int, seed: int
) -> tuple[nn.Module, tuple[float, float]]:
    """A network for RGB with new weights, and the range of values it takes.

    arch       of TEACHERS or PLAIN, "plain", a family, or package.module:factory, given the scale if it takes one
    arguments  of the family or factory, blocks=16 say; of "plain" layers, width and image_skip; of PLAIN none

    Raises InvalidInput for an unknown name, arguments that it does not take, and what does not enlarge RGB by `scale`.
    """
    torch.manual_seed(seed)
    if arch in PLAIN:
        if arguments:
            layers, channels = PLAIN[arch]
            raise InvalidInput(
                f"--arch {arch}: is {say_count(layers, 'layer')} of {say_count(channels, 'channel')}, and "
                "takes no arguments"
            )
        return new_plain(*PLAIN[arch], scale), (0.0, 1.0)
    if arch == "plain":
        if set(arguments) != {"layers", "width", "image_skip"}:
            raise InvalidInput(
                "--arch plain: give --layers and --width; it takes no --blocks, --channels or --arch-args"
            )
        return call(partial(new_plain, scale=scale), arguments, arch), (0.0, 1.0)
    build, settings, input_range = _builder(arch, arguments, scale)
    network = call(build, settings, arch)
    _require_enlarges(network, arch, scale)
    return network, input_range


def family_of(arch: str) -> str:
    """The family that a name of `new_network` belongs to; the name itself for code that is none's."""
    return "edsr" if arch in TEACHERS else arch


def _builder(
    arch: str, arguments: Mapping[str, object], scale: int
) -> tuple[Callable[..., object], dict[str, object], tuple[float, float]]:
    if arch in TEACHERS:
        blocks, channels = TEACHERS[arch]
        return EDSR, {"scale": scale, "blocks": blocks, "channels": channels, "tail": "conv", **arguments}, (0.0, 1.0)
    if ":" in arch:
        factory = import_factory(arch)
        default = {"scale": scale} if "scale" in inspect.signature(factory).parameters else {}
        return factory, {**default, **arguments}, (0.0, 1.0)
    family = find_family(arch, also=(*TEACHERS, *PLAIN, "plain"))
    if "scale" not in inspect.signature(family.build).parameters:
        raise InvalidInput(
            f"--arch {arch}: gives images of the size that it is given; train takes networks that enlarge"
        )
    return family.build, {"scale": scale, **arguments}, family.input_range


def _require_enlarges(network: nn.Module, arch: str, scale: int) -> None:
    """Raise InvalidInput unless one small image is enlarged: a mistake is told before anything is read or written."""
    try:
        with torch.no_grad():
            network.eval()  # which one of somebody's own need not return
            output = network(torch.zeros(1, 3, SIDE, SIDE))
    except Exception as error:  # a network may raise anything
        reason = first_line(error)
        raise InvalidInput(f"--arch {arch}: does not take RGB images ({reason}); see --arch-args") from None
    if not isinstance(output, torch.Tensor) or output.shape != (1, 3, SIDE * scale, SIDE * scale):
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise InvalidInput(
            f"--arch {arch}: makes {shape} of {(1, 3, SIDE, SIDE)}, which is not RGB enlarged by {scale}"
        )


def new_plain(layers: int, width: int, scale: int, image_skip: Literal["nearest", ""] = "") -> PlainNet:
    """A plain network of equal widths, by He et al. 2015 (normal), biases zero.  image_skip: of PlainInfo.

    Where the image is outside, the last kernel is zero: the network begins as the enlarged image.  By He's it would
    begin 15 dB below that, and the first steps, which only make it smaller, would end all its ReLUs.
    """
    shapes = [(3, width), *[(width, width)] * (layers - 2), (width, 3 * scale**2)]
    stack = []
    for i, (c_in, c_out) in enumerate(shapes):
        conv = nn.Conv2d(c_in, c_out, 3)
        assert conv.bias is not None
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)
        last = i == layers - 1
        if last and image_skip:
            nn.init.zeros_(conv.weight)
        stack.append(PlainLayer(conv.weight.detach(), conv.bias.detach(), relu=not last, shuffle=scale if last else 1))
    info = PlainInfo(
        scale=scale,
        channels=3,
        input_range=(0.0, 1.0),
        carry="none",
        guarantee="trained as it is, equivalent to no other network",
        teacher_sha256="",
        receptive_field=layers,
        image_skip=image_skip,
        tool=f"memsr_compiler {VERSION}",
    )
    return PlainNet(stack, info)
