"""LatticeNet: pairs of convolution blocks, combined crosswise with coefficients that attention sets.

Key names of the authors' repository: `sub_mean`, `conv1`, `conv2`, `body_unit1.conv_block0.0`,
`body_unit1.fea_ca1.conv_mean.0`, ..., `body_unit1.compress`, `T_tdm1.0`, `L_tdm1.0`, ..., `tail.0`, `tail.1`,
`add_mean`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import Family, conv, count_keys, has_kernels, range_of_mean_shift
from memsr_compiler.teachers.families.edsr import DIV2K_MEAN, MeanShift

SLOPE = 0.05
"""Slope below zero of the leaky ReLUs within the blocks."""


class Coefficients(nn.Module):
    """A number in (0, 1) for each channel, of its mean and its standard deviation: (N, C, H, W) -> (N, C, 1, 1).

    No plain network can express it: pooling and a sigmoid.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv_mean = _squeeze(channels, hidden)
        self.conv_std = _squeeze(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """The mean of what either statistic gives."""
        mean = x.mean((2, 3), keepdim=True)
        pixels = x.shape[2] * x.shape[3]
        others = pixels - 1 + (pixels == 1)  # as torch.std divides; of a single pixel the deviation is 0, no NaN
        deviation = torch.linalg.vector_norm(x - mean, dim=(2, 3), keepdim=True) / others**0.5
        result: Tensor = (self.conv_mean(mean) + self.conv_std(deviation)) / 2
        return result


class LatticeBlock(nn.Module):
    """Two blocks of three convolutions and the butterflies before and after the second: same shape.

    narrow   width inside the blocks
    """

    def __init__(self, channels: int, narrow: int, hidden: int) -> None:
        super().__init__()
        self.conv_block0 = _three(channels, narrow)
        self.fea_ca1 = Coefficients(channels, hidden)
        self.x_ca1 = Coefficients(channels, hidden)
        self.conv_block1 = _three(channels, narrow)
        self.fea_ca2 = Coefficients(channels, hidden)
        self.x_ca2 = Coefficients(channels, hidden)
        self.compress = conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output: both arms of the lattice, mixed."""
        first = self.conv_block0(x)
        upper = x + self.fea_ca1(first) * first
        lower = first + self.x_ca1(x) * x
        second = self.conv_block1(upper)
        arms = (second + self.fea_ca2(lower) * lower, lower + self.x_ca2(second) * second)
        result: Tensor = self.compress(torch.cat(arms, dim=1))
        return result


class LatticeNet(nn.Module):
    """(N, 3, H, W) -> (N, 3, scale * H, scale * W), RGB in 0..255, or as the loaded mean shift says.

    channels  width of the blocks' outputs, even      narrow  width within them
    hidden    width of the attention; None: a sixteenth
    Raises InvalidInput for sizes that describe no network.
    Source: Luo et al., "LatticeNet: Towards Lightweight Image Super-resolution with Lattice Block" (ECCV 2020).
    """

    def __init__(
        self, *, scale: int, blocks: int = 4, channels: int = 64, narrow: int = 48, hidden: int | None = None
    ) -> None:
        super().__init__()
        if min(scale, blocks, narrow) < 1 or channels < 2 or channels % 2:
            sizes = f"scale={scale}, blocks={blocks}, channels={channels}, narrow={narrow}"
            raise InvalidInput(f"LatticeNet: {sizes}. Each must be at least 1, and channels even.")
        hidden = max(channels // 16, 1) if hidden is None else hidden
        self.blocks = blocks
        self.sub_mean = MeanShift(DIV2K_MEAN, -1, 255.0)
        self.conv1 = conv(3, channels)
        self.conv2 = conv(channels, channels)
        for number in range(1, blocks + 1):
            self.add_module(f"body_unit{number}", LatticeBlock(channels, narrow, hidden))
        for number in range(1, blocks):
            for side in ("T", "L"):
                self.add_module(f"{side}_tdm{number}", nn.Sequential(conv(channels, channels // 2, 1), nn.ReLU()))
        self.tail = nn.Sequential(conv(channels, channels), conv(channels, 3 * scale**2), nn.PixelShuffle(scale))
        self.add_mean = MeanShift(DIV2K_MEAN, 1, 255.0)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, in the range of the input and not clipped to it."""
        head = self.conv2(self.conv1(self.sub_mean(x)))
        outputs = [head]
        for number in range(1, self.blocks + 1):
            outputs.append(self.get_submodule(f"body_unit{number}")(outputs[-1]))
        fused = outputs[-1]
        for number in range(1, self.blocks):  # backwards: the last block's output takes the earlier ones up
            top, left = self.get_submodule(f"T_tdm{number}"), self.get_submodule(f"L_tdm{number}")
            fused = torch.cat([top(fused), left(outputs[-1 - number])], dim=1)
        result: Tensor = self.add_mean(self.tail(fused + head))
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of LatticeNet for a state dict of these shapes; None if it is another network's."""
    block, gate = "body_unit1.conv_block0.0.weight", "body_unit1.fea_ca1.conv_mean.0.weight"
    if not has_kernels(shapes, "sub_mean.weight", "conv1.weight", block, gate, "tail.1.weight"):
        return None
    return {
        "scale": isqrt(shapes["tail.1.weight"][0] // 3),
        "blocks": count_keys(shapes, "body_unit{}.compress.weight", first=1),
        "channels": shapes["conv1.weight"][0],
        "narrow": shapes[block][0],
        "hidden": shapes[gate][0],
    }


def _squeeze(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(conv(channels, hidden, 1), nn.ReLU(inplace=True), conv(hidden, channels, 1), nn.Sigmoid())


def _three(channels: int, narrow: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, narrow), (narrow, narrow), (narrow, channels)):
        layers += [conv(inputs, outputs), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


FAMILY = Family(
    name="latticenet",
    build=LatticeNet,
    infer=infer,
    source="Luo et al., LatticeNet: Towards Lightweight Image Super-resolution with Lattice Block, ECCV 2020",
    input_range=(0.0, 255.0),
    habits=(f"slope {SLOPE} below zero",),
    read_range=lambda state: range_of_mean_shift(state, "sub_mean"),
    description="LatticeNet with the authors' key names; its coefficients, an attention, cannot be plain",
)
