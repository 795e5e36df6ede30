"""CARN and CARN-M: residual blocks whose outputs cascade into 1x1 fusions, within a block and between blocks.

Key names of the authors' repository: `sub_mean.shifter`, `entry`, `b1.b1.body.0`, `b1.c1.body.0`,
`c1.body.0`, `upsample.up.body.0` (or `upsample.up2`, `up3` and `up4` in one network for three scales),
`exit`, `add_mean.shifter`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import Family, conv, has_kernels, range_of_mean_shift

MEAN = (0.4488, 0.4371, 0.4040)
"""Mean R, G, B of the DIV2K training set in [0, 1]."""


class MeanShift(nn.Module):
    """x + sign * MEAN as the frozen 1x1 convolution that state dicts hold: (N, 3, H, W), same shape."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.shifter = conv(3, 3, 1)
        self.requires_grad_(False)
        if self.shifter.weight.is_meta:  # only the shapes are wanted; torch.eye there imports torch's compiler: 2 s
            return
        assert self.shifter.bias is not None, "a convolution of base.conv has a bias unless told otherwise"
        with torch.no_grad():
            self.shifter.weight.copy_(torch.eye(3)[:, :, None, None])
            self.shifter.bias.copy_(sign * torch.tensor(MEAN))

    def forward(self, x: Tensor) -> Tensor:
        """The shifted image."""
        result: Tensor = self.shifter(x)
        return result


class Fusion(nn.Module):
    """relu of a 1x1 convolution: (N, inputs, H, W) -> (N, channels, H, W)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, channels, 1), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """The fused features."""
        result: Tensor = self.body(x)
        return result


class ResidualBlock(nn.Module):
    """relu(x + body(x)): (N, channels, H, W), same shape; efficient=True: a 1x1 ends the body (CARN-M)."""

    def __init__(self, channels: int, groups: int, *, efficient: bool) -> None:
        super().__init__()
        last: list[nn.Module] = [nn.ReLU(inplace=True), conv(channels, channels, 1)] if efficient else []
        self.body = nn.Sequential(
            conv(channels, channels, groups=groups),
            nn.ReLU(inplace=True),
            conv(channels, channels, groups=groups),
            *last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; see the class."""
        return torch.relu(x + self.body(x))


class Cascade(nn.Module):
    """Blocks b1, b2, b3, each followed by a fusion of all before it: (N, channels, H, W), same shape.

    shared  use b1 in the place of b2 and b3: CARN-M's recursion within a block
    """

    def __init__(self, channels: int, blocks: list[nn.Module], *, shared: bool) -> None:
        super().__init__()
        for number, block in enumerate(blocks, start=1):
            self.add_module(f"b{number}", block)
        self.c1 = Fusion(2 * channels, channels)
        self.c2 = Fusion(3 * channels, channels)
        self.c3 = Fusion(4 * channels, channels)
        self.names = ("b1", "b1", "b1") if shared else ("b1", "b2", "b3")

    def forward(self, x: Tensor) -> Tensor:
        """The output of the last fusion."""
        cascade = fused = x
        for name, fusion in zip(self.names, (self.c1, self.c2, self.c3), strict=True):
            cascade = torch.cat([cascade, self.get_submodule(name)(fused)], dim=1)
            fused = fusion(cascade)
        return fused


class Upsampler(nn.Module):
    """(N, channels, H, W) -> (N, channels, scale * H, scale * W), one shuffle per factor of 2 or 3."""

    def __init__(self, channels: int, scale: int, groups: int) -> None:
        super().__init__()
        if scale not in (2, 3, 4, 8):
            raise InvalidInput(f"CARN: scale={scale}. Its upsampler knows 2, 3, 4 and 8.")
        layers: list[nn.Module] = []
        for factor in [3] if scale == 3 else [2] * (scale.bit_length() - 1):
            shuffle = nn.PixelShuffle(factor)
            layers += [conv(channels, channels * factor**2, groups=groups), nn.ReLU(inplace=True), shuffle]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged features."""
        result: Tensor = self.body(x)
        return result


class CARN(Cascade):
    """(N, 3, H, W) -> (N, 3, scale * H, scale * W), RGB in [0, 1], or as the loaded mean shift says.

    efficient    CARN-M: grouped convolutions, the three blocks of a cascade sharing their weights
    groups       of the 3x3 convolutions
    multi_scale  hold upsamplers for 2, 3 and 4, and use the one for `scale`; the published weights are such
    Raises InvalidInput for a scale that the upsampler does not know.
    Source: Ahn et al., "Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual Network"
    (ECCV 2018).
    """

    def __init__(
        self,
        *,
        scale: int,
        channels: int = 64,
        groups: int = 1,
        efficient: bool = False,
        multi_scale: bool = False,
    ) -> None:
        def local() -> nn.Module:
            count = 1 if efficient else 3
            blocks: list[nn.Module] = [ResidualBlock(channels, groups, efficient=efficient) for _ in range(count)]
            return Cascade(channels, blocks, shared=efficient)

        super().__init__(channels, [local(), local(), local()], shared=False)
        if multi_scale and scale not in (2, 3, 4):
            raise InvalidInput(f"CARN: scale={scale} with multi_scale. It holds upsamplers for 2, 3 and 4.")
        self.sub_mean = MeanShift(-1)
        self.add_mean = MeanShift(1)
        self.entry = conv(3, channels)
        branches = {f"up{s}": s for s in (2, 3, 4)} if multi_scale else {"up": scale}
        self.upsample = nn.ModuleDict({name: Upsampler(channels, s, groups) for name, s in branches.items()})
        self.branch = f"up{scale}" if multi_scale else "up"
        self.exit = conv(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        features = super().forward(self.entry(self.sub_mean(x)))
        result: Tensor = self.add_mean(self.exit(self.upsample[self.branch](features)))
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of CARN, without `scale` if it has several upsamplers; None if it is another's."""
    multi_scale = "upsample.up2.body.0.weight" in shapes
    first = "upsample.up2.body.0.weight" if multi_scale else "upsample.up.body.0.weight"
    if not has_kernels(shapes, "entry.weight", "b1.b1.body.0.weight", "b1.c1.body.0.weight", first):
        return None
    channels = shapes["entry.weight"][0]
    hyper: dict[str, object] = {
        "channels": channels,
        "groups": channels // shapes["b1.b1.body.0.weight"][1],
        "efficient": "b1.b1.body.4.weight" in shapes,
        "multi_scale": multi_scale,
    }
    if multi_scale:
        return hyper
    stages = sum(f"upsample.up.body.{3 * index}.weight" in shapes for index in range(3))
    return {"scale": isqrt(shapes[first][0] // channels) ** stages, **hyper}


FAMILY = Family(
    name="carn",
    build=CARN,
    infer=infer,
    activation="ReLU",
    source="Ahn et al., Lightweight Super-Resolution with Cascading Residual Network (CARN), ECCV 2018",
    read_range=lambda state: range_of_mean_shift(state, "sub_mean.shifter"),
    description="CARN and CARN-M; of weights for several scales, say which scale is meant",
)
