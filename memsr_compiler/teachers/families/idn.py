"""IDN: blocks that set slices of their features aside, over a bicubic enlargement of the image.

Key names of the PyTorch version `fblock.module.N`, `dblocks.N.enhancement_top.M`, `dblocks.N.compression`,
`deconv`. (The authors' own weights are Caffe and TensorFlow files.)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.teachers.families.base import Family, conv, count_keys, has_kernels

SLOPE = 0.05
"""Slope below zero of every leaky ReLU in the family."""


class FeatureBlock(nn.Module):
    """Two 3x3 convolutions: (N, colours, H, W) -> (N, channels, H, W)."""

    def __init__(self, colours: int, channels: int) -> None:
        super().__init__()
        self.module = nn.Sequential(*_leaky(conv(colours, channels)), *_leaky(conv(channels, channels)))

    def forward(self, x: Tensor) -> Tensor:
        """The features; see the class."""
        result: Tensor = self.module(x)
        return result


class DistillationBlock(nn.Module):
    """Enhancement in two halves, `kept` channels set aside between them, then compression: same shape."""

    def __init__(self, channels: int, kept: int, groups: int) -> None:
        super().__init__()
        narrow, wide = channels - kept, channels + kept
        self.narrow = narrow
        self.enhancement_top = nn.Sequential(
            *_leaky(conv(channels, narrow)),
            *_leaky(conv(narrow, narrow - kept, groups=groups)),
            *_leaky(conv(narrow - kept, channels)),
        )
        self.enhancement_bottom = nn.Sequential(
            *_leaky(conv(narrow, channels)),
            *_leaky(conv(channels, narrow, groups=groups)),
            *_leaky(conv(narrow, wide)),
        )
        self.compression = conv(wide, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; its input and the slice set aside are added to the second half's result."""
        top = self.enhancement_top(x)
        bottom = self.enhancement_bottom(top[:, : self.narrow])
        result: Tensor = self.compression(bottom + torch.cat([x, top[:, self.narrow :]], dim=1))
        return result


class IDN(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), in [0, 1].

    channels  width of the blocks; it, channels - kept and channels - 2 * kept must divide by groups
    kept      channels set aside in each block
    Source: Hui et al., "Fast and Accurate Single Image Super-Resolution via Information Distillation Network"
    (CVPR 2018).
    """

    def __init__(
        self,
        *,
        scale: int,
        blocks: int = 4,
        channels: int = 64,
        kept: int = 16,
        groups: int = 4,
        colours: int = 3,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.fblock = FeatureBlock(colours, channels)
        self.dblocks = nn.Sequential(*(DistillationBlock(channels, kept, groups) for _ in range(blocks)))
        self.deconv = nn.ConvTranspose2d(channels, colours, 17, stride=scale, padding=8, output_padding=scale - 1)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        # Bicubic interpolation clamps at the border: the one part of IDN that zero padding cannot express.
        enlarged = F.interpolate(x, scale_factor=self.scale, mode="bicubic", align_corners=False)
        result: Tensor = enlarged + self.deconv(self.dblocks(self.fblock(x)))
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of IDN but `scale`, a stride shapes do not show; None if it is another network's."""
    top = "dblocks.0.enhancement_top.{}.weight"
    if not has_kernels(shapes, "fblock.module.0.weight", top.format(0), top.format(2), "deconv.weight"):
        return None
    channels, colours = shapes["fblock.module.0.weight"][:2]
    narrow = shapes[top.format(0)][0]
    return {
        "blocks": count_keys(shapes, "dblocks.{}.compression.weight"),
        "channels": channels,
        "kept": channels - narrow,
        "groups": narrow // shapes[top.format(2)][1],
        "colours": colours,
    }


def _leaky(layer: nn.Conv2d) -> list[nn.Module]:
    return [layer, nn.LeakyReLU(SLOPE)]


FAMILY = Family(
    name="idn",
    build=IDN,
    infer=infer,
    source="Hui et al., Fast and Accurate Super-Resolution via Information Distillation Network, CVPR 2018",
    habits=(f"slope {SLOPE} below zero",),
    description="IDN over a bicubic image skip; the scale has to be said, the weights do not show it",
)
