"""Graphs to draw, of zeros: a drawing shows no weights."""

from __future__ import annotations

import torch

from memsr_compiler.ir import Conv2d, Graph, Input, PixelShuffle, Relu, Sum


def conv(name: str, x: str, channels: int = 4) -> Conv2d:
    """A 3x3 convolution from `channels` to as many."""
    return Conv2d(name=name, inputs=(x,), weight=torch.zeros(channels, channels, 3, 3), bias=torch.zeros(channels))


SKIP = Graph(
    (
        Input(name="x", channels=4),
        conv("a", "x"),
        Relu(name="r", inputs=("a",)),
        conv("b", "r"),
        Sum(name="s", inputs=("b", "x")),
        PixelShuffle(name="y", inputs=("s",), factor=2),
    ),
    "y",
)
