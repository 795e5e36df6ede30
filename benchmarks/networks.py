"""Networks with random weights that several benchmarks measure."""

from __future__ import annotations

import torch

from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet


def plain(scale: int, *, layers: int = 35, channels: int = 64) -> PlainNet:
    """A plain network of the paper, convolutions of one width: Plain-M has 35 of 64, Plain-S 19, Plain-L 35 of 100."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(channels, 3), *[(channels, channels)] * (layers - 2), (3 * scale**2, channels)]
    stack = [
        PlainLayer(
            torch.randn(o, i, 3, 3, generator=generator) * (2 / (9 * i)) ** 0.5,
            torch.zeros(o),
            relu=n < layers - 1,
            shuffle=scale if n == layers - 1 else 1,
        )
        for n, (o, i) in enumerate(shapes)
    ]
    info = PlainInfo(scale, 3, (0.0, 1.0), "none", "none", "", layers, "", "benchmarks")
    return PlainNet(stack, info).eval()
