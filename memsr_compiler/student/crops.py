"""Crops of the calibration images, in batches.

What is chosen depends on the images' content and the seed alone, not on their order, number of files or file names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput

CROP = 96  # pixels a side
SAMPLES = (12, 36)  # crops: for large networks, and for small ones
PIXEL_MACS = 1.4e11  # multiply-adds of one run of the teacher over all crops, between these two
BATCH = 4  # crops that go through the networks together
PIXELS = 1 << 20  # a channel that is dead on all of these fires on next to none


def batches(
    images: Sequence[Tensor], *, samples: int, crop: int = CROP, seed: int = 0, turned: bool = False
) -> list[Tensor]:
    """Cut crops of the images and put them in batches of equal size: float64 (N, C, h, w) with h, w <= crop.

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


def take_pixels(images: Sequence[Tensor]) -> list[Tensor]:
    """The first of the images, until there are PIXELS."""
    taken, count = list[Tensor](), 0
    for batch in images:
        if count >= PIXELS:
            break
        taken.append(batch.float())
        count += batch[:, 0].numel()
    return taken


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
    """Turn a picture in one of the eight ways of right angles and mirrors."""
    turned = torch.rot90(image, way % 4, (2, 3))
    return turned.flip(3) if way >= 4 else turned


def _digest(image: Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()


def default_samples(macs_per_pixel: int) -> int:
    """Number of crops to take for a teacher of that many multiply-adds a pixel of its input."""
    fewest, most = SAMPLES
    return min(max(round(PIXEL_MACS / (macs_per_pixel * CROP**2)), fewest), most)


def find_range(images: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest value of every channel of images (N, C, H, W), (C,) each."""
    return images.amin(2).amin((0, 2)), images.amax(2).amax((0, 2))  # ten times as quick as at once, pixel by pixel


def count_pixels(inputs: Sequence[Tensor]) -> int:
    """Pixels in batches."""
    return sum(x.shape[0] * x.shape[2] * x.shape[3] for x in inputs)
