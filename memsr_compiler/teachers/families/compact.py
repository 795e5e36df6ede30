"""SRVGGNetCompact of Real-ESRGAN: a straight stack of convolutions over a nearest-neighbour skip.

Key names of Real-ESRGAN: `body.0` a convolution, `body.1` its PReLU, and so on; the last convolution feeds a
pixel shuffle.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.teachers.families.base import Family, conv, count_keys, has_kernels


class SRVGGNetCompact(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1].

    blocks      convolutions between the first and the last
    image_skip  add the image, enlarged
    Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data"
    (ICCVW 2021); the network is of its software, with a PReLU per channel.
    """

    def __init__(
        self, *, scale: int, blocks: int = 16, channels: int = 64, colours: int = 3, image_skip: bool = True
    ) -> None:
        super().__init__()
        self.scale, self.image_skip = scale, image_skip
        layers: list[nn.Module] = [conv(colours, channels), nn.PReLU(channels)]
        for _ in range(blocks):
            layers += [conv(channels, channels), nn.PReLU(channels)]
        self.body = nn.Sequential(*layers, conv(channels, colours * scale**2))
        self.upsampler = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        result: Tensor = self.upsampler(self.body(x))
        if not self.image_skip:
            return result
        return result + F.interpolate(x, scale_factor=self.scale, mode="nearest")


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of SRVGGNetCompact for a state dict of these shapes; None if it is another network's."""
    if not has_kernels(shapes, "body.0.weight") or len(shapes.get("body.1.weight", ())) != 1:
        return None
    channels, colours = shapes["body.0.weight"][:2]
    layers = count_keys(shapes, "body.{}.weight")
    if not has_kernels(shapes, f"body.{layers - 1}.weight"):
        return None
    return {
        "scale": isqrt(shapes[f"body.{layers - 1}.weight"][0] // colours),
        "blocks": (layers - 3) // 2,
        "channels": channels,
        "colours": colours,
    }


FAMILY = Family(
    name="compact",
    build=SRVGGNetCompact,
    infer=infer,
    source="Wang et al., Real-ESRGAN: Training Blind Super-Resolution with Pure Synthetic Data, ICCVW 2021",
    unsaid={"image_skip": (True, False)},
    description="SRVGGNetCompact of Real-ESRGAN (PReLU), over a nearest-neighbour enlarged image",
)
