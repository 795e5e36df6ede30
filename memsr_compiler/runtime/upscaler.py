"""Images through a plain network in a given amount of memory: how they are cut, and numpy in and out."""

from __future__ import annotations

import copy
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from memsr_compiler.checks import require_threads
from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.images.files import require_levels
from memsr_compiler.models.catalogue import find_file
from memsr_compiler.plain.info import PlainInfo, takes_images
from memsr_compiler.plain.read import PlainFile, read_plain_file
from memsr_compiler.quantities import Amount, count, size_in_bytes
from memsr_compiler.runtime.bands import Rows, live_bytes, reach, require_local, run_bands
from memsr_compiler.runtime.device_bands import DeviceBands, device_bytes, least_rows
from memsr_compiler.runtime.ort import Provider, require_provider
from memsr_compiler.runtime.ort_layers import Layer, OrtLayers

if TYPE_CHECKING:  # a file is run without torch
    from memsr_compiler.plain.network import PlainNet

ROWS = 16  # of a band, at most: with more, not even 64 channels are faster
DEVICE_ROWS = 1024  # on a GPU, of a band of an image that comes by bands itself
DEVICE_MEMORY = 1 << 30  # bytes of a GPU's memory, unless told
SLACK = 4 << 20  # bytes: Python's objects, and what arena and C library round up
PEAKS = {"uint8": 255, "uint16": 65535}  # of whole-number pixels; floating ones are 0..1

Pixels = NDArray[Any]
Engine: TypeAlias = "OrtLayers | DeviceBands"


@dataclass(frozen=True)
class Cut:
    """The pieces in which an image goes through: bands of `rows` rows, columns of `columns` pixels, before the halo."""

    rows: int
    columns: int


class Upscaler:
    """A plain network for images of any size, in ONNX Runtime, with a limit on the memory that it takes.

        with Upscaler("student.onnx", max_memory="64MB") as upscale:
            large = upscale(small)  # (H, W, 3) -> (scale * H, scale * W, 3), in the dtype that is given

    The result is the whole-frame one, to rounding.  The limit is about what an image takes beyond the loaded network,
    the image and the result; `needed` says how much that is.  On a GPU it is about the memory there: bands are as high
    as it allows, the whole image if that fits, and a network in float16 is run so.
    """

    def __init__(
        self,
        model: PlainNet | PlainFile | str | PathLike[str],
        *,
        max_memory: Amount | None = None,
        columns: int | None = None,
        threads: int | None = None,
        provider: Provider = "cpu",
    ) -> None:
        """Take a network, and say in how much memory and where it runs.

        model        a plain network, its file, what has been read of that, or the name of one that ships: "x2-small"
        max_memory   bytes, or "64MB"; None: as bands of 16 rows take, or as this machine has; on a GPU 1 GiB of its own
        columns      pixels that are processed side by side, at most, the halo not counted; None: as the limit has it
        threads      of the processor; None: one for each core, at most 8
        provider     "cpu", "cuda", or "tensorrt" with CUDA for what it does not take

        Raises InvalidInput for what is no plain network, one that cannot be run by bands, numbers below 1, and a
        provider that is not to be had; MemsrError if no ONNX Runtime is installed.
        """
        self._max_memory = None if max_memory is None else size_in_bytes("max_memory", max_memory)
        self._columns = None if columns is None else count("columns", columns)
        require_threads(threads)
        self._threads = threads
        self.info, layers = _open(model)
        require_local(self.info)
        require_provider(provider)
        self._provider: Provider = provider
        copied = _copy_in_halves if self._on_device else Layer.to_float32  # the network may be changed afterwards
        layers = tuple(copied(layer) for layer in layers)
        turned = tuple(layer.transpose() for layer in layers)
        self._shuffle = 1  # of what the layers here make, the factor of the pixel shuffle that is left to do
        if not self._on_device:
            layers, self._shuffle = _take_shuffle(layers)
            turned, _ = _take_shuffle(turned)
        self._layers, self._turned = layers, turned
        self._engines = _Engines()
        self._taken = 0  # bytes of the limit that something else has, see `leave`

    def __enter__(self) -> Upscaler:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the layers go; what the arena holds stays for the next Upscaler of this process."""
        self._engines = _Engines()

    def __call__(self, image: ArrayLike, *, out: Pixels | None = None) -> Pixels:
        """Enlarge an image, (H, W, 3), or for networks on Y (H, W) or (H, W, 1); uint8, uint16 or floating 0..1.

        image  an array, or what numpy makes one of: an image of Pillow, lists of numbers 0..1
        out    where the result goes, of its shape and dtype; say, a memory-mapped file

        Raises InvalidInput for another shape or dtype, floating values that are no levels of 0..1, and where the limit
        is below what a single pixel takes.
        """
        array = _as_array(image, self.info.channels)
        pixels = array[..., None] if array.ndim == 2 else array
        height, width, channels = pixels.shape
        shape = (height * self.info.scale, width * self.info.scale, channels)[: array.ndim]
        if out is not None and not isinstance(out, np.ndarray):
            raise InvalidInput(f"out is a {type(out).__name__}; want an array for the result, {array.dtype} {shape}")
        if out is not None and (out.shape != shape or out.dtype != array.dtype):
            raise InvalidInput(f"out is {out.dtype} {out.shape}; the result is {array.dtype} {shape}")
        if out is not None and np.may_share_memory(array, out):
            array = array.copy()  # bands are written before the last of it has been read
            pixels = array[..., None] if array.ndim == 2 else array
        result = np.empty(shape, pixels.dtype) if out is None else out
        result = result[..., None] if array.ndim == 2 else result  # a view, so what is written is in `out`
        if height >= width:  # bands go along the longer axis
            self._whole(pixels, result, self._layers, self._engine())
        else:
            self._whole(pixels.swapaxes(0, 1), result.swapaxes(0, 1), self._turned, self._turned_engine())
        return result if array.ndim == 3 else result[..., 0]

    def bands(self, image: ArrayLike) -> Iterator[Pixels]:
        """The result from the top, some rows at a time.  Raises InvalidInput as a call, or if columns are needed."""
        array = _as_array(image, self.info.channels)
        pixels = array[..., None] if array.ndim == 2 else array
        rows = self.rows(pixels.shape[1])
        each = (pixels[top : top + rows] for top in range(0, len(pixels), rows))
        yield from self.stream(each, pixels.shape[1], pixels.dtype)

    def stream(self, bands: Iterable[Pixels], width: int, dtype: DTypeLike) -> Iterator[Pixels]:
        """The result from the top, of an image that comes by bands (h, width, C) itself, h at most `rows(width)`."""
        rows = (to_rows(band, self.info.input_range) for band in bands)
        results = self._run(self._layers, self._engine(), width, self.rows(width), rows)
        yield from (to_pixels(rows, self.info.input_range, dtype, self._shuffle) for rows in results if rows.size)

    def streams(self, width: int) -> bool:
        """Whether an image that wide goes through in one piece, without columns.  Raises InvalidInput as a call."""
        return self._cut(self._most_rows, width).columns >= width

    def rows(self, width: int) -> int:
        """The height of a band, for an image that wide.  Raises InvalidInput where it has to be cut into columns."""
        if not self.streams(width):
            why = f"take {self.needed(width, 1):,} bytes" if self._columns is None else f"are cut at {self._columns}"
            raise InvalidInput(f"rows of {width:,} pixels {why}: give the whole image at once, or allow more")
        return self._cut(self._most_rows, width).rows

    @property
    def reach(self) -> int:
        """The distance, in input pixels, from which a pixel may still change an output pixel."""
        return reach(self._layers)

    def leave(self, memory: int) -> Upscaler:
        """The same network with a limit that is lower by so many bytes, which something else takes.

        Raises InvalidInput where nothing is left.
        """
        if self._max_memory is None or not memory:
            return self
        if memory >= self._max_memory:
            raise InvalidInput(f"{memory:,} bytes, where {self._max_memory:,} are allowed in all")
        other = copy.copy(self)  # with the same engines
        other._max_memory, other._taken = self._max_memory - memory, self._taken + memory
        return other

    def needed(self, width: int, rows: int) -> int:
        """Bytes that bands of `rows` rows of `width` pixels take, at most."""
        count_bytes = device_bytes if self._on_device else live_bytes
        return count_bytes(self._layers, width, rows, image_skip=bool(self.info.image_skip)) + SLACK

    @property
    def _on_device(self) -> bool:
        return self._provider != "cpu"

    @property
    def _most_rows(self) -> int:
        """Rows of a band of an image that comes by bands itself."""
        return DEVICE_ROWS if self._on_device else ROWS

    def _cut(self, height: int, width: int) -> Cut:
        """The highest bands, or else the widest columns, within the limit.  Raises InvalidInput if it is too small."""
        halo, limit = reach(self._layers), self._max_memory
        if limit is None:
            limit = DEVICE_MEMORY if self._on_device else _machine_memory()
        columns = min(self._columns or width, width)
        across = min(columns + 2 * halo, width)
        least = min(least_rows(self._layers), height) if self._on_device else 1
        most = height if self._on_device else min(ROWS, height)
        if limit is None:
            return Cut(most, columns)
        heights = range(least, most + 1)
        fitting = bisect_right(heights, limit, key=lambda rows: self.needed(across, rows))
        if fitting:
            return Cut(heights[fitting - 1], columns)
        each = self.needed(1, least) - SLACK
        columns = (limit - SLACK) // each - 2 * halo
        if columns < 1:
            pixels = each * min(width, 2 * halo + 1) + SLACK
            besides = f", besides {self._taken:,} for the image," if self._taken else ""
            raise InvalidInput(
                f"{limit:,} bytes{besides} are too few: a column of one pixel and its halo take {pixels:,}"
            )
        return Cut(least, columns)

    def _run(
        self, layers: tuple[Layer, ...], engine: Engine, width: int, height: int, bands: Iterable[Rows]
    ) -> Iterator[Rows]:
        if isinstance(engine, DeviceBands):
            return engine.run(bands)
        return run_bands(layers, engine, width, height, bands, image_skip=bool(self.info.image_skip))

    def _whole(self, pixels: Pixels, result: Pixels, layers: tuple[Layer, ...], engine: Engine) -> None:
        """Enlarge column by column, each with its halo where it is cut, band by band."""
        height, width, _ = pixels.shape
        scale, halo = self.info.scale, reach(layers)
        cut = self._cut(height, width)
        for left in range(0, width, cut.columns):
            right = min(left + cut.columns, width)
            start, end = max(left - halo, 0), min(right + halo, width)
            bands = (
                to_rows(pixels[top : top + cut.rows, start:end], self.info.input_range)
                for top in range(0, height, cut.rows)
            )
            row = 0
            for rows in self._run(layers, engine, end - start, cut.rows, bands):
                s = scale // self._shuffle
                inner = rows[..., (left - start) * s : (right - start) * s]
                below = row + inner.shape[1] * self._shuffle
                made = to_pixels(inner, self.info.input_range, pixels.dtype, self._shuffle)
                result[row:below, left * scale : right * scale] = made
                row = below

    def _engine(self) -> Engine:
        engines = self._engines
        if engines.upright is None:
            engines.upright = self._start(self._layers)
        return engines.upright

    def _turned_engine(self) -> Engine:
        engines = self._engines
        if engines.turned is None:
            engines.turned = self._start(self._turned)
        return engines.turned

    def _start(self, layers: tuple[Layer, ...]) -> Engine:
        if self._on_device:
            return DeviceBands(layers, image_skip=bool(self.info.image_skip), provider=self._provider)
        return OrtLayers(layers, threads=self._threads)


@dataclass
class _Engines:
    """The layers made ready to run, as they are and with rows for columns: made where they are first needed."""

    upright: Engine | None = None
    turned: Engine | None = None


def _copy_in_halves(layer: Layer) -> Layer:
    """A copy in float16, or in float32 where the layer is not in that."""
    return layer.astype(np.float16 if layer.weight.dtype == np.float16 else np.float32)


def _open(model: PlainNet | PlainFile | str | PathLike[str]) -> tuple[PlainInfo, tuple[Layer, ...]]:
    """The network's info and layers.  Raises InvalidInput for what is no plain network."""
    name = "the network"
    if isinstance(model, (str, PathLike)):
        name = os.fspath(model)
        model = read_plain_file(find_file(name), require_certificate=False)
    if isinstance(model, PlainFile):
        info, layers = model.manifest.info, _layers_in(model)
    else:
        from memsr_compiler.plain.network import require_plain  # with torch, which a file is run without

        require_plain(model)
        info, layers = model.info, layers_of(model)
    takes_images(info, len(layers[-1].weight), layers[-1].shuffle, name)
    return info, layers


def _as_array(image: object, channels: int) -> Pixels:
    """The image as an array that a network of so many channels takes.  Raises InvalidInput if it is none."""
    shape = f"(H, W, {channels})" if channels > 1 else "(H, W) or (H, W, 1)"
    wanted = f"give an array {shape} of uint8, uint16, or floating 0..1"
    if type(image).__module__.partition(".")[0] == "torch":
        raise InvalidInput(f"the image is a torch tensor; {wanted}: x[0].permute(1, 2, 0).cpu().numpy()")
    if image is None or isinstance(image, (str, bytes, PathLike)):
        raise InvalidInput(f"the image is a {type(image).__name__}; {wanted}")
    try:
        array = np.asarray(image)
    except (TypeError, ValueError) as error:  # numpy's, for lists of different lengths
        raise InvalidInput(f"the image is no array ({first_line(error)}); {wanted}") from None
    if array.dtype.name not in PEAKS and not np.issubdtype(array.dtype, np.floating):
        raise InvalidInput(f"image of dtype {array.dtype}; {wanted}")
    planes = array[..., None] if array.ndim == 2 else array
    if planes.ndim != 3 or planes.shape[2] != channels or planes.size == 0:
        turn = "; its channels come first: image.transpose(1, 2, 0)" if array.shape[:-2] == (channels,) else ""
        raise InvalidInput(f"image of shape {array.shape}; the network takes {shape}{turn}")
    require_levels(array, "the image")
    return array


def layers_of(net: PlainNet) -> tuple[Layer, ...]:
    """The layers of a network, in its dtype."""
    return tuple(
        Layer(x.weight.numpy(), x.bias.numpy(), x.relu, x.shuffle, None if x.slope is None else x.slope.numpy())
        for x in net.checkable()
    )


def _take_shuffle(layers: tuple[Layer, ...]) -> tuple[tuple[Layer, ...], int]:
    """The layers without the last one's pixel shuffle, and its factor: it costs least where pixels are put in place."""
    last = layers[-1]
    return (*layers[:-1], replace(last, shuffle=1)), last.shuffle


def _layers_in(file: PlainFile) -> tuple[Layer, ...]:
    numbers = file.tensors
    return tuple(
        Layer(
            numbers[f"layers.{i}.weight"],
            numbers[f"layers.{i}.bias"],
            layer.relu,
            layer.shuffle,
            numbers.get(f"layers.{i}.slope"),
        )
        for i, layer in enumerate(file.manifest.layers)
    )


def _machine_memory() -> int | None:
    """Bytes of memory that this machine has; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return None


def to_rows(band: Pixels, input_range: tuple[float, float]) -> Rows:
    """Pixels (h, W, C), uint8, uint16 or floating 0..1, as a network takes them: float32 (C, h, W)."""
    low, high = input_range
    rows: Rows = np.array(band.transpose(2, 0, 1), dtype=np.float32, order="C")
    rows *= (high - low) / PEAKS.get(band.dtype.name, 1)
    rows += low
    return rows


def to_pixels(rows: Rows, input_range: tuple[float, float], dtype: DTypeLike, shuffle: int = 1) -> Pixels:
    """(C * s * s, h, W) -> (s * h, s * W, C) in that dtype, clipped and rounded where it is of whole numbers.

    shuffle   s, the factor of the pixel shuffle that the rows have yet to go through

    Raises InvalidInput where a number is NaN or infinite: rounded it would be a black or white pixel.
    """
    if not np.isfinite(rows).all():
        raise InvalidInput(
            "the network's output is NaN or infinite for this image: it divides by zero there, or overflows; check its "
            "weights with memsrc inspect, or give it in float32"
        )
    low, high = input_range
    kind = np.dtype(dtype).name
    factor = PEAKS.get(kind, 1) / (high - low)
    values = rows if (low, factor) == (0, 1) else (rows - low) * factor
    if kind in PEAKS:
        values = np.clip(values, 0, PEAKS[kind])
        np.rint(values, out=values)
    planes, height, width = rows.shape
    channels = planes // shuffle**2
    pixels: Pixels = np.empty((height, shuffle, width, shuffle, channels), dtype)
    for i, plane in enumerate(values):  # plane by plane, which is three times as fast as in one go
        channel, place = divmod(i, shuffle**2)
        pixels[:, place // shuffle, :, place % shuffle, channel] = plane
    return pixels.reshape(height * shuffle, width * shuffle, channels)
