"""Images to derive a student from: photographs made into what the network is given, cut into crops, put in batches.

What is chosen depends on the images' content and the seed alone, not on their order, number of files or file names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import NamedImage, crop_to_multiple, sample_photographs
from memsr_compiler.images.metrics import luma, srcnn_input
from memsr_compiler.images.resize import resize
from memsr_compiler.plain.info import Takes

CROP = 96  # pixels a side
SAMPLES = (12, 36)  # crops: for large networks, and for small ones
PIXEL_MACS = 1.4e11  # multiply-adds of one run of the teacher over all crops, between these two
FACTORS = (2, 3, 4)  # by which images are enlarged for networks that work on enlarged ones
FEW = 24  # photographs: up to so many are used by every factor, where a network works on enlarged images
BATCH = 4  # crops that go through the networks together


def network_inputs(
    photograph: NDArray[np.uint8],
    *,
    scale: int,
    channels: int,
    input_range: tuple[float, float],
    every_factor: bool = True,
) -> list[Tensor]:
    """A photograph (H, W, 3) as a network is given it: float64 (1, channels, h, w) in `input_range`.

    scale         > 1: the photograph is made smaller by that much, as the benchmarks' images are; 1: the network works
                  on enlarged images, so it is made smaller and enlarged again, by 2, 3 and 4
    channels      3: RGB; 1: Y of ITU-R BT.601
    every_factor  else by one of the three, as the photograph's content has it: enough where there are many

    Raises InvalidInput for another number of channels, or a photograph smaller than the scale.
    """
    if channels not in (1, 3):
        raise InvalidInput(f"the network takes {channels} channels, and photographs have 3, or 1 for Y; give tensors")
    if min(photograph.shape[:2]) < max(scale, 4 if scale == 1 else 1):
        raise InvalidInput(f"a photograph of {photograph.shape[1]}x{photograph.shape[0]} pixels is too small")
    if scale > 1:
        low = resize(crop_to_multiple(photograph, scale), 1 / scale)
        found = [low / 255 if channels == 3 else luma(low) / 255]
    else:
        factors = FACTORS if every_factor else FACTORS[_content(photograph) % len(FACTORS) :][:1]
        images = [(crop_to_multiple(photograph, factor), factor) for factor in factors]
        found = [srcnn_input(i, factor) if channels == 1 else _blur(i, factor) for i, factor in images]
    return [_tensor(pixels, input_range) for pixels in found]


def calibration_inputs(
    photographs: Sequence[NamedImage], takes: Takes, folder: Path, *, warn: Callable[[str], None] | None = None
) -> list[Tensor]:
    """A folder's photographs as a network is given them: see `network_inputs`; what is too small is passed over.

    warn   hears of each that is passed over

    Raises InvalidInput if none is left.
    """
    inputs = []
    for photograph in photographs:
        try:
            inputs += network_inputs(
                photograph.pixels,
                scale=takes.scale,
                channels=takes.channels,
                input_range=takes.input_range,
                every_factor=len(photographs) <= FEW,
            )
        except InvalidInput as error:
            if warn is not None:
                warn(f"{folder / photograph.name}: {error}; passed over")
    if not inputs:
        raise InvalidInput(f"{folder}: no image in it is large enough; give photographs of 64x64 pixels or more")
    return inputs


def _tensor(pixels: NDArray[Any], input_range: tuple[float, float]) -> Tensor:
    """(H, W) or (H, W, C) in 0..1"""
    low, high = input_range
    single = torch.from_numpy(np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)))
    return single[None].double() * (high - low) + low


def _blur(image: NDArray[np.uint8], factor: int) -> NDArray[Any]:
    return resize(resize(image, 1 / factor), factor, rounding=False) / 255


def sample_inputs(*, scale: int, channels: int, input_range: tuple[float, float]) -> list[Tensor]:
    """The photographs that come with scikit-image, as `network_inputs`.  Raises InvalidInput where it is missing."""
    return [
        made
        for image in sample_photographs(more=True)
        for made in network_inputs(image, scale=scale, channels=channels, input_range=input_range)
    ]


def batches(
    images: Sequence[Tensor], *, samples: int, crop: int = CROP, seed: int = 0, turned: bool = False
) -> list[Tensor]:
    """Crops of the images, in batches of equal size: float64 (N, C, h, w) with h, w <= crop.

    images    each (N, C, H, W), any sizes; smaller ones than a crop are used whole
    samples   crops to take altogether, from every image about equally many, at least one
    turned    each by a random multiple of 90 degrees, and half of them mirrored

    The same list for the same images in any order.  Raises InvalidInput without images, for images that do not have
    equally many channels, or have values that are not finite.
    """
    single = [image.double() for several in images for image in several[:, None]]
    if not single:
        raise InvalidInput("there are no calibration images; give some, or leave them out for the ones that ship")
    if len({image.shape[1] for image in single}) > 1:
        raise InvalidInput("calibration images differ in channels; give all in RGB, or all in Y")
    if not all(bool(torch.isfinite(image).all()) for image in single):
        raise InvalidInput("a calibration image has values that are NaN or infinite; leave it out")
    each, more = divmod(samples, len(single))
    ordered = sorted(single, key=_digest)
    cut = [
        part for i, image in enumerate(ordered) for part in _cut(image, max(each + (i < more), 1), crop, seed, turned)
    ]
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for i in np.random.default_rng(seed).permutation(len(cut)):  # a batch is of several images: the refit goes by it
        by_shape.setdefault(cut[i].shape, []).append(cut[i])
    return [torch.cat(parts[i : i + BATCH]) for parts in by_shape.values() for i in range(0, len(parts), BATCH)]


def _cut(image: Tensor, count: int, crop: int, seed: int, turned: bool) -> list[Tensor]:
    height, width = image.shape[2:]
    generator = np.random.default_rng([seed, int(_digest(image)[:8], 16)])
    tops = generator.integers(0, max(height - crop, 0) + 1, size=count)
    lefts = generator.integers(0, max(width - crop, 0) + 1, size=count)
    places = sorted({(int(top), int(left)) for top, left in zip(tops, lefts, strict=True)})
    cut = [image[:, :, top : top + crop, left : left + crop] for top, left in places]
    ways = generator.integers(0, 8, size=len(cut)) if turned else [0] * len(cut)
    return [_turn(part, int(way)) for part, way in zip(cut, ways, strict=True)]


def _turn(image: Tensor, way: int) -> Tensor:
    """One of the eight ways in which a picture can be turned by right angles and mirrored."""
    turned = torch.rot90(image, way % 4, (2, 3))
    return turned.flip(3) if way >= 4 else turned


def _digest(image: Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()


def _content(image: NDArray[Any]) -> int:
    return int(hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:8], 16)


def default_samples(macs_per_pixel: int) -> int:
    """How many crops to take for a teacher of that many multiply-adds a pixel of its input."""
    fewest, most = SAMPLES
    return min(max(round(PIXEL_MACS / (macs_per_pixel * CROP**2)), fewest), most)


def count_pixels(inputs: Sequence[Tensor]) -> int:
    """Pixels in batches."""
    return sum(x.shape[0] * x.shape[2] * x.shape[3] for x in inputs)
