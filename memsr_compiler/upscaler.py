"""Images through a plain network in a given amount of memory: how they are cut, and numpy in and out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memsr_compiler.bands import Stage, live_bytes, reach, run_bands, stages
from memsr_compiler.errors import InvalidInput
from memsr_compiler.modules import copied
from memsr_compiler.plain import PlainNet
from memsr_compiler.storage import load_plain

ROWS = 32  # of a band, at most: more are hardly faster
PEAKS = {"uint8": 255, "uint16": 65535}  # of whole-number pixels; floating ones are 0..1

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Cut:
    """How an image goes through: bands of `rows` rows, columns of `columns` pixels, both before the halo."""

    rows: int
    columns: int


class Upscaler:
    """A plain network for images of any size, with a limit on the feature maps that are held.

        with Upscaler("student.safetensors", max_memory=64 << 20) as upscale:
            large = upscale(small)  # (H, W, 3) -> (scale * H, scale * W, 3), in the dtype that is given

    The result is the whole-frame one, to rounding.  Images and results themselves are not counted, nor is what the C
    library's allocator keeps of what was freed, which can be several times as much (`benchmarks/bands.py`).
    """

    def __init__(self, model: PlainNet | str | Path, *, max_memory: int | None = None) -> None:
        """model        a plain network, or its file
        max_memory   bytes of live feature maps (`bands.live_bytes`); None: as bands of 32 rows take

        Raises InvalidInput for a file that is no plain network, and one that cannot be run by bands.
        """
        net = model if isinstance(model, PlainNet) else load_plain(model, require_certificate=False)
        single = copied(net, torch.float32)  # the caller's stays as it is
        assert isinstance(single, PlainNet)
        self._net = single
        self._layers = stages(self._net)
        self._turned = tuple(layer.turned() for layer in self._layers)
        self._max_memory = max_memory

    def __enter__(self) -> Upscaler:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to give back: all that is held between two images is the network."""

    def __call__(self, image: Pixels) -> Pixels:
        """uint8, uint16 or floating 0..1; (H, W, 3), or for networks on Y (H, W) or (H, W, 1).

        Raises InvalidInput for another shape or dtype, and where the limit is below what a single pixel takes.
        """
        pixels = self._checked(image)
        tall = pixels.shape[0] >= pixels.shape[1]  # bands go along the longer axis
        if tall:
            result = self._whole(pixels, self._layers)
        else:
            result = self._whole(pixels.transpose(1, 0, 2), self._turned).transpose(1, 0, 2)
        return result if image.ndim == 3 else result[..., 0]

    def bands(self, image: Pixels) -> Iterator[Pixels]:
        """The result from the top, some rows at a time.  Raises InvalidInput as a call, or if columns are needed."""
        pixels = self._checked(image)
        cut = self.cut(pixels.shape[0], pixels.shape[1], self._layers)
        if cut.columns < pixels.shape[1]:
            raise InvalidInput(f"rows of {pixels.shape[1]} pixels do not fit into the limit; call it for all at once")
        for made in run_bands(self._layers, pixels.shape[1], self._rows(pixels, cut.rows)):
            if made.shape[2]:
                yield self._pixels(made, pixels.dtype)

    def cut(self, height: int, width: int, layers: tuple[Stage, ...]) -> Cut:
        """The largest bands, or else the widest columns, within the limit.  Raises InvalidInput if it is too small."""
        limit, halo = self._max_memory, reach(layers)
        rows = min(ROWS, height)
        if limit is None:
            return Cut(rows, width)
        while rows > 1 and live_bytes(layers, width, rows) > limit:
            rows -= 1
        if live_bytes(layers, width, rows) <= limit:
            return Cut(rows, width)
        each = live_bytes(layers, 1, 1)
        columns = limit // each - 2 * halo
        if columns < 1:
            least = each * min(width, 2 * halo + 1)
            raise InvalidInput(f"{limit:,} bytes are too few: a column of one pixel and its halo take {least:,}")
        return Cut(1, columns)

    def _whole(self, pixels: Pixels, layers: tuple[Stage, ...]) -> Pixels:
        """Column by column, each with its halo where it is cut, band by band."""
        height, width, channels = pixels.shape
        scale, halo = self._net.scale, reach(layers)
        cut = self.cut(height, width, layers)
        result = np.empty((height * scale, width * scale, channels), pixels.dtype)
        for left in range(0, width, cut.columns):
            right = min(left + cut.columns, width)
            start, end = max(left - halo, 0), min(right + halo, width)
            row = 0
            for made in run_bands(layers, end - start, self._rows(pixels[:, start:end], cut.rows)):
                inner = made[..., (left - start) * scale : (right - start) * scale]
                below = row + inner.shape[2]
                result[row:below, left * scale : right * scale] = self._pixels(inner, pixels.dtype)
                row = below
        return result

    def _checked(self, image: Pixels) -> Pixels:
        """(H, W, C)"""
        channels = self._net.info.channels
        if image.dtype.name not in PEAKS and not np.issubdtype(image.dtype, np.floating):
            raise InvalidInput(f"image of dtype {image.dtype}; give uint8, uint16, or floating 0..1")
        pixels = image[..., None] if image.ndim == 2 else image
        if pixels.ndim != 3 or pixels.shape[2] != channels or pixels.size == 0:
            raise InvalidInput(f"image of shape {image.shape}; the network takes (H, W, {channels})")
        return pixels

    def _rows(self, pixels: Pixels, rows: int) -> Iterator[Tensor]:
        """Bands (1, C, h, W) as the network takes them."""
        low, high = self._net.info.input_range
        peak = PEAKS.get(pixels.dtype.name, 1)
        for top in range(0, pixels.shape[0], rows):
            band = np.ascontiguousarray(pixels[top : top + rows].transpose(2, 0, 1)[None], dtype=np.float32)
            yield torch.from_numpy(band) * ((high - low) / peak) + low

    def _pixels(self, made: Tensor, dtype: np.dtype[Any]) -> Pixels:
        """(1, C, h, W) -> (h, W, C) in the image's dtype, clipped and rounded where that is of whole numbers."""
        low, high = self._net.info.input_range
        values: Pixels = ((made - low) / (high - low))[0].permute(1, 2, 0).numpy()
        if dtype.name not in PEAKS:
            return values.astype(dtype)
        peak = PEAKS[dtype.name]
        rounded: Pixels = np.rint(np.clip(values, 0, 1) * peak).astype(dtype)
        return rounded
