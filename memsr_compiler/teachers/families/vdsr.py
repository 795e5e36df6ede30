"""VDSR: a straight stack of 3x3 convolutions that corrects a bicubically enlarged image.

Keys `input.weight`, `residual_layer.N.conv.weight`, `output.weight`, as in the PyTorch version most weights
come from.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from memsr_compiler.teachers.families.base import Family, conv, count_keys, has_kernels


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


FAMILY = Family(
    name="vdsr",
    build=VDSR,
    infer=infer,
    source="Kim et al., Accurate Image Super-Resolution Using Very Deep Convolutional Networks, CVPR 2016",
    description="VDSR on the bicubically enlarged image (scale 1), one Y channel",
)
