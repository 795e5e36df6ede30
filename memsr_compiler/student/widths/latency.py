"""The time that a plain stack takes, as a sum over its layers, fitted to a few that were timed.

A layer takes time for its multiply-adds, for the feature maps that it reads and writes, and for being there.  Engines
take channels in eights, so widths count rounded up to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet

Timer = Callable[[PlainNet, tuple[int, int]], float]
"""Milliseconds that a plain network takes for an image of (width, height): on this machine, or on another."""

Shapes = Sequence[tuple[int, int, int, int]]  # (C_out, C_in, k, k) of every layer
LANES = 8
PIXELS = 1 << 17  # at most, of the images on which stacks are timed to fit a model
STACKS = ((16, 2), (16, 6), (32, 2), (32, 6), (64, 3))  # timed for that: their width, and how many layers
WHOLE = (24, 4)  # timed on the whole image, by which the model is corrected


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds for each pixel of the input: by layer, by multiply-add, by number read or written."""

    layer: float
    multiply_add: float
    number: float

    def predict(self, shapes: Shapes, pixels: int) -> float:
        """Predict the milliseconds that a stack takes for an image of so many pixels."""
        each = torch.tensor([self.layer, self.multiply_add, self.number], dtype=torch.float64)
        return float(_count(shapes) @ each) * pixels

    def scaled(self, factor: float) -> LatencyModel:
        return replace(
            self, layer=self.layer * factor, multiply_add=self.multiply_add * factor, number=self.number * factor
        )


def fit_latency(timer: Timer, size: tuple[int, int], *, channels: int, scale: int, out: int) -> LatencyModel:
    """Fit a model to stacks timed on a strip of an image of this size (width, height), and to one timed on all of it.

    channels   of the input;   out   of the last convolution, before the pixel shuffle
    """
    strip = size[0], max(min(size[1], PIXELS // size[0]), 1)
    counted = []
    for width, layers in STACKS:
        shapes = _equal(channels, width, layers, out)
        milliseconds = timer(random_stack(shapes, scale), strip) / (strip[0] * strip[1])
        counted.append(_count(shapes) / milliseconds)  # all errors relative to what a stack takes
    rows, wanted = torch.stack(counted), torch.ones(len(STACKS), dtype=torch.float64)
    chosen = [0, 1, 2]
    while True:  # least squares of which none is negative: a column that would be is left out
        solution = torch.linalg.lstsq(rows[:, chosen], wanted[:, None], driver="gelsd").solution[:, 0]
        if len(chosen) == 1 or float(solution.min()) >= 0:
            break
        del chosen[int(solution.argmin())]
    each = torch.zeros(3, dtype=torch.float64)
    each[chosen] = solution.clamp_min(0)
    model = LatencyModel(*each.tolist())
    shapes = _equal(channels, *WHOLE, out)
    return model.scaled(timer(random_stack(shapes, scale), size) / model.predict(shapes, size[0] * size[1]))


def _equal(channels: int, width: int, layers: int, out: int) -> Shapes:
    every = [channels, *[width] * (layers - 1), out]
    return [(after, below, 3, 3) for below, after in pairwise(every)]


def random_stack(shapes: Shapes, scale: int) -> PlainNet:
    """Build a plain network of these kernels, with weights that mean nothing, to be timed."""
    generator = torch.Generator().manual_seed(0)
    layers = []
    for i, shape in enumerate(shapes):
        last = i == len(shapes) - 1
        weight = torch.randn(shape, generator=generator) * (2 / (shape[1] * shape[2] ** 2)) ** 0.5
        layers.append(PlainLayer(weight, torch.zeros(shape[0]), relu=not last, shuffle=scale if last else 1))
    reach = sum(shape[2] // 2 for shape in shapes)
    info = PlainInfo(scale, shapes[0][1], (0.0, 1.0), "none", "none: its weights are random", "0" * 64, reach, "", "")
    return PlainNet(layers, info).eval()


def _count(shapes: Shapes) -> Tensor:
    """Layers, multiply-adds and numbers read and written, for each pixel of the input."""
    rounded = [(-(-out // LANES) * LANES, -(-read // LANES) * LANES, k * k) for out, read, k, _ in shapes]
    macs = sum(out * read * taps for out, read, taps in rounded)
    return torch.tensor([len(shapes), macs, sum(out + read for out, read, _ in rounded)], dtype=torch.float64)
