"""RRDBNet, the generator of ESRGAN and Real-ESRGAN: dense blocks in blocks, nearest-neighbour enlargement.

Key names of BasicSR: `conv_first`, `body.N.rdb1.conv1`, `conv_body`, `conv_up1`, `conv_up2`, `conv_hr`,
`conv_last`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import Family, conv, count_keys, has_kernels

SHRINK = {4: 1, 2: 2, 1: 4}
"""Scale -> factor of the pixel-unshuffle before a network whose tail always enlarges four times."""


class DenseBlock(nn.Module):
    """x + 0.2 * five densely connected convolutions of x: (N, channels, H, W) -> the same shape."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, growth)
        self.conv2 = conv(channels + growth, growth)
        self.conv3 = conv(channels + 2 * growth, growth)
        self.conv4 = conv(channels + 3 * growth, growth)
        self.conv5 = conv(channels + 4 * growth, channels)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; see the class."""
        x1 = self.lrelu(self.conv1(x))
        x2 = self.lrelu(self.conv2(torch.cat([x, x1], dim=1)))
        x3 = self.lrelu(self.conv3(torch.cat([x, x1, x2], dim=1)))
        x4 = self.lrelu(self.conv4(torch.cat([x, x1, x2, x3], dim=1)))
        result: Tensor = x + 0.2 * self.conv5(torch.cat([x, x1, x2, x3, x4], dim=1))
        return result


class ResidualInResidual(nn.Module):
    """x + 0.2 * three dense blocks of x: (N, channels, H, W) -> the same shape."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(channels, growth)
        self.rdb2 = DenseBlock(channels, growth)
        self.rdb3 = DenseBlock(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; see the class."""
        result: Tensor = x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))
        return result


class RRDBNet(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1].

    scale  4; or 2 or 1, for which the image is pixel-unshuffled by 2 or 4 first, and H and W must divide by
           that
    Raises InvalidInput for another scale.
    Source: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks" (ECCVW 2018);
    scales 2 and 1: Wang et al., "Real-ESRGAN" (ICCVW 2021).
    """

    def __init__(self, *, scale: int, blocks: int = 23, channels: int = 64, growth: int = 32, colours: int = 3) -> None:
        super().__init__()
        if scale not in SHRINK:
            raise InvalidInput(
                f"RRDBNet: scale={scale}. Its tail enlarges by 4; choose 4, or 2 or 1 with pixel-unshuffle."
            )
        self.unshuffle = nn.PixelUnshuffle(SHRINK[scale]) if SHRINK[scale] > 1 else nn.Identity()
        self.conv_first = conv(colours * SHRINK[scale] ** 2, channels)
        self.body = nn.Sequential(*(ResidualInResidual(channels, growth) for _ in range(blocks)))
        self.conv_body = conv(channels, channels)
        self.conv_up1 = conv(channels, channels)
        self.conv_up2 = conv(channels, channels)
        self.conv_hr = conv(channels, channels)
        self.conv_last = conv(channels, colours)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        head = self.conv_first(self.unshuffle(x))
        y = head + self.conv_body(self.body(head))
        y = self.lrelu(self.conv_up1(F.interpolate(y, scale_factor=2, mode="nearest")))
        y = self.lrelu(self.conv_up2(F.interpolate(y, scale_factor=2, mode="nearest")))
        result: Tensor = self.conv_last(self.lrelu(self.conv_hr(y)))
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of RRDBNet for a state dict of these shapes; None if it is another network\'s."""
    if not has_kernels(shapes, "conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"):
        return None
    channels, inputs = shapes["conv_first.weight"][:2]
    colours = shapes["conv_last.weight"][0]
    scales = {shrink: scale for scale, shrink in SHRINK.items()}
    scale = scales.get(isqrt(inputs // colours))
    if scale is None:
        return None
    return {
        "scale": scale,
        "blocks": count_keys(shapes, "body.{}.rdb1.conv1.weight"),
        "channels": channels,
        "growth": shapes["body.0.rdb1.conv1.weight"][0],
        "colours": colours,
    }


FAMILY = Family(
    name="rrdb",
    build=RRDBNet,
    infer=infer,
    source="Wang et al., ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, ECCVW 2018",
    description="RRDBNet of ESRGAN and Real-ESRGAN, with BasicSR's key names",
)
