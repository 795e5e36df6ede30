"""IMDN, with or without contrast-aware attention, and the form of it that NTIRE 2022 took as its baseline.

The first uses the key names of the authors' repository (`fea_conv`, `IMDB1.c1`, ..., `upsampler.0`), the
second those of the challenge's (`model.0`, `model.1.sub.N.conv1.0`, ..., `model.2`). The two also differ in
what they add and concatenate.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor, nn

from memsr_compiler.teachers.families.base import Family, conv, count_keys, has_kernels

SLOPE = 0.05
"""Slope below zero of every leaky ReLU in the family."""


class ContrastAttention(nn.Module):
    """x scaled per channel by a gate in (0, 1) made of the channel's standard deviation plus its mean.

    x (N, channels, H, W) -> the same shape. No plain network can express it: pooling, a sigmoid and a
    product.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.conv_du = nn.Sequential(
            conv(channels, hidden, 1), nn.ReLU(inplace=True), conv(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """The gated feature map."""
        mean = x.mean((2, 3), keepdim=True)
        deviation = (x - mean).square().mean((2, 3), keepdim=True).sqrt()
        result: Tensor = x * self.conv_du(deviation + mean)
        return result


class Distillation(nn.Module):
    """Four 3x3 convolutions, each putting a quarter of them aside: (N, channels, H, W), same shape."""

    def __init__(self, channels: int, *, attention: bool) -> None:
        super().__init__()
        self.kept = channels // 4
        self.passed = channels - self.kept
        self.c1 = conv(channels, channels)
        self.c2 = conv(self.passed, channels)
        self.c3 = conv(self.passed, channels)
        self.c4 = conv(self.passed, self.kept)
        self.act = nn.LeakyReLU(SLOPE)
        self.cca = ContrastAttention(self.kept * 4) if attention else nn.Identity()
        self.c5 = conv(self.kept * 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block's input plus the fused quarters."""
        sizes = [self.kept, self.passed]
        kept1, rest = self.act(self.c1(x)).split(sizes, dim=1)
        kept2, rest = self.act(self.c2(rest)).split(sizes, dim=1)
        kept3, rest = self.act(self.c3(rest)).split(sizes, dim=1)
        kept4 = self.c4(rest)
        result: Tensor = x + self.c5(self.cca(torch.cat([kept1, kept2, kept3, kept4], dim=1)))
        return result


class IMDN(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1].

    attention=False leaves the contrast-aware channel attention out.
    Source: Hui et al., "Lightweight Image Super-Resolution with Information Multi-distillation Network"
    (ACM MM 2019).
    """

    def __init__(
        self, *, scale: int, blocks: int = 6, channels: int = 64, colours: int = 3, attention: bool = True
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.fea_conv = conv(colours, channels)
        for number in range(1, blocks + 1):
            self.add_module(f"IMDB{number}", Distillation(channels, attention=attention))
        self.c = nn.Sequential(conv(channels * blocks, channels, 1), nn.LeakyReLU(SLOPE))
        self.LR_conv = conv(channels, channels)
        self.upsampler = nn.Sequential(conv(channels, colours * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        head = self.fea_conv(x)
        outputs = [head]
        for number in range(1, self.blocks + 1):
            outputs.append(self.get_submodule(f"IMDB{number}")(outputs[-1]))
        body = self.LR_conv(self.c(torch.cat(outputs[1:], dim=1)))
        result: Tensor = self.upsampler(body + head)
        return result


class DistillationNTIRE(nn.Module):
    """The block of the NTIRE 2022 baseline: like `Distillation` without attention, under other key names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kept = channels // 4
        self.passed = channels - self.kept
        self.conv1 = nn.Sequential(conv(channels, channels), nn.LeakyReLU(SLOPE))
        self.conv2 = nn.Sequential(conv(self.passed, channels), nn.LeakyReLU(SLOPE))
        self.conv3 = nn.Sequential(conv(self.passed, channels), nn.LeakyReLU(SLOPE))
        self.conv4 = conv(self.passed, self.kept)
        self.conv1x1 = conv(self.kept * 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block's input plus the fused quarters."""
        sizes = [self.kept, self.passed]
        kept1, rest = self.conv1(x).split(sizes, dim=1)
        kept2, rest = self.conv2(rest).split(sizes, dim=1)
        kept3, rest = self.conv3(rest).split(sizes, dim=1)
        result: Tensor = x + self.conv1x1(torch.cat([kept1, kept2, kept3, self.conv4(rest)], dim=1))
        return result


class Shortcut(nn.Module):
    """x + sub(x)."""

    def __init__(self, sub: nn.Module) -> None:
        super().__init__()
        self.sub = sub

    def forward(self, x: Tensor) -> Tensor:
        """The sum; sub keeps the shape of x."""
        result: Tensor = x + self.sub(x)
        return result


class IMDNBaseline(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1], without attention.

    Blocks in a row under one global skip, instead of IMDN's concatenation of all of them.
    Source: Li et al., "NTIRE 2022 Challenge on Efficient Super-Resolution" (CVPRW 2022), the baseline.
    """

    def __init__(self, *, scale: int, blocks: int = 8, channels: int = 64, colours: int = 3) -> None:
        super().__init__()
        body = nn.Sequential(*(DistillationNTIRE(channels) for _ in range(blocks)), conv(channels, channels))
        self.model = nn.Sequential(
            conv(colours, channels),
            Shortcut(body),
            conv(channels, colours * scale**2),
            nn.PixelShuffle(scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        result: Tensor = self.model(x)
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of IMDN for a state dict of these shapes; None if it is another network\'s."""
    if not has_kernels(shapes, "fea_conv.weight", "IMDB1.c1.weight", "upsampler.0.weight"):
        return None
    channels, colours = shapes["fea_conv.weight"][:2]
    return {
        "scale": isqrt(shapes["upsampler.0.weight"][0] // colours),
        "blocks": count_keys(shapes, "IMDB{}.c1.weight", first=1),
        "channels": channels,
        "colours": colours,
        "attention": "IMDB1.cca.conv_du.0.weight" in shapes,
    }


def infer_baseline(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of IMDNBaseline for a state dict of these shapes; None if it is another network\'s."""
    if not has_kernels(shapes, "model.0.weight", "model.1.sub.0.conv1.0.weight", "model.2.weight"):
        return None
    channels, colours = shapes["model.0.weight"][:2]
    return {
        "scale": isqrt(shapes["model.2.weight"][0] // colours),
        "blocks": count_keys(shapes, "model.1.sub.{}.conv1.0.weight"),
        "channels": channels,
        "colours": colours,
    }


FAMILY = Family(
    name="imdn",
    build=IMDN,
    infer=infer,
    source="Hui et al., Super-Resolution with Information Multi-distillation Network, ACM MM 2019",
    habits=(f"slope {SLOPE} below zero",),
    description="IMDN with the authors' key names; its contrast-aware attention (optional) cannot be plain",
)

BASELINE = Family(
    name="imdn-baseline",
    build=IMDNBaseline,
    infer=infer_baseline,
    source="Li et al., NTIRE 2022 Challenge on Efficient Super-Resolution: Methods and Results, CVPRW 2022",
    habits=(f"slope {SLOPE} below zero",),
    description="IMDN without attention, as the NTIRE 2022 efficient super-resolution baseline",
)
