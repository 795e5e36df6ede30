"""ECBSR: a short stack of 3x3 convolutions over the repeated image; each was trained as five branches at once.

Key names of the authors' form for devices: `backbone.N.conv3x3`, `backbone.N.act`. Dialects: their training form, in
which each convolution has four more branches (`conv1x1_3x3`, `conv1x1_sbx`, `conv1x1_sby`, `conv1x1_lpl`) that add up
to one kernel; and ETDS's, `backbone.N.0`, `backbone.N.1`. BasicSR has the authors' names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from math import isqrt

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import (
    Dialect,
    Family,
    Shapes,
    by_patterns,
    conv,
    count_keys,
    has_kernels,
    leaving_open,
    renaming,
)

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "prelu": nn.PReLU,
    "relu": lambda channels: nn.ReLU(),
    "softplus": lambda channels: nn.Softplus(),
}
"""Those of the authors; their "rrelu", random while training, is ReLU afterwards."""

EDGES = ("sbx", "sby", "lpl")
"""The branches with a fixed filter: Sobel's across and along, Laplace's."""


class Layer(nn.Module):
    """act(conv(x)): (N, inputs, H, W) -> (N, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, activation: str | None) -> None:
        super().__init__()
        self.conv3x3 = conv(inputs, outputs)
        self.act = nn.Identity() if activation is None else ACTIVATIONS[activation](outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output; see the class."""
        result: Tensor = self.act(self.conv3x3(x))
        return result


class ECBSR(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W).

    blocks      convolutions between the first and the last
    activation  prelu, relu or softplus
    Raises InvalidInput for another activation.
    Source: Zhang, Zeng, Zhang, "Edge-oriented Convolution Block for Real-time Super Resolution on Mobile Devices"
    (ACM MM 2021).
    """

    def __init__(
        self, *, scale: int, blocks: int = 4, channels: int = 16, colours: int = 3, activation: str = "prelu"
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise InvalidInput(f"ECBSR: activation={activation!r}. Choose {', '.join(ACTIVATIONS)}.")
        self.repeats = scale**2
        widths = [colours, *[channels] * (blocks + 1)]
        inner = (Layer(inputs, outputs, activation) for inputs, outputs in pairwise(widths))
        self.backbone = nn.Sequential(*inner, Layer(channels, colours * scale**2, None))
        self.upsampler = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped."""
        result: Tensor = self.upsampler(self.backbone(x) + x.repeat_interleave(self.repeats, dim=1))
        return result


def infer(shapes: Shapes) -> dict[str, object] | None:
    """The arguments of ECBSR for a state dict of these shapes; None if it is another network's.

    None too where no PReLU shows what the activation is.
    """
    return _infer(shapes, training=False, prelu=True)


def _infer(shapes: Shapes, *, training: bool, prelu: bool) -> dict[str, object] | None:
    """As `infer`, for one form.  training: with all branches;  prelu: else another activation, which leaves no trace"""
    layers = count_keys(shapes, "backbone.{}.conv3x3.weight")
    last = f"backbone.{layers - 1}.conv3x3.weight"
    if layers < 2 or not has_kernels(shapes, "backbone.0.conv3x3.weight", last):
        return None
    if training != ("backbone.0.conv1x1_3x3.k0" in shapes) or prelu != ("backbone.0.act.weight" in shapes):
        return None
    channels, colours = shapes["backbone.0.conv3x3.weight"][:2]
    scale = isqrt(shapes[last][0] // colours)
    hyper: dict[str, object] = {"scale": scale, "blocks": layers - 2, "channels": channels, "colours": colours}
    return {**hyper, **({"activation": "prelu"} if prelu else {})} if scale else None


def _merge_branches(state: Mapping[str, Tensor], hyper: Mapping[str, object]) -> dict[str, Tensor]:
    """The same network with one kernel per layer, summed in float64.

    identity   whether each layer's input is added, where it has as many channels as its output

    All branches see the borders as one 3x3 convolution does: the 1x1 before a branch's 3x3 is padded with its own bias.
    """
    merged = dict(state)
    for layer in range(count_keys(dict.fromkeys(state, torch.Size()), "backbone.{}.conv3x3.weight")):
        name = f"backbone.{layer}"
        kernel, bias = _take(merged, f"{name}.conv3x3", weight=None, bias=None)
        outputs, inputs, *sides = kernel.shape
        if sides != [3, 3]:  # of no size it would be there, and the branches' sums of any
            raise ValueError(f"{name}.conv3x3.weight is {tuple(kernel.shape)} in the file, which is no 3x3 kernel")
        parts = [(kernel, bias), _merge_wide(merged, f"{name}.conv1x1_3x3", outputs, inputs)]
        parts += [_merge_edge(merged, f"{name}.conv1x1_{edge}", outputs, inputs) for edge in EDGES]
        if hyper["identity"] and outputs == inputs:
            identity = torch.zeros_like(kernel)
            identity[:, :, 1, 1] = torch.eye(outputs)
            parts.append((identity, torch.zeros_like(bias)))
        merged[f"{name}.conv3x3.weight"] = torch.stack([part[0] for part in parts]).sum(0).float()
        merged[f"{name}.conv3x3.bias"] = torch.stack([part[1] for part in parts]).sum(0).float()
    return merged


def _merge_wide(state: dict[str, Tensor], name: str, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a 1x1 convolution and the 3x3 after it, which are removed."""
    middle = len(state[f"{name}.k0"])
    first, shift, second, bias = _take(
        state, name, k0=(middle, inputs, 1, 1), b0=(middle,), k1=(outputs, middle, 3, 3), b1=(outputs,)
    )
    return torch.einsum("omij,mc->ocij", second, first[:, :, 0, 0]), torch.einsum("omij,m->o", second, shift) + bias


def _merge_edge(state: dict[str, Tensor], name: str, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a 1x1 convolution and the scaled filter after it, which are removed."""
    first, shift, scale, mask, bias = _take(
        state,
        name,
        k0=(outputs, inputs, 1, 1),
        b0=(outputs,),
        scale=(outputs, 1, 1, 1),
        mask=(outputs, 1, 3, 3),
        bias=(outputs,),
    )
    edge = (scale * mask)[:, 0]
    return torch.einsum("oij,oc->ocij", edge, first[:, :, 0, 0]), torch.einsum("oij,o->o", edge, shift) + bias


def _take(state: dict[str, Tensor], name: str, **shapes: tuple[int, ...] | None) -> list[Tensor]:
    """Take tensors out of the state dict, as float64.  Raises KeyError, ValueError for another shape or no weights."""
    taken = []
    for key, shape in shapes.items():
        tensor = state.pop(f"{name}.{key}")
        if shape is not None and tensor.shape != shape:
            raise ValueError(f"{name}.{key} is {tuple(tensor.shape)} in the file, not {shape}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name}.{key} is {tensor.dtype} in the file")
        taken.append(tensor.double())
    return taken


_from_etds = by_patterns(
    {r"backbone\.(\d+)\.0\.(\w+)": r"backbone.\1.conv3x3.\2", r"backbone\.(\d+)\.1\.weight": r"backbone.\1.act.weight"}
)
_ACTIVATION = {"activation": ("relu", "softplus")}


def _training_form(*, prelu: bool) -> Dialect:
    return Dialect(
        name="ECBSR's training form",
        infer=partial(_infer, training=True, prelu=prelu),
        translate=_merge_branches,
        unsaid={"identity": (False, True), **({} if prelu else _ACTIVATION)},
        own=frozenset({"identity"}),
    )


FAMILY = Family(
    name="ecbsr",
    build=ECBSR,
    infer=infer,
    source="Zhang et al., Edge-oriented Convolution Block for Real-time Super Resolution, ACM MM 2021",
    description="ECBSR, its training form merged; the repeated image is added before the pixel shuffle",
    dialects=(
        leaving_open("ECBSR", partial(_infer, training=False, prelu=False), _ACTIVATION),
        _training_form(prelu=True),
        _training_form(prelu=False),
        renaming("ETDS", _from_etds, infer),
    ),
)
