"""A plain network run by bands of rows: the whole-frame result, in memory that does not grow with the image's height.

A convolution needs, of all rows above the next one, only the last k - 1.  So every layer keeps those of its input, and
rows that come in at the top go through all layers at once, each a few rows later than the one before it.  Outside the
image is zero for every layer, not just for the first, which is why zeros stand in each layer's rows at the start, and
come in at the end, layer after layer, and never go through the layers below.

Where a single row of all layers is too much, the image is cut into columns, with a halo as wide as the receptive field
at the cuts and none at the true borders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain import PlainNet


@dataclass(frozen=True)
class Stage:
    """A layer: weight (C_out, C_in, k, k), bias (C_out,), ReLU or not, the factor of the pixel shuffle after it."""

    weight: Tensor
    bias: Tensor
    relu: bool
    shuffle: int

    @property
    def size(self) -> int:
        return int(self.weight.shape[-1])

    def turned(self) -> Stage:
        """The same for images whose height and width are exchanged."""
        weight, bias, s = self.weight.transpose(2, 3), self.bias, self.shuffle
        if s > 1:  # the shuffle's channels are (c, row, column)
            order = torch.arange(len(bias)).reshape(-1, s, s).transpose(1, 2).flatten()
            weight, bias = weight[order], bias[order]
        return Stage(weight.contiguous(), bias, self.relu, s)


def stages(net: PlainNet) -> tuple[Stage, ...]:
    """Raises InvalidInput for a network that needs the whole image at once."""
    if net.info.image_skip:
        raise InvalidInput(
            f"the network adds a {net.info.image_skip} enlargement of the image, which is not done by bands; run it "
            "whole, or convert it with --image-skip inside"
        )
    found = []
    for layer in net:
        assert layer.bias is not None
        found.append(Stage(layer.weight.detach(), layer.bias.detach(), layer.relu, layer.shuffle))
    return tuple(found)


class Stream:
    """A plain network on an image that arrives band by band, from the top.  Every image needs a stream of its own."""

    def __init__(self, layers: Sequence[Stage], width: int) -> None:
        """width   of the image, in pixels"""
        self._layers = layers
        like = layers[0].weight
        self._kept = [
            like.new_zeros(1, layer.weight.shape[1], layer.size // 2, width * scale)
            for layer, scale in zip(layers, _scales(layers), strict=False)
        ]

    def push(self, rows: Tensor) -> Tensor:
        """The output rows (1, C', h', scale * W) that more input rows (1, C, h, W) make possible; h' may be 0."""
        return self._through(0, rows)

    def finish(self) -> Iterator[Tensor]:
        """The rest, once there are no more input rows: layer after layer gets the zeros below the image."""
        for i, layer in enumerate(self._layers):
            kept = self._kept[i]
            yield self._through(i, kept.new_zeros(1, kept.shape[1], layer.size // 2, kept.shape[3]))

    @torch.no_grad()
    def _through(self, first: int, rows: Tensor) -> Tensor:
        """More input for a layer and, what comes of it, for those above."""
        for i in range(first, len(self._layers)):
            rows = self._step(i, rows)
        return rows

    def _step(self, i: int, rows: Tensor) -> Tensor:
        layer = self._layers[i]
        pad = layer.size // 2
        read = torch.cat([self._kept[i], rows], dim=2)
        made = read.shape[2] - 2 * pad
        if made < 1:
            self._kept[i] = read
            return read.new_zeros(1, len(layer.bias) // layer.shuffle**2, 0, read.shape[3] * layer.shuffle)
        self._kept[i] = read[:, :, made:].clone()
        out = F.conv2d(read, layer.weight, layer.bias, padding=(0, pad))
        if layer.relu:
            out.relu_()
        return F.pixel_shuffle(out, layer.shuffle) if layer.shuffle > 1 else out


def run_bands(layers: Sequence[Stage], width: int, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """The output, band by band, of an image that is given band by band, each (1, C, h, width)."""
    stream = Stream(layers, width)
    for band in bands:
        yield stream.push(band)
    yield from stream.finish()


def live_bytes(layers: Sequence[Stage], width: int, height: int) -> int:
    """Feature maps that are held at the worst moment, in bytes, for bands of `height` rows of `width` pixels.

    What every layer keeps, and in the layer that is at work what comes in, that with the kept rows before it, and what
    it makes, twice where it is shuffled.  What the convolution itself takes on top is the engine's.
    """
    number = layers[0].weight.element_size()
    kept = largest = down = 0
    for layer, scale in zip(layers, _scales(layers), strict=False):
        c_out, c_in = layer.weight.shape[:2]
        across, down = width * scale, max(down, height * scale, layer.size // 2)  # zeros below may be more rows
        kept += c_in * (layer.size - 1) * across
        read = c_in * (down + layer.size - 1) * across
        largest = max(largest, c_in * down * across + read, read + c_out * down * across * (1 + (layer.shuffle > 1)))
        down *= layer.shuffle
    return (kept + largest) * number


def reach(layers: Sequence[Stage]) -> int:
    """How many input pixels away from an output pixel may still change it."""
    return sum(-(-(layer.size // 2) // scale) for layer, scale in zip(layers, _scales(layers), strict=False))


def _scales(layers: Sequence[Stage]) -> list[int]:
    """Of each layer's input, and of the output, relative to the image."""
    return list(accumulate((layer.shuffle for layer in layers), mul, initial=1))
