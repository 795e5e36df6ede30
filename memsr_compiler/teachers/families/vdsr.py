"""VDSR: a straight stack of 3x3 convolutions that corrects a bicubically enlarged image.

Keys `input.weight`, `residual_layer.N.conv.weight`, `output.weight`, as in the PyTorch version most weights
come from. Another, for colours and with biases, is of EDSR's authors, and torchSR's after it: `sub_mean`, `body.N`,
`add_mean`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import Family, Shapes, conv, count_keys, has_kernels, range_of_mean_shift
from memsr_compiler.teachers.families.edsr import DIV2K_MEAN, MeanShift


class ConvReLU(nn.Module):
    """relu(conv(x)), 3x3 without bias: (N, channels, H, W) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output; see the class."""
        result: Tensor = self.relu(self.conv(x))
        return result


class VDSR(nn.Module):
    """x plus what `blocks` + 2 convolutions find missing in it: (N, colours, H, W) -> the same shape.

    The input is the image already enlarged by bicubic interpolation, in [0, 1]; usually its Y channel alone.
    Source: Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks" (CVPR 2016).
    """

    def __init__(self, *, blocks: int = 18, channels: int = 64, colours: int = 1) -> None:
        super().__init__()
        self.input = conv(colours, channels, bias=False)
        self.residual_layer = nn.Sequential(*(ConvReLU(channels) for _ in range(blocks)))
        self.output = conv(channels, colours, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The image in the range of the input, not clipped to it."""
        result: Tensor = x + self.output(self.residual_layer(self.relu(self.input(x))))
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of VDSR for a state dict of these shapes; None if it is another network\'s."""
    if not has_kernels(shapes, "input.weight", "residual_layer.0.conv.weight", "output.weight"):
        return None
    channels, colours = shapes["input.weight"][:2]
    return {
        "blocks": count_keys(shapes, "residual_layer.{}.conv.weight"),
        "channels": channels,
        "colours": colours,
    }


class ColourVDSR(nn.Module):
    """(N, 3, H, W) -> (N, 3, scale * H, scale * W), RGB in [0, 1], or as the loaded mean shift says.

    scale   factor by which it enlarges the image first, bicubically as torch does; 1: it is given the enlarged image
    layers  convolutions, the first and the last counted
    Raises InvalidInput for fewer than 2 layers or a scale below 1.
    Source: that of VDSR; the network is of the software of EDSR and of torchSR, which alone enlarges within.
    """

    def __init__(self, *, scale: int, layers: int = 20, channels: int = 64) -> None:
        super().__init__()
        if layers < 2 or scale < 1:
            raise InvalidInput(f"VDSR: layers={layers}, scale={scale}. It has at least 2 layers and scale 1.")
        self.scale = scale
        self.sub_mean = MeanShift(DIV2K_MEAN, -1, 1.0)
        self.add_mean = MeanShift(DIV2K_MEAN, 1, 1.0)
        body: list[nn.Module] = [conv(3, channels), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            body += [conv(channels, channels), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*body, conv(channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        """The image in the range of the input, not clipped to it."""
        if self.scale > 1:
            x = F.interpolate(x, scale_factor=self.scale, mode="bicubic", align_corners=False)
        x = self.sub_mean(x)
        result: Tensor = self.add_mean(x + self.body(x))
        return result


def infer_colour(shapes: Shapes) -> dict[str, object] | None:
    """The arguments of ColourVDSR but `scale`, of which there is no trace; None if it is another network's."""
    if not has_kernels(shapes, "sub_mean.weight", "body.0.weight", "body.2.weight"):
        return None
    inner = sum(f"body.{2 * number}.weight" in shapes for number in range(len(shapes)))
    if shapes["sub_mean.weight"] != (3, 3, 1, 1) or shapes.get(f"body.{2 * inner - 2}.bias") != (3,):
        return None
    return {"layers": inner, "channels": shapes["body.0.weight"][0]}


FAMILY = Family(
    name="vdsr",
    build=VDSR,
    infer=infer,
    activation="ReLU",
    source="Kim et al., Accurate Image Super-Resolution Using Very Deep Convolutional Networks, CVPR 2016",
    description="VDSR on the bicubically enlarged image (scale 1), one Y channel",
)

COLOUR = Family(
    name="vdsr-rgb",
    build=ColourVDSR,
    infer=infer_colour,
    activation="ReLU",
    source="Kim et al., Accurate Image Super-Resolution Using Very Deep Convolutional Networks, CVPR 2016",
    read_range=lambda state: range_of_mean_shift(state, "sub_mean"),
    description="VDSR in colour, of torchSR (say which scale) or EDSR's authors (scale 1: enlarged before)",
)
