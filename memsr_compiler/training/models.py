"""Networks to train: MemSR's own by name, and every known family."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from memsr_compiler.families import FAMILIES, Family, family_named
from memsr_compiler.families.edsr import EDSR
from memsr_compiler.plain import PlainLayer, PlainNet
from memsr_compiler.plain_info import PlainInfo
from memsr_compiler.statedict import call
from memsr_compiler.version import VERSION

TEACHERS = {"teacher-s": (8, 64), "teacher-m": (16, 64), "teacher-l": (16, 100)}
"""Residual blocks and channels; EDSR's blocks, one convolution before the pixel shuffle (MemSR Sec. 4.1)."""

PLAIN = {"plain-s": (19, 64), "plain-m": (35, 64), "plain-l": (35, 100)}
"""Layers and channels.  Plain-X is what `shrink --theta` makes of Teacher-M."""

NAMES = (*TEACHERS, *PLAIN, *(family.name for family in FAMILIES))


def new_network(arch: str, arguments: Mapping[str, object], *, scale: int, seed: int) -> nn.Module:
    """A network with new weights, for RGB in 0..1.

    arch       one of NAMES;   arguments   of the family, blocks=16 say; none for the named ones

    Raises InvalidInput for an unknown name, and arguments that it does not take.
    """
    torch.manual_seed(seed)
    if arch in TEACHERS:
        blocks, channels = TEACHERS[arch]
        return EDSR(**{"scale": scale, "blocks": blocks, "channels": channels, "tail": "conv", **arguments})  # type: ignore[arg-type]
    if arch in PLAIN:
        layers, channels = PLAIN[arch]
        return new_plain(layers, channels, scale)
    family: Family = family_named(arch)
    network = call(family.build, {"scale": scale, **arguments}, f"--arch {arch}")
    assert isinstance(network, nn.Module)
    return network


def new_plain(layers: int, channels: int, scale: int) -> PlainNet:
    """A plain network of equal widths, initialised as torch initialises convolutions."""
    shapes = [(3, channels), *[(channels, channels)] * (layers - 2), (channels, 3 * scale**2)]
    stack = []
    for i, (c_in, c_out) in enumerate(shapes):
        conv = nn.Conv2d(c_in, c_out, 3)
        assert conv.bias is not None
        last = i == layers - 1
        stack.append(PlainLayer(conv.weight.detach(), conv.bias.detach(), relu=not last, shuffle=scale if last else 1))
    info = PlainInfo(
        scale=scale,
        channels=3,
        input_range=(0.0, 1.0),
        carry="none",
        guarantee="trained as it is, equivalent to no other network",
        teacher_sha256="",
        receptive_field=layers,
        image_skip="",
        tool=f"memsr_compiler {VERSION}",
    )
    return PlainNet(stack, info)
