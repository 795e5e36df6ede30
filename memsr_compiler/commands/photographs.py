"""Photographs that a student is derived from, and images that networks are scored on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memsr_compiler.commands.output import Talk
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.scores import TestImage
from memsr_compiler.images.files import crop_to_multiple, read_image, sample_photographs, to_image
from memsr_compiler.images.metrics import Protocol, luma, psnr, srcnn_input
from memsr_compiler.images.resize import resize
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.runtime.runners import Network
from memsr_compiler.student.calibration_images import photographs_as_inputs

Images = Sequence[NDArray[np.uint8]]

SCORED = 20  # photographs, at most: more tell hardly more, and take their time
SIDE = 512  # pixels; of larger photographs the middle is scored


@dataclass(frozen=True)
class Shape:
    """What a network takes and gives."""

    scale: int
    channels: int
    input_range: tuple[float, float]

    @staticmethod
    def of(info: PlainInfo) -> Shape:
        return Shape(info.scale, info.channels, info.input_range)


@dataclass(frozen=True)
class Photograph:
    """An image and what to call it: uint8 (H, W, 3)."""

    name: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """An image to score networks on.

    input      float64 (1, C, h, w), in the network's range
    high       what its output is compared with, uint8 (H, W, 3) or (H, W, 1)
    bicubic    the same made by bicubic interpolation, floating in 0..1
    shave      pixels that are not compared, on each side
    """

    name: str
    input: Tensor
    high: NDArray[np.uint8]
    bicubic: NDArray[Any]
    shave: int
    protocol: Protocol

    def score(self, output: NDArray[Any]) -> float:
        """PSNR on Y in dB."""
        return psnr(output, self.high, scale=self.shave, protocol=self.protocol)


@dataclass(frozen=True)
class Samples:
    """What is scored, and what that is in words."""

    images: tuple[Sample, ...]
    words: str


def read_photographs(folder: Path, talk: Talk, *, keep_grey: bool = False) -> list[Photograph]:
    """Every image in a folder, in order of name; what is not readable is named in a warning and passed over.

    Raises InvalidInput if the folder does not exist or holds no readable image.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder}: is no folder; give one with PNG or JPEG files")
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    found, unreadable = [], []
    for path in files:
        try:
            found.append(Photograph(path.name, read_image(path, keep_grey=keep_grey)))
        except InvalidInput:
            unreadable.append(path.name)
    if not found:
        named = f" ({', '.join(unreadable[:5])}{', ...' if len(unreadable) > 5 else ''})" if unreadable else ""
        raise InvalidInput(f"{folder}: no readable image in it{named}; give a folder of PNG or JPEG files")
    for name in unreadable:
        talk.warn(f"{folder / name}: not a readable image, passed over")
    return found


def scored_images(folder: Path | None, scale: int, talk: Talk, *, keep_grey: bool = False) -> list[TestImage]:
    """Folders HR and LR, HR images alone, or the photographs that ship.  Raises InvalidInput for what does not fit."""
    if folder is None:
        return [TestImage.of(f"photograph {i}", image, scale) for i, image in enumerate(sample_photographs(), 1)]
    pairs = (folder / "HR").is_dir()
    high = read_photographs(folder / "HR" if pairs else folder, talk, keep_grey=keep_grey)
    if not (pairs and (folder / "LR").is_dir()):
        return [TestImage.of(p.name, p.pixels, scale) for p in _large_enough(high, scale, folder, talk)]
    low = read_photographs(folder / "LR", talk, keep_grey=keep_grey)
    found = []
    for h, w in _matched(high, low, folder):
        tall, wide = (size * scale for size in w.pixels.shape[:2])
        cropped = h.pixels[:tall, :wide]
        if cropped.shape[:2] != (tall, wide) or max(h.pixels.shape[0] - tall, h.pixels.shape[1] - wide) >= scale:
            sizes = [f"{p.pixels.shape[1]}x{p.pixels.shape[0]}" for p in (h, w)]
            raise InvalidInput(f"{folder}: {h.name}: HR is {sizes[0]} and LR {sizes[1]}, which is not x{scale}")
        found.append(TestImage(h.name, cropped, w.pixels))
    return found


def _large_enough(photographs: Sequence[Photograph], scale: int, folder: Path, talk: Talk) -> list[Photograph]:
    """Those of which a small version can be made; the others are named."""
    found = [p for p in photographs if min(p.pixels.shape[:2]) >= scale]
    for p in photographs:
        if min(p.pixels.shape[:2]) < scale:
            talk.warn(f"{folder / p.name}: is smaller than {scale}x{scale} pixels, passed over")
    if not found:
        raise InvalidInput(
            f"{folder}: no image in it is large enough to be made {scale} times smaller; give larger ones"
        )
    return found


def calibration_inputs(photographs: Sequence[Photograph], shape: Shape, folder: Path, talk: Talk) -> list[Tensor]:
    """What the network is given for each photograph; what is too small for that is named and passed over.

    Raises InvalidInput if none is left.
    """
    return photographs_as_inputs(
        [(p.name, p.pixels) for p in photographs],
        str(folder),
        scale=shape.scale,
        channels=shape.channels,
        input_range=shape.input_range,
        on_skip=talk.warn,
    )


def calibration_samples(photographs: Sequence[Photograph] | None, shape: Shape) -> Samples:
    """The photographs that a student is derived from (None: those that ship), the middle of the first ones."""
    if photographs is None:
        chosen = [Photograph(f"photograph {i}", p) for i, p in enumerate(sample_photographs(), 1)]
        words = f"{len(chosen)} of the photographs it is derived from"
    else:
        chosen = list(photographs[:SCORED])
        some = f"{len(chosen)} of {len(photographs)}" if len(photographs) > len(chosen) else "the"
        words = f"{some} calibration photographs"
    if any(max(p.pixels.shape[:2]) > SIDE for p in chosen):
        words += f", at most {SIDE}x{SIDE} pixels of each"
    middles = [(Photograph(p.name, _middle(p.pixels)), _factor(shape, i)) for i, p in enumerate(chosen)]
    return Samples(tuple(_degraded(p, factor, shape) for p, factor in middles if _fits(p, factor)), words)


def data_samples(folder: Path, shape: Shape, talk: Talk) -> Samples:
    """The images in a folder, or in its folders HR and LR, whole.  Raises InvalidInput for what does not fit."""
    pairs = (folder / "HR").is_dir()
    grey = shape.channels == 1
    high = read_photographs(folder / "HR" if pairs else folder, talk, keep_grey=grey)
    if pairs and (folder / "LR").is_dir():
        low = read_photographs(folder / "LR", talk, keep_grey=grey)
        return _named([_pair(h, w, shape) for h, w in _matched(high, low, folder)], folder)
    samples = []
    for i, p in enumerate(high):
        if _fits(p, _factor(shape, i)):
            samples.append(_degraded(p, _factor(shape, i), shape))
        else:
            talk.warn(f"{folder}: {p.name} is too small to be scored; passed over")
    return _named(samples, folder)


def _named(samples: Sequence[Sample], folder: Path) -> Samples:
    if not samples:
        raise InvalidInput(f"{folder}: no image in it is large enough to be scored")
    return Samples(tuple(samples), f"{len(samples)} images in {folder}")


def _matched(
    high: Sequence[Photograph], low: Sequence[Photograph], folder: Path
) -> list[tuple[Photograph, Photograph]]:
    """HR and LR of equal names; an LR name may go on, as in 001x2.png."""
    stems = [(Path(h.name).stem, Path(w.name).stem) for h, w in zip(high, low, strict=False)]
    if len(high) != len(low) or not all(b.startswith(a) for a, b in stems):
        raise InvalidInput(f"{folder}: HR and LR do not hold the same images; give every image the same name in both")
    return list(zip(high, low, strict=True))


def _pair(high: Photograph, low: Photograph, shape: Shape) -> Sample:
    """A network that works on enlarged images has its input made from HR, by the factor that LR shows."""
    factor = round(high.pixels.shape[0] / low.pixels.shape[0])
    tall, wide = (size * factor for size in low.pixels.shape[:2])
    pixels = high.pixels[:tall, :wide]
    right = factor > 1 if shape.scale == 1 else factor == shape.scale
    if not right or pixels.shape[:2] != (tall, wide) or not _fits(high, factor):
        sizes = [f"{p.pixels.shape[1]}x{p.pixels.shape[0]}" for p in (high, low)]
        raise InvalidInput(f"{high.name}: HR is {sizes[0]} and LR {sizes[1]}, which does not fit x{shape.scale}")
    if shape.scale == 1:
        return _degraded(Photograph(high.name, pixels), factor, shape)
    return _from_low(high.name, pixels, low.pixels, shape)


def _factor(shape: Shape, index: int) -> int:
    """By which an image is made smaller; for networks that work on enlarged images 2, 3 and 4 in turn."""
    return shape.scale if shape.scale > 1 else 2 + index % 3


def _fits(photograph: Photograph, factor: int) -> bool:
    """Whether pixels are left after shaving."""
    return int(min(photograph.pixels.shape[:2])) >= 3 * factor


def _degraded(photograph: Photograph, factor: int, shape: Shape) -> Sample:
    """As the benchmarks' images are."""
    high = crop_to_multiple(photograph.pixels, factor)
    if shape.scale > 1:
        return _from_low(photograph.name, high, resize(high, 1 / factor), shape)
    if shape.channels == 1:
        bicubic: NDArray[Any] = srcnn_input(high, factor)
        return Sample(photograph.name, _tensor(bicubic, shape), high, bicubic, factor, "srcnn")
    bicubic = resize(resize(high, 1 / factor), factor, rounding=False) / 255
    return Sample(photograph.name, _tensor(bicubic, shape), high, bicubic, factor, "edsr")


def _from_low(name: str, high: NDArray[np.uint8], low: NDArray[np.uint8], shape: Shape) -> Sample:
    scale = shape.scale
    if shape.channels == 1:
        return Sample(name, _tensor(luma(low) / 255, shape), high, srcnn_input(high, scale), scale, "srcnn")
    bicubic = resize(low, scale, rounding=False) / 255
    return Sample(name, _tensor(low / 255, shape), high, bicubic, scale, "edsr")


def _tensor(pixels: NDArray[Any], shape: Shape) -> Tensor:
    """(H, W) or (H, W, C) in 0..1 as the network takes it."""
    low, high = shape.input_range
    image = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)[None]
    return torch.from_numpy(np.ascontiguousarray(image)).double() * (high - low) + low


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = (max(size - SIDE, 0) // 2 for size in pixels.shape[:2])
    return pixels[top : top + SIDE, left : left + SIDE]


def outputs(network: Network, samples: Samples, input_range: tuple[float, float]) -> Images:
    """What a network, in float32, makes of each image: 8 bits, (H, W, 3) or (H, W, 1)."""
    low, high = input_range
    found: list[NDArray[np.uint8]] = []
    with torch.no_grad():
        for sample in samples.images:
            output = network(sample.input.float())
            found.append(to_image((output - low) / (high - low)))
    return found


def mean_psnr(samples: Samples, made: Sequence[NDArray[Any]]) -> float | None:
    """Of all images in dB; None if there is nothing to compare."""
    scores = [sample.score(output) for sample, output in zip(samples.images, made, strict=True)]
    return sum(scores) / len(scores) if scores else None


def bicubic_psnr(samples: Samples) -> float | None:
    return mean_psnr(samples, [sample.bicubic for sample in samples.images])


def finite(value: float | None) -> float | None:
    """For JSON, which has no infinity."""
    return value if value is not None and math.isfinite(value) else None
