"""A plain network run by bands of rows: the whole-frame result, in memory that does not grow with the image's height.

A convolution needs, of all rows above the next one, only the last k - 1.  So every layer keeps those of its input, and
rows that come in at the top go through all layers at once, each a few rows later than the one before it.  Outside the
image is zero for every layer, not just for the first, which is why zeros stand in each layer's rows at the start, and
come in at the end, layer after layer, and never go through the layers below.

An image that is added outside, each pixel repeated, waits until the rows that it belongs to are made: as many rows as
the receptive field reaches.

Where a single row of all layers is too much, the image is cut into columns, with a halo as wide as the receptive field
at the cuts and none at the true borders (`upscaler`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.manifest import REPEATED
from memsr_compiler.runtime.ort_layers import Layer, count_inside

Rows = NDArray[Any]  # (C, h, W)


class LayerEngine(Protocol):
    """A way to compute the layers: `ort_layers.OrtLayers`."""

    def __call__(self, number: int, read: Rows, made: Rows) -> None:
        """Run layer `number`, from 0: what it reads, and where its result goes."""

    def reserve(self, numbers: int) -> None:
        """Make room for so many numbers, the most that a layer needs beyond these two."""


def require_local(info: PlainInfo) -> None:
    """Raises InvalidInput for a network that needs the whole image at once."""
    if info.image_skip not in ("", REPEATED):
        raise InvalidInput(
            f"the network adds a {info.image_skip} enlargement of the image, which is not done by bands; run it "
            "whole, with --tile off"
        )


class Stream:
    """A plain network on an image that arrives band by band, from the top.  Every image needs a stream of its own.

    All memory is taken at the start and used again and again: what is freed between two layers of different size, the C
    library's allocator would keep, several times as much as is needed.
    """

    def __init__(
        self, layers: Sequence[Layer], engine: LayerEngine, width: int, height: int, *, image_skip: bool = False
    ) -> None:
        """Take the memory for bands of at most `height` rows of `width` pixels.

        image_skip   whether the image is added to the output, each pixel repeated
        """
        self._layers = layers
        self._engine = engine
        sizes = _sizes(layers, width, height)
        engine.reserve(max(s.inside for s in sizes))
        number = layers[0].weight.dtype
        self._kept = [np.zeros(s.kept, number) for s in sizes]
        self._rows = [layer.kernel_size // 2 for layer in layers]  # of what is kept, zeros above the image at first
        self._read = np.empty(max(s.read for s in sizes), number)
        self._made = np.empty(max(s.made for s in sizes), number)
        self._image = _Waiting(_waiting(layers, width, height), number) if image_skip else None

    def push(self, rows: Rows) -> Rows:
        """The output rows (C', h', scale * W) that more input rows (C, h, W) make possible; h' may be 0.

        They are to be used, or copied, before the next call.
        """
        if self._image is not None:
            self._image.push(rows)
        return self._with_image(self._through(0, rows))

    def finish(self) -> Iterator[Rows]:
        """The rest, once there are no more input rows: layer after layer gets the zeros below the image."""
        for i, layer in enumerate(self._layers):
            channels, _, width = self._kept[i].shape
            rows = np.zeros((channels, layer.kernel_size // 2, width), self._read.dtype)
            yield self._with_image(self._through(i, rows))

    def _with_image(self, made: Rows) -> Rows:
        """The rows with those of the image added that they belong to, in place."""
        if self._image is not None:
            self._image.add_to(made)
        return made

    def _through(self, first: int, rows: Rows) -> Rows:
        """Give a layer more input and, what comes of it, to those above."""
        for i in range(first, len(self._layers)):
            rows = self._step(i, rows)
        return rows

    def _step(self, i: int, rows: Rows) -> Rows:
        layer, kept, held = self._layers[i], self._kept[i], self._rows[i]
        channels, most, width = kept.shape
        total = held + rows.shape[1]
        read = _view(self._read, channels, total, width)
        read[:, :held], read[:, held:] = kept[:, :held], rows
        self._rows[i] = left = min(total, most)
        kept[:, :left] = read[:, total - left :]
        s = layer.shuffle
        made = _view(self._made, layer.out_channels, max(total - most, 0) * s, width * s)
        if made.size:
            self._engine(i, read, made)
        return made


class _Waiting:
    """Rows of the image that nothing has been made of yet, oldest first."""

    def __init__(self, shape: tuple[int, int, int], number: np.dtype[Any]) -> None:
        self._rows = np.empty(shape, number)
        self._held = 0

    def push(self, rows: Rows) -> None:
        held = self._held + rows.shape[1]
        self._rows[:, self._held : held] = rows
        self._held = held

    def add_to(self, made: Rows) -> None:
        """Add the oldest to output rows, each pixel to s * s of them, and let them go.

        made   (C, s * h, s * W), or before the pixel shuffle (C * s * s, h, W)
        """
        channels, _, width = self._rows.shape
        s = made.shape[2] // width
        h = made.shape[1] // s
        made.reshape(channels, len(made) // channels, h, s, width, s)[...] += self._rows[:, None, :h, None, :, None]
        self._held -= h
        self._rows[:, : self._held] = self._rows[:, h : h + self._held]


def run_bands(
    layers: Sequence[Layer],
    engine: LayerEngine,
    width: int,
    height: int,
    bands: Iterable[Rows],
    *,
    image_skip: bool = False,
) -> Iterator[Rows]:
    """The output, band by band, of an image that is given band by band, each (C, h, width) with h <= height.

    Each is to be used, or copied, before the next is asked for.  `image_skip`: see `Stream`.
    """
    stream = Stream(layers, engine, width, height, image_skip=image_skip)
    for band in bands:
        yield stream.push(band)
    yield from stream.finish()


def live_bytes(layers: Sequence[Layer], width: int, height: int, *, image_skip: bool = False) -> int:
    """Bytes held at the worst moment, for bands of `height` rows of `width` pixels, float32.

    What every layer keeps; the largest that is read, and the largest that is made; what the engine takes in the layer
    where that is most; the band itself and what becomes of it, as pixels and on the way there.
    """
    sizes = _sizes(layers, width, height)
    kept = sum(prod(s.kept) for s in sizes)
    read, made = max(s.read for s in sizes), max(s.made for s in sizes)
    within = max(s.inside for s in sizes)
    ends = 3 * (int(layers[0].weight.shape[1]) * width * height + sizes[-1].made)
    waiting = prod(_waiting(layers, width, height)) if image_skip else 0
    return 4 * (kept + read + made + within + ends + waiting)


def reach(layers: Sequence[Layer]) -> int:
    """The distance, in input pixels, from which a pixel may still change an output pixel."""
    return sum(-(-(layer.kernel_size // 2) // scale) for layer, scale in zip(layers, scales_of(layers), strict=False))


@dataclass(frozen=True)
class _Size:
    """Memory of a layer, in numbers: the shape of what it keeps, the most that it reads, makes, and needs inside."""

    kept: tuple[int, int, int]
    read: int
    made: int
    inside: int


def _sizes(layers: Sequence[Layer], width: int, height: int) -> list[_Size]:
    sizes = []
    down = 0
    for layer, scale in zip(layers, scales_of(layers), strict=False):
        c_out, c_in = layer.weight.shape[:2]
        across, down = width * scale, max(down, height * scale, layer.kernel_size // 2)  # zeros below may be more rows
        reads = (down + layer.kernel_size - 1) * across
        kept = (c_in, layer.kernel_size - 1, across)
        sizes.append(_Size(kept, c_in * reads, c_out * down * across, count_inside(layer, reads, down * across)))
        down *= layer.shuffle
    return sizes


def _waiting(layers: Sequence[Layer], width: int, height: int) -> tuple[int, int, int]:
    """The shape of the most rows of the image that wait for what they are added to."""
    return int(layers[0].weight.shape[1]), reach(layers) + height, width


def _view(flat: NDArray[Any], *shape: int) -> Rows:
    view: Rows = flat[: shape[0] * shape[1] * shape[2]].reshape(shape)
    return view


def scales_of(layers: Sequence[Layer]) -> list[int]:
    """Scales of each layer's input, and of the output, relative to the image."""
    return list(accumulate((layer.shuffle for layer in layers), mul, initial=1))
