"""Images through a plain network in a given amount of memory: how they are cut, and numpy in and out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.read import PlainFile, read_plain_file
from memsr_compiler.runtime.bands import Rows, live_bytes, reach, require_local, run_bands
from memsr_compiler.runtime.ort_layers import OrtLayers, Stage

if TYPE_CHECKING:  # a file is run without torch
    from memsr_compiler.plain.network import PlainNet

ROWS = 32  # of a band, at most: more are hardly faster
SLACK = 4 << 20  # bytes: Python's objects, and what arena and C library round up
PEAKS = {"uint8": 255, "uint16": 65535}  # of whole-number pixels; floating ones are 0..1

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Cut:
    """How an image goes through: bands of `rows` rows, columns of `columns` pixels, both before the halo."""

    rows: int
    columns: int


class Upscaler:
    """A plain network for images of any size, in ONNX Runtime on the CPU, with a limit on the memory that it takes.

        with Upscaler("student.onnx", max_memory=64 << 20) as upscale:
            large = upscale(small)  # (H, W, 3) -> (scale * H, scale * W, 3), in the dtype that is given

    The result is the whole-frame one, to rounding.  The limit is about what an image takes beyond the loaded network,
    the image and the result; `needed` says how much that is.
    """

    def __init__(
        self,
        model: PlainNet | PlainFile | str | Path,
        *,
        max_memory: int | None = None,
        columns: int | None = None,
        threads: int | None = None,
    ) -> None:
        """model        a plain network, its file, or what has been read of that
        max_memory   bytes; None: as bands of 32 rows take
        columns      pixels that are processed side by side, at most, the halo not counted; None: as the limit has it
        threads      None: one for each core, at most 8

        Raises InvalidInput for a file that is no plain network, one that cannot be run by bands, and numbers below 1;
        MemsrError if no ONNX Runtime is installed.
        """
        for name, number in (("max_memory", max_memory), ("columns", columns), ("threads", threads)):
            if number is not None and (number < 1 or number != int(number)):
                raise InvalidInput(f"{name} {number!r}: want a whole number from 1 up, or None")
        if isinstance(model, (str, Path)):
            model = read_plain_file(model, require_certificate=False)
        if isinstance(model, PlainFile):
            self.info, layers = model.manifest.info, _layers_in(model)
        else:
            self.info, layers = model.info, layers_of(model)
        require_local(self.info)
        self._max_memory, self._columns, self._threads = max_memory, columns, threads
        self._layers = tuple(layer.single() for layer in layers)  # copies: the network may be changed afterwards
        self._upright: OrtLayers | None = None
        self._turned: tuple[tuple[Stage, ...], OrtLayers] | None = None

    def __enter__(self) -> Upscaler:
        return self

    def __exit__(self, *_: object) -> None:
        """Lets the layers go; what the arena holds stays for the next Upscaler of this process."""
        self._upright = self._turned = None

    def __call__(self, image: Pixels, *, out: Pixels | None = None) -> Pixels:
        """uint8, uint16 or floating 0..1; (H, W, 3), or for networks on Y (H, W) or (H, W, 1).

        out   where the result goes, of its shape and dtype; say, a memory-mapped file

        Raises InvalidInput for another shape or dtype, and where the limit is below what a single pixel takes.
        """
        pixels = self._checked(image)
        height, width, channels = pixels.shape
        shape = (height * self.info.scale, width * self.info.scale, channels)[: image.ndim]
        if out is not None and (out.shape != shape or out.dtype != image.dtype):
            raise InvalidInput(f"out is {out.dtype} {out.shape}; the result is {image.dtype} {shape}")
        result = np.empty(shape, pixels.dtype) if out is None else out
        result = result[..., None] if image.ndim == 2 else result  # a view, so what is written is in `out`
        if height >= width:  # bands go along the longer axis
            self._whole(pixels, result, self._layers, self._engine())
        else:
            self._whole(pixels.swapaxes(0, 1), result.swapaxes(0, 1), *self._engine_turned())
        return result if image.ndim == 3 else result[..., 0]

    def bands(self, image: Pixels) -> Iterator[Pixels]:
        """The result from the top, some rows at a time.  Raises InvalidInput as a call, or if columns are needed."""
        pixels = self._checked(image)
        rows = self.rows(pixels.shape[1])
        each = (pixels[top : top + rows] for top in range(0, len(pixels), rows))
        yield from self.stream(each, pixels.shape[1], pixels.dtype)

    def stream(self, bands: Iterable[Pixels], width: int, dtype: DTypeLike) -> Iterator[Pixels]:
        """The same for an image that comes by bands itself, (h, width, C) each, of at most `rows(width)` rows."""
        made = run_bands(
            self._layers,
            self._engine(),
            width,
            self.rows(width),
            (given(band, self.info.input_range) for band in bands),
        )
        yield from (pixels_of(rows, self.info.input_range, dtype) for rows in made if rows.size)

    def streams(self, width: int) -> bool:
        """Whether an image that wide goes through in one piece, without columns.  Raises InvalidInput as a call."""
        return self._cut(ROWS, width).columns >= width

    def rows(self, width: int) -> int:
        """Of a band, for an image that wide.  Raises InvalidInput where it has to be cut into columns."""
        if not self.streams(width):
            why = f"take {self.needed(width, 1):,} bytes" if self._columns is None else f"are cut at {self._columns}"
            raise InvalidInput(f"rows of {width:,} pixels {why}: give the whole image at once, or allow more")
        return self._cut(ROWS, width).rows

    def needed(self, width: int, rows: int) -> int:
        """Bytes that bands of `rows` rows of `width` pixels take, at most."""
        return live_bytes(self._layers, width, rows) + SLACK

    def _cut(self, height: int, width: int) -> Cut:
        """The highest bands, or else the widest columns, within the limit.  Raises InvalidInput if it is too small."""
        limit, halo = self._max_memory, reach(self._layers)
        columns = min(self._columns or width, width)
        across = min(columns + 2 * halo, width)
        rows = min(ROWS, height)
        if limit is None:
            return Cut(rows, columns)
        while rows > 1 and self.needed(across, rows) > limit:
            rows -= 1
        if self.needed(across, rows) <= limit:
            return Cut(rows, columns)
        each = live_bytes(self._layers, 1, 1)
        columns = (limit - SLACK) // each - 2 * halo
        if columns < 1:
            least = each * min(width, 2 * halo + 1) + SLACK
            raise InvalidInput(f"{limit:,} bytes are too few: a column of one pixel and its halo take {least:,}")
        return Cut(1, columns)

    def _whole(self, pixels: Pixels, result: Pixels, layers: tuple[Stage, ...], engine: OrtLayers) -> None:
        """Column by column, each with its halo where it is cut, band by band."""
        height, width, _ = pixels.shape
        scale, halo = self.info.scale, reach(layers)
        cut = self._cut(height, width)
        for left in range(0, width, cut.columns):
            right = min(left + cut.columns, width)
            start, end = max(left - halo, 0), min(right + halo, width)
            bands = (
                given(pixels[top : top + cut.rows, start:end], self.info.input_range)
                for top in range(0, height, cut.rows)
            )
            row = 0
            for made in run_bands(layers, engine, end - start, cut.rows, bands):
                inner = made[..., (left - start) * scale : (right - start) * scale]
                below = row + inner.shape[1]
                result[row:below, left * scale : right * scale] = pixels_of(inner, self.info.input_range, pixels.dtype)
                row = below

    def _engine(self) -> OrtLayers:
        if self._upright is None:
            self._upright = OrtLayers(self._layers, threads=self._threads)
        return self._upright

    def _engine_turned(self) -> tuple[tuple[Stage, ...], OrtLayers]:
        if self._turned is None:
            layers = tuple(layer.turned() for layer in self._layers)
            self._turned = layers, OrtLayers(layers, threads=self._threads)
        return self._turned

    def _checked(self, image: Pixels) -> Pixels:
        """(H, W, C)"""
        channels = self.info.channels
        if image.dtype.name not in PEAKS and not np.issubdtype(image.dtype, np.floating):
            raise InvalidInput(f"image of dtype {image.dtype}; give uint8, uint16, or floating 0..1")
        pixels = image[..., None] if image.ndim == 2 else image
        if pixels.ndim != 3 or pixels.shape[2] != channels or pixels.size == 0:
            raise InvalidInput(f"image of shape {image.shape}; the network takes (H, W, {channels})")
        return pixels


def layers_of(net: PlainNet) -> tuple[Stage, ...]:
    """The layers of a network, in its dtype."""
    return tuple(Stage(x.weight.numpy(), x.bias.numpy(), x.relu, x.shuffle) for x in net.checkable())


def _layers_in(file: PlainFile) -> tuple[Stage, ...]:
    numbers = file.tensors
    return tuple(
        Stage(numbers[f"layers.{i}.weight"], numbers[f"layers.{i}.bias"], layer.relu, layer.shuffle)
        for i, layer in enumerate(file.manifest.layers)
    )


def given(band: Pixels, input_range: tuple[float, float]) -> Rows:
    """Pixels (h, W, C), uint8, uint16 or floating 0..1, as a network takes them: float32 (C, h, W)."""
    low, high = input_range
    rows: Rows = np.array(band.transpose(2, 0, 1), dtype=np.float32, order="C")
    rows *= (high - low) / PEAKS.get(band.dtype.name, 1)
    rows += low
    return rows


def pixels_of(made: Rows, input_range: tuple[float, float], dtype: DTypeLike) -> Pixels:
    """(C, h, W) -> (h, W, C) in that dtype, clipped and rounded where it is of whole numbers."""
    low, high = input_range
    kind = np.dtype(dtype).name
    values = (made - low) * (PEAKS.get(kind, 1) / (high - low))
    if kind in PEAKS:
        np.rint(np.clip(values, 0, PEAKS[kind], out=values), out=values)
    pixels: Pixels = values.transpose(1, 2, 0).astype(dtype, order="C")
    return pixels
