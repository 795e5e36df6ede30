"""FSRCNN: narrow convolutions at low resolution, enlarged by one strided transposed convolution.

Key names of the widespread PyTorch version: `first_part.0`, `mid_part.N`, `last_part`. (The authors' own
weights are Caffe files.)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from memsr_compiler.teachers.families.base import Family, conv, count_keys, has_kernels


class FSRCNN(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), in [0, 1]; usually the Y channel alone.

    channels  width of the first and last layer (d)     narrow  width between the two 1x1 convolutions (s)
    blocks    3x3 convolutions between them (m)
    Source: Dong et al., "Accelerating the Super-Resolution Convolutional Neural Network" (ECCV 2016).
    """

    def __init__(self, *, scale: int, blocks: int = 4, channels: int = 56, narrow: int = 12, colours: int = 1) -> None:
        super().__init__()
        self.first_part = nn.Sequential(conv(colours, channels, 5), nn.PReLU(channels))
        middle: list[nn.Module] = [conv(channels, narrow, 1), nn.PReLU(narrow)]
        for _ in range(blocks):
            middle += [conv(narrow, narrow), nn.PReLU(narrow)]
        self.mid_part = nn.Sequential(*middle, conv(narrow, channels, 1), nn.PReLU(channels))
        self.last_part = nn.ConvTranspose2d(channels, colours, 9, stride=scale, padding=4, output_padding=scale - 1)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        result: Tensor = self.last_part(self.mid_part(self.first_part(x)))
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of FSRCNN but `scale`, a stride shapes do not show; None if it is another network's."""
    if not has_kernels(shapes, "first_part.0.weight", "mid_part.0.weight", "last_part.weight"):
        return None
    channels, colours = shapes["first_part.0.weight"][:2]
    return {
        "blocks": count_keys(shapes, "mid_part.{}.weight") // 2 - 2,
        "channels": channels,
        "narrow": shapes["mid_part.0.weight"][0],
        "colours": colours,
    }


FAMILY = Family(
    name="fsrcnn",
    build=FSRCNN,
    infer=infer,
    source="Dong et al., Accelerating the Super-Resolution Convolutional Neural Network, ECCV 2016",
    description="FSRCNN on one Y channel; the scale has to be said, the weights do not show it",
)
