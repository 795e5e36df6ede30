"""SRResNet, the generator of SRGAN: residual blocks with batch normalisation, 9x9 convolutions at both ends.

Key names of the most used PyTorch version with published weights: `conv1.0`, `trunk.N.rcb.0`, `conv2.0`,
`upsampling.N.upsample_block.0`, `conv3`. (The authors published none.)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import Family, conv, count_keys, has_kernels


class ResidualBlock(nn.Module):
    """x + bn(conv(prelu(bn(conv(x))))): (N, channels, H, W) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rcb = nn.Sequential(*_conv_norm(channels), nn.PReLU(), *_conv_norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; see the class."""
        result: Tensor = x + self.rcb(x)
        return result


class UpsampleBlock(nn.Module):
    """Twice the height and width: (N, channels, H, W) -> (N, channels, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample_block = nn.Sequential(conv(channels, channels * 4), nn.PixelShuffle(2), nn.PReLU())

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged feature map."""
        result: Tensor = self.upsample_block(x)
        return result


class SRResNet(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1]; the result is clamped to that.

    scale  1, 2, 4 or 8     clamp  False: leave the result as it is
    Raises InvalidInput for another scale.
    Source: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
    Network" (CVPR 2017).
    """

    def __init__(
        self, *, scale: int, blocks: int = 16, channels: int = 64, colours: int = 3, clamp: bool = True
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4, 8):
            raise InvalidInput(f"SRResNet: scale={scale}. Each of its upsamplers doubles: choose 2, 4 or 8.")
        self.clamp = clamp
        self.conv1 = nn.Sequential(conv(colours, channels, 9), nn.PReLU())
        self.trunk = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.conv2 = nn.Sequential(*_conv_norm(channels))
        self.upsampling = nn.Sequential(*(UpsampleBlock(channels) for _ in range(scale.bit_length() - 1)))
        self.conv3 = conv(channels, colours, 9)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image."""
        head = self.conv1(x)
        result: Tensor = self.conv3(self.upsampling(head + self.conv2(self.trunk(head))))
        return result.clamp(0.0, 1.0) if self.clamp else result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of SRResNet for a state dict of these shapes; None if it is another network\'s."""
    if not has_kernels(shapes, "conv1.0.weight", "trunk.0.rcb.0.weight", "conv3.weight"):
        return None
    channels, colours = shapes["conv1.0.weight"][:2]
    return {
        "scale": 2 ** count_keys(shapes, "upsampling.{}.upsample_block.0.weight"),
        "blocks": count_keys(shapes, "trunk.{}.rcb.0.weight"),
        "channels": channels,
        "colours": colours,
    }


def _conv_norm(channels: int) -> list[nn.Module]:
    return [conv(channels, channels, bias=False), nn.BatchNorm2d(channels)]


FAMILY = Family(
    name="srresnet",
    build=SRResNet,
    infer=infer,
    source="Ledig et al., Photo-Realistic Single Image Super-Resolution Using a GAN (SRGAN), CVPR 2017",
    unsaid={"clamp": (True, False)},
    description="SRResNet, the generator of SRGAN: batch normalisation, PReLU, 9x9 convolutions",
)
