"""One image file made larger by a network, from file to file: by bands, by columns, or whole.

Whatever the file has beside its colours (alpha, ICC profile, EXIF, ...) stays: `images.streams`.  A network that takes
Y gets Y of ITU-R BT.601, and what it makes of it replaces Y of the image that bicubic interpolation has enlarged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from memsr_compiler.beside import read_ahead
from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.limits import require_holds
from memsr_compiler.images.resize import REACH, enlarge_rows
from memsr_compiler.images.streams import ENCODERS, RowBuffer, RowFile
from memsr_compiler.images.transparency import working_bytes
from memsr_compiler.locks import temporary_folder
from memsr_compiler.plain.info import Takes
from memsr_compiler.runtime.upscaler import ROWS, Upscaler, to_pixels, to_rows

if TYPE_CHECKING:
    from memsr_compiler.runtime.runners import Network

Pixels = NDArray[Any]

LUMA = np.array([65.481, 128.553, 24.966], np.float32) / 255  # of ITU-R BT.601, studio range: Y = 16 / 255 + LUMA . RGB
LUMA_RANGE = 219 / 255


class RowEngine(Protocol):
    """A way to run a network on an image that comes by rows."""

    @property
    def takes(self) -> Takes:
        """The images that the network takes."""

    @property
    def assumed(self) -> tuple[str, ...]:
        """Words on what the network's file does not say, as it was read: see `Teacher.assumed`."""

    def rows(self, width: int, height: int) -> int:
        """The most rows that it wants at a time."""

    def reach(self, width: int, height: int) -> int:
        """The distance, in its input's pixels, from which a pixel may still change an output pixel."""

    def leave(self, memory: int) -> RowEngine:
        """The same engine, within a limit of memory that is lower by so many bytes, if there is one."""

    def run(self, bands: Iterator[Pixels], width: int, height: int, dtype: DTypeLike = np.float32) -> Iterator[Pixels]:
        """Run on bands (h, width, C), uint8, uint16 or float32 in 0..1 -> (h', scale * width, C) in `dtype`, of these.

        A result in float32 may go beyond 0..1.
        """


@dataclass(frozen=True)
class ByBands:
    """A plain network; an image too wide for the limit is written into `folder`, raw, to be cut into columns."""

    upscaler: Upscaler
    folder: Path

    @property
    def takes(self) -> Takes:
        info = self.upscaler.info
        return Takes(info.scale, info.channels, info.input_range)

    @property
    def assumed(self) -> tuple[str, ...]:
        return ()  # a plain network's file says all

    def rows(self, width: int, height: int) -> int:
        return self.upscaler.rows(width) if self.upscaler.streams(width) else ROWS

    def reach(self, width: int, height: int) -> int:
        return self.upscaler.reach

    def leave(self, memory: int) -> ByBands:
        return replace(self, upscaler=self.upscaler.leave(memory))

    def run(self, bands: Iterator[Pixels], width: int, height: int, dtype: DTypeLike = np.float32) -> Iterator[Pixels]:
        if self.upscaler.streams(width):
            yield from self.upscaler.stream(bands, width, dtype)
            return
        scale, channels = self.takes.scale, self.takes.channels
        with temporary_folder(self.folder) as folder:
            small = _on_disk(folder / "image", (height, width, channels), dtype)
            top = 0
            for band in bands:
                small[top : top + len(band)] = band
                top += len(band)
            large = _on_disk(folder / "result", (height * scale, width * scale, channels), dtype)
            self.upscaler(small, out=large)
            yield from (np.array(large[row : row + ROWS]) for row in range(0, len(large), ROWS))


def _on_disk(path: Path, shape: tuple[int, int, int], dtype: DTypeLike) -> Pixels:
    """An array of numbers in a file.

    Raises OSError where there is no room: later, the process would be killed for it.
    """
    with open(path, "xb") as file:
        zeros = bytes(np.dtype(dtype).itemsize * shape[1] * shape[2])
        for _ in range(shape[0]):
            file.write(zeros)
    return np.memmap(path, dtype, "r+", shape=shape)


@dataclass(frozen=True)
class WholeFrame:
    """Any network, on the image as a whole."""

    network: Network
    takes: Takes
    assumed: tuple[str, ...] = ()

    def rows(self, width: int, height: int) -> int:
        return height

    def reach(self, width: int, height: int) -> int:
        return max(width, height)

    def leave(self, memory: int) -> WholeFrame:
        return self

    def run(self, bands: Iterator[Pixels], width: int, height: int, dtype: DTypeLike = np.float32) -> Iterator[Pixels]:
        import torch  # here, as plain networks run without it

        for image in bands:
            with torch.no_grad():
                output = self.network(torch.from_numpy(to_rows(image, self.takes.input_range))[None])
            made, due = tuple(output.shape[-2:]), tuple(side * self.takes.scale for side in image.shape[:2])
            if made != due:
                raise InvalidInput(
                    f"the network makes {made[1]}x{made[0]} pixels of {width}x{height}, and says that it enlarges by "
                    f"{self.takes.scale}: its file was changed, make it again"
                )
            yield to_pixels(output[0].float().numpy(), self.takes.input_range, dtype)


def enlarge_file(
    engine: RowEngine,
    image: RowFile,
    target: Path,
    scale: int,
    on_rows: Callable[[int], None] | None = None,
    on_whole: Callable[[Path], None] | None = None,
) -> None:
    """Write `image`, `scale` times as large, to `target`, whole or not at all.

    scale     the network's own; any for one that works on enlarged images (scale 1)
    on_rows   hears how many rows of the result have been written
    on_whole  hears where the whole result is before it takes its name

    Raises InvalidInput for a damaged image and a limit that is too small, ExportError where it cannot be written.
    """
    if engine.takes.scale not in (1, scale):
        raise InvalidInput(f"the network enlarges by {engine.takes.scale}, not by {scale}")
    require_holds(target, image.width * scale, image.height * scale)
    source = Source(image, _reach(engine, image, scale) if image.keeps_alpha(target) else None)
    engine = _leave_room(engine, image, source.reach, target, scale)
    image.save(target, _enlarge(engine, source, scale), scale, on_rows, on_whole)


def enlarge_pixels(engine: RowEngine, pixels: Pixels, scale: int, out: Pixels) -> None:
    """Enlarge (H, W, 3), or (H, W, 1) of grey, uint8 or uint16, into `out`: what a file of these pixels becomes."""
    top = 0
    for rows in _enlarge(engine, Source(HeldImage(pixels), None), scale):
        out[top : top + len(rows)] = rows
        top += len(rows)


class RowImage(Protocol):
    """An image whose pixels can be had from the top; its attributes are those of `RowFile`."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]: ...

    def bands(self, rows: int, reach: int | None = None) -> Iterator[Pixels]: ...


@dataclass(frozen=True)
class HeldImage:
    """An image in memory, (H, W, channels)."""

    pixels: Pixels

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[2])

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        kind: type[np.uint8] | type[np.uint16] = self.pixels.dtype.type
        return kind

    def bands(self, rows: int, reach: int | None = None) -> Iterator[Pixels]:
        return (self.pixels[top : top + rows] for top in range(0, self.height, rows))


@dataclass(frozen=True)
class Source:
    """An image and how its colours are read.

    reach   how far, in its pixels, visible colours are extended under transparent ones; None: all stay as they are
    """

    image: RowImage
    reach: int | None

    def levels(self, rows: int) -> Iterator[Pixels]:
        """The image's bands, in its own dtype."""
        return self.image.bands(rows, self.reach)

    def colours(self, rows: int, scale: int) -> Iterator[Pixels]:
        """The image's bands, enlarged by bicubic interpolation: float32 in 0..1."""
        bands = self.levels(rows)
        peak = np.iinfo(self.image.dtype).max
        for band in bands if scale == 1 else enlarge_rows(bands, scale):
            yield (band / peak).astype(np.float32)


def _reach(engine: RowEngine, image: RowFile, scale: int) -> int:
    """Pixels from which a visible output pixel may still take colours: bicubic makes alpha, and what networks get."""
    before = scale // engine.takes.scale
    return -(-engine.reach(image.width * before, image.height * before) // before) + 2 * REACH


def _leave_room(engine: RowEngine, image: RowFile, reach: int | None, target: Path, scale: int) -> RowEngine:
    """The engine, in the memory that is left: by an image or a result held whole, and where colours are extended.

    Raises InvalidInput where that is too little.
    """
    passes = 1 + (engine.takes.channels == 1) + (reach is not None)
    held = image.held_bytes(target, scale, passes)
    extended = 0
    if reach is not None:
        each = working_bytes(image.width, image.channels, np.dtype(image.dtype).itemsize, reach)
        extended = each * (passes - 1)
    try:
        return engine.leave(held + extended)
    except InvalidInput as error:
        what = image.say_held(target, scale) if held else "transparency, whose colours are extended"
        raise InvalidInput(
            f"{image.path}: {what}: takes {error}: allow more, or {_say_way_out(image, target)}"
        ) from None


def _say_way_out(image: RowFile, target: Path) -> str:
    """Words on what else takes less memory than this image's enlargement."""
    if image.whole:
        return "save it anew, as a PNG that is not interlaced"
    if target.suffix.lower() in ENCODERS:
        return "write another format than WebP"
    return "write JPEG, which has no transparency"


def _enlarge(engine: RowEngine, source: Source, scale: int) -> Iterator[Pixels]:
    """Bands of the result, in the image's dtype."""
    if engine.takes.channels == 1:
        return _round(_by_luma(engine, source, scale), source.image.dtype)
    if source.image.channels == 1:
        return _round(_by_grey(engine, source, scale), source.image.dtype)
    return _run(engine, source, scale, _leave, source.image.dtype)


def _round(bands: Iterator[Pixels], dtype: DTypeLike) -> Iterator[Pixels]:
    """Whole numbers of values in 0..1."""
    peak = np.iinfo(np.dtype(dtype)).max
    return (np.rint(np.clip(rows, 0, 1) * peak).astype(dtype) for rows in bands)


def _by_grey(engine: RowEngine, source: Source, scale: int) -> Iterator[Pixels]:
    """Enlarge a grey image by a network on RGB: it is given as three equal channels, their mean comes back."""
    for rows in _run(engine, source, scale, lambda grey: grey.repeat(3, axis=2)):
        yield rows.mean(axis=2, keepdims=True)


def _by_luma(engine: RowEngine, source: Source, scale: int) -> Iterator[Pixels]:
    """Enlarge by a network on Y, the rest by bicubic interpolation.

    With its colour differences unchanged, a pixel whose Y rises by d has d / LUMA_RANGE more of every colour.
    """
    bicubic = RowBuffer(source.colours(ROWS, scale))
    for rows in _run(engine, source, scale, _luma):
        colours = bicubic.take(len(rows))
        yield colours + (rows - _luma(colours)) / LUMA_RANGE


def _leave(colours: Pixels) -> Pixels:
    return colours


def _run(
    engine: RowEngine,
    source: Source,
    scale: int,
    prepared: Callable[[Pixels], Pixels],
    dtype: DTypeLike = np.float32,
) -> Iterator[Pixels]:
    """Run the network on the prepared image; one of scale 1 is given what bicubic interpolation has enlarged."""
    before = scale // engine.takes.scale
    width, height = source.image.width * before, source.image.height * before
    at_once = max(engine.rows(width, height) // before, 1)
    whole = before == 1 and dtype == source.image.dtype  # numbers that the network takes as they are
    bands = read_ahead(source.levels(at_once) if whole else source.colours(at_once, before))
    rows, height_of_band = RowBuffer(bands), engine.rows(width, height)
    cut = (rows.take(min(height_of_band, height - top)) for top in range(0, height, height_of_band))
    return engine.run(map(prepared, cut), width, height, dtype)


def _luma(colours: Pixels) -> Pixels:
    """(h, W, 3), or (h, W, 1) of grey -> (h, W, 1), float32 in 0..1 like the colours."""
    y: Pixels = colours @ LUMA[:, None] if colours.shape[2] == 3 else colours * LUMA.sum()
    y += np.float32(16 / 255)
    return y
