"""ETDS and ABPN: networks for devices, as the authors of ETDS distribute both.

Key names for ETDS: `conv_first`, `backbone_convs.N`, `add_residual_convs.N`, `residual_convs.N`, `conv_residual_last`
while it is trained, in two branches; `conv_first`, `backbone_convs.N`, `conv_last`, `conv_clip` in the one that they
become. Those for ABPN: `backbone.0`, `backbone.2.0`, ..., the last two behind them.
"""

from __future__ import annotations

import re
from math import isqrt

import torch
from torch import Tensor, nn

from memsr_compiler.teachers.families.base import Family, Shapes, conv, count_keys, has_kernels


class ETDS(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1].

    blocks    convolutions between the first and the last of each branch
    channels  width of the main branch      residual  width of the one that carries the image
    Source: Chao et al., "Equivalent Transformation and Dual Stream Network Construction for Mobile Image
    Super-Resolution" (CVPR 2023).
    """

    def __init__(self, *, scale: int, blocks: int = 4, channels: int = 29, residual: int = 3, colours: int = 3) -> None:
        super().__init__()
        self.conv_first = conv(colours, channels)
        self.conv_residual_first = conv(colours, residual)
        self.backbone_convs = nn.ModuleList(conv(channels, channels) for _ in range(blocks))
        self.residual_convs = nn.ModuleList(conv(residual, residual) for _ in range(blocks))
        self.add_residual_convs = nn.ModuleList(conv(residual, channels) for _ in range(blocks))
        self.conv_last = conv(channels, colours * scale**2)
        self.conv_residual_last = conv(residual, colours * scale**2)
        self.upsampler = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        main, image = torch.relu(self.conv_first(x)), torch.relu(self.conv_residual_first(x))
        for along, across, keep in zip(self.backbone_convs, self.add_residual_convs, self.residual_convs, strict=True):
            main, image = torch.relu(along(main) + across(image)), torch.relu(keep(image))
        result: Tensor = self.upsampler(self.conv_last(main)) + self.upsampler(self.conv_residual_last(image))
        return result


class PlainETDS(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1], and never below 0.

    spare    channels more than the pixel shuffle needs, which are dropped before it: the authors have 1 at scale 3
    Source: that of ETDS.
    """

    def __init__(self, *, scale: int, blocks: int = 4, channels: int = 32, colours: int = 3, spare: int = 0) -> None:
        super().__init__()
        self.needed = colours * scale**2
        self.conv_first = conv(colours, channels)
        self.backbone_convs = nn.ModuleList(conv(channels, channels) for _ in range(blocks))
        self.conv_last = conv(channels, self.needed + spare)
        self.conv_clip = conv(self.needed + spare, self.needed + spare, 1)
        self.upsampler = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to 1."""
        y = torch.relu(self.conv_first(x))
        for layer in self.backbone_convs:
            y = torch.relu(layer(y))
        y = torch.relu(self.conv_clip(torch.relu(self.conv_last(y))))
        result: Tensor = self.upsampler(y[:, : self.needed])
        return result


class ABPN(nn.Module):
    """(N, 3, H, W) -> (N, 3, scale * H, scale * W), RGB in [0, 1].

    blocks   convolutions between the first and the last two
    Source: Du et al., "Anchor-based Plain Net for Mobile Image Super-Resolution" (CVPRW 2021).
    """

    def __init__(self, *, scale: int, blocks: int = 4, channels: int = 28, colours: int = 3) -> None:
        super().__init__()
        self.repeats = scale**2
        outputs = colours * scale**2
        self.backbone = nn.Sequential(
            conv(colours, channels),
            nn.ReLU(),
            *(nn.Sequential(conv(channels, channels), nn.ReLU()) for _ in range(blocks)),
            conv(channels, outputs),
            nn.ReLU(),
            conv(outputs, outputs),
        )
        self.upsampler = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        result: Tensor = self.upsampler(self.backbone(x) + x.repeat_interleave(self.repeats, dim=1))
        return result


def infer(shapes: Shapes) -> dict[str, object] | None:
    """The arguments of ETDS for a state dict of these shapes; None if it is another network's."""
    keys = ("conv_first.weight", "conv_residual_first.weight", "add_residual_convs.0.weight", "conv_last.weight")
    if not has_kernels(shapes, *keys) or any(key.startswith("advanced_residual_convs.") for key in shapes):
        return None
    channels, colours = shapes["conv_first.weight"][:2]
    return {
        "scale": isqrt(shapes["conv_last.weight"][0] // colours),
        "blocks": count_keys(shapes, "backbone_convs.{}.weight"),
        "channels": channels,
        "residual": shapes["conv_residual_first.weight"][0],
        "colours": colours,
    }


def infer_plain(shapes: Shapes) -> dict[str, object] | None:
    """The arguments of PlainETDS for a state dict of these shapes; None if it is another network's."""
    keys = ("conv_first.weight", "backbone_convs.0.weight", "conv_last.weight", "conv_clip.weight")
    if not has_kernels(shapes, *keys):
        return None
    channels, colours = shapes["conv_first.weight"][:2]
    outputs = shapes["conv_last.weight"][0]
    scale = isqrt(outputs // colours)
    return {
        "scale": scale,
        "blocks": count_keys(shapes, "backbone_convs.{}.weight"),
        "channels": channels,
        "colours": colours,
        "spare": outputs - colours * scale**2,
    }


def infer_abpn(shapes: Shapes) -> dict[str, object] | None:
    """The arguments of ABPN for a state dict of these shapes; None if it is another network's."""
    blocks = count_keys(shapes, "backbone.{}.0.weight", first=2)
    before_last, last = f"backbone.{blocks + 2}.weight", f"backbone.{blocks + 4}.weight"
    if not has_kernels(shapes, "backbone.0.weight", before_last, last) or not blocks:
        return None
    if not all(re.fullmatch(r"backbone\.\d+\.(0\.)?(weight|bias)", key) for key in shapes):
        return None
    channels, colours = shapes["backbone.0.weight"][:2]
    if shapes[last][0] != shapes[before_last][0] or shapes[last][2:] != (3, 3):
        return None
    return {
        "scale": isqrt(shapes[last][0] // colours),
        "blocks": blocks,
        "channels": channels,
        "colours": colours,
    }


_SOURCE = "Chao et al., Equivalent Transformation and Dual Stream Network Construction, CVPR 2023"

FAMILY = Family(
    name="etds",
    build=ETDS,
    infer=infer,
    source=_SOURCE,
    description="ETDS as it is trained, in two branches",
)

PLAIN = Family(
    name="etds-plain",
    build=PlainETDS,
    infer=infer_plain,
    source=_SOURCE,
    description="ETDS in the form for devices, already a plain network",
)

ANCHOR = Family(
    name="abpn",
    build=ABPN,
    infer=infer_abpn,
    source="Du et al., Anchor-based Plain Net for Mobile Image Super-Resolution, CVPRW 2021",
    description="ABPN; the repeated image is added before the pixel shuffle",
)
