"""RDN: residual dense blocks, whose outputs are concatenated and fused.

Key names of the widespread PyTorch version with published x2, x3 and x4 weights: `sfe1`,
`rdbs.N.layers.M.conv`, `rdbs.N.lff`, `gff.0`, `upscale.0`, `output`. (The authors' own weights are Lua Torch
files.)
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import Family, conv, count_keys, has_kernels


class DenseLayer(nn.Module):
    """x with relu(conv(x)) appended: (N, inputs, H, W) -> (N, inputs + growth, H, W)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.conv = conv(inputs, growth)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The concatenation, x first."""
        return torch.cat([x, self.relu(self.conv(x))], dim=1)


class DenseBlock(nn.Module):
    """x + fusion of a chain of dense layers: (N, channels, H, W) -> the same shape."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(DenseLayer(channels + i * growth, growth) for i in range(layers)))
        self.lff = conv(channels + layers * growth, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; see the class."""
        result: Tensor = x + self.lff(self.layers(x))
        return result


class RDN(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1].

    blocks    residual dense blocks (D)         channels  width between them (G0)
    layers    convolutions in each of them (C)  growth    channels that each of those adds (G)
    enlarged  width at the size of the result, None: `channels`; published code has `growth` there, which is the same in
              published weights
    Raises InvalidInput for a scale other than 2, 3, 4.
    Source: Zhang et al., "Residual Dense Network for Image Super-Resolution" (CVPR 2018).
    """

    def __init__(
        self,
        *,
        scale: int,
        blocks: int = 16,
        layers: int = 8,
        channels: int = 64,
        growth: int = 64,
        colours: int = 3,
        enlarged: int | None = None,
    ) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise InvalidInput(f"RDN: scale={scale}. Its upsampler knows 2, 3 and 4.")
        self.sfe1 = conv(colours, channels)
        self.sfe2 = conv(channels, channels)
        self.rdbs = nn.ModuleList(DenseBlock(channels, growth, layers) for _ in range(blocks))
        self.gff = nn.Sequential(conv(channels * blocks, channels, 1), conv(channels, channels))
        width = enlarged or channels
        upscale: list[nn.Module] = []
        for factor in [3] if scale == 3 else [2] * (scale // 2):
            upscale += [conv(width if upscale else channels, width * factor**2), nn.PixelShuffle(factor)]
        self.upscale = nn.Sequential(*upscale)
        self.output = conv(width, colours)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        shallow = self.sfe1(x)
        features = [self.sfe2(shallow)]
        for block in self.rdbs:
            features.append(block(features[-1]))
        fused = shallow + self.gff(torch.cat(features[1:], dim=1))
        result: Tensor = self.output(self.upscale(fused))
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of RDN for a state dict of these shapes; None if it is another network's."""
    if not has_kernels(shapes, "sfe1.weight", "rdbs.0.layers.0.conv.weight", "upscale.0.weight", "output.weight"):
        return None
    channels, colours = shapes["sfe1.weight"][:2]
    blocks = count_keys(shapes, "rdbs.{}.lff.weight")
    layers = count_keys(shapes, "rdbs.0.layers.{}.conv.weight")
    if blocks * layers > len(shapes):
        return None  # keeps a hostile list of keys from describing a network of quadratic size
    width = shapes["output.weight"][1]
    factor = isqrt(shapes["upscale.0.weight"][0] // width)
    return {
        "scale": factor**2 if "upscale.2.weight" in shapes else factor,
        "blocks": blocks,
        "layers": layers,
        "channels": channels,
        "growth": shapes["rdbs.0.layers.0.conv.weight"][0],
        "colours": colours,
        "enlarged": None if width == channels else width,
    }


FAMILY = Family(
    name="rdn",
    build=RDN,
    infer=infer,
    activation="ReLU",
    source="Zhang et al., Residual Dense Network for Image Super-Resolution, CVPR 2018",
    description="RDN: dense blocks, local and global fusion by 1x1 convolutions",
)
