"""RFDN: residual feature distillation with spatial attention, the winner of AIM 2020 for efficiency.

Key names of the authors' repository: `fea_conv`, `B1.c1_d`, `B1.c1_r`, ..., `B1.esa.conv1`, ..., `c.0`,
`LR_conv`, `upsampler.0`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.teachers.families.base import Family, conv, count_keys, has_kernels

SLOPE = 0.05
"""Slope below zero of every leaky ReLU in the family."""


class SpatialAttention(nn.Module):
    """x times a gate in (0, 1) made at a sixth of its size: (N, channels, H, W), same shape; H, W >= 15.

    No plain network can express it: a strided convolution, pooling, bilinear enlargement, a sigmoid and a
    product.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, hidden, 1)
        self.conv_f = conv(hidden, hidden, 1)
        self.conv_max = conv(hidden, hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride=2)
        self.conv3 = conv(hidden, hidden)
        self.conv3_ = conv(hidden, hidden)
        self.conv4 = conv(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The gated feature map."""
        narrow = self.conv1(x)
        coarse = F.max_pool2d(self.conv2(narrow), kernel_size=7, stride=3)
        coarse = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(coarse)))))
        enlarged = F.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)
        result: Tensor = x * torch.sigmoid(self.conv4(enlarged + self.conv_f(narrow)))
        return result


class ResidualDistillation(nn.Module):
    """Three residual convolutions, a 1x1 view of each one's input kept: (N, channels, H, W), same shape."""

    def __init__(self, channels: int, kept: int, hidden: int) -> None:
        super().__init__()
        self.c1_d = conv(channels, kept, 1)
        self.c1_r = conv(channels, channels)
        self.c2_d = conv(channels, kept, 1)
        self.c2_r = conv(channels, channels)
        self.c3_d = conv(channels, kept, 1)
        self.c3_r = conv(channels, channels)
        self.c4 = conv(channels, kept)
        self.act = nn.LeakyReLU(SLOPE)
        self.c5 = conv(kept * 4, channels, 1)
        self.esa = SpatialAttention(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """The features that were kept, fused and gated; the block's input is not added again."""
        kept1, rest = self.act(self.c1_d(x)), self.act(x + self.c1_r(x))
        kept2, rest2 = self.act(self.c2_d(rest)), self.act(rest + self.c2_r(rest))
        kept3, rest3 = self.act(self.c3_d(rest2)), self.act(rest2 + self.c3_r(rest2))
        kept4 = self.act(self.c4(rest3))
        result: Tensor = self.esa(self.c5(torch.cat([kept1, kept2, kept3, kept4], dim=1)))
        return result


class RFDN(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in 0..255; H and W at least 15.

    kept    channels put aside per step (default: half)
    hidden  width of the attention (default: a quarter)

    Source: Liu et al., "Residual Feature Distillation Network for Lightweight Image Super-Resolution"
    (ECCVW 2020).
    """

    def __init__(
        self,
        *,
        scale: int,
        blocks: int = 4,
        channels: int = 50,
        colours: int = 3,
        kept: int | None = None,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        kept = channels // 2 if kept is None else kept
        hidden = channels // 4 if hidden is None else hidden
        self.blocks = blocks
        self.fea_conv = conv(colours, channels)
        for number in range(1, blocks + 1):
            self.add_module(f"B{number}", ResidualDistillation(channels, kept, hidden))
        self.c = nn.Sequential(conv(channels * blocks, channels, 1), nn.LeakyReLU(SLOPE))
        self.LR_conv = conv(channels, channels)
        self.upsampler = nn.Sequential(conv(channels, colours * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image in 0..255, not clipped to it."""
        head = self.fea_conv(x)
        outputs = [head]
        for number in range(1, self.blocks + 1):
            outputs.append(self.get_submodule(f"B{number}")(outputs[-1]))
        body = self.LR_conv(self.c(torch.cat(outputs[1:], dim=1)))
        result: Tensor = self.upsampler(body + head)
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of RFDN for a state dict of these shapes; None if it is another network's."""
    keys = ("fea_conv.weight", "B1.c1_d.weight", "B1.esa.conv1.weight", "upsampler.0.weight")
    if not has_kernels(shapes, *keys):
        return None
    channels, colours = shapes["fea_conv.weight"][:2]
    return {
        "scale": isqrt(shapes["upsampler.0.weight"][0] // colours),
        "blocks": count_keys(shapes, "B{}.c1_d.weight", first=1),
        "channels": channels,
        "colours": colours,
        "kept": shapes["B1.c1_d.weight"][0],
        "hidden": shapes["B1.esa.conv1.weight"][0],
    }


FAMILY = Family(
    name="rfdn",
    build=RFDN,
    infer=infer,
    source="Liu et al., Residual Feature Distillation Network for Super-Resolution, ECCVW 2020",
    input_range=(0.0, 255.0),
    habits=(f"slope {SLOPE} below zero", "no dilation"),
    description="RFDN of the AIM 2020 challenge; its spatial attention cannot be plain",
)
