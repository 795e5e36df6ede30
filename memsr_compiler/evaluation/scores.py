"""How good networks are on test images: PSNR and SSIM on luma, by the protocols behind the published tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import crop_to_multiple
from memsr_compiler.images.metrics import Protocol, luma, psnr, srcnn_input, ssim
from memsr_compiler.images.resize import resize
from memsr_compiler.plain.info import Takes
from memsr_compiler.runtime.runners import Network

Pixels = NDArray[Any]


@dataclass(frozen=True)
class TestImage:
    """An image pair, uint8 (H, W, 3), or (H, W, 1) where it is grey.

    high   what outputs are compared with, a multiple of the scale high and wide
    low    `high` made smaller by the scale; protocol "srcnn" makes its own, without rounding, and does not look at it
    """

    __test__ = False  # pytest: not a test

    name: str
    high: NDArray[np.uint8]
    low: NDArray[np.uint8]

    @staticmethod
    def of(name: str, high: NDArray[np.uint8], scale: int) -> TestImage:
        """From the HR image alone: cropped to a multiple of the scale, made smaller by MATLAB's bicubic."""
        high = crop_to_multiple(high, scale)
        return TestImage(name, high, resize(high, 1 / scale))


@dataclass(frozen=True)
class Score:
    """PSNR in dB (infinite for equal images) and SSIM (at most 1), both on Y."""

    name: str
    psnr: float
    ssim: float


def evaluate(
    network: Network, takes: Takes, images: Sequence[TestImage], *, scale: int, protocol: Protocol = "edsr"
) -> list[Score]:
    """Score a network (float32 (1, C, h, w) -> (1, C, H, W)) on each image.

    scale      of the images; the network's own, or any for a network of scale 1
    protocol   which pixels are compared: see `images.metrics`

    Raises InvalidInput if network and images do not fit together, or scikit-image is missing.
    """
    if takes.scale not in (1, scale):
        raise InvalidInput(f"the network enlarges by {takes.scale}, the images are to be enlarged by {scale}")
    return [_score(image, _enlarged(network, takes, image, scale, protocol), scale, protocol) for image in images]


def evaluate_bicubic(images: Sequence[TestImage], *, scale: int, protocol: Protocol = "edsr") -> list[Score]:
    """The same for bicubic interpolation, the first row of every table."""
    return [_score(image, _bicubic(image, scale, protocol), scale, protocol) for image in images]


def mean(scores: Sequence[Score]) -> Score:
    """The average of each.  Raises InvalidInput where there is nothing to average."""
    if not scores:
        raise InvalidInput("no image was scored; give some")
    return Score("average", float(np.mean([s.psnr for s in scores])), float(np.mean([s.ssim for s in scores])))


def _score(image: TestImage, output: Pixels, scale: int, protocol: Protocol) -> Score:
    high = image.high
    if output.shape[2:] == (3,) and high.shape[2] == 1:  # a grey image is Y itself, three equal channels are not
        high = np.broadcast_to(high, (*high.shape[:2], 3))
    return Score(
        image.name,
        psnr(output, high, scale=scale, protocol=protocol),
        ssim(output, high, scale=scale, protocol=protocol),
    )


def _enlarged(network: Network, takes: Takes, image: TestImage, scale: int, protocol: Protocol) -> Pixels:
    """The network's output, floating (H, W, C), 0..1."""
    low, high = takes.input_range
    pixels = _given(takes, image, scale, protocol)
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
    with torch.no_grad():
        output = network((tensor * (high - low) + low).float())
    made: Pixels = ((output.double() - low) / (high - low))[0].permute(1, 2, 0).numpy()
    if made.shape[:2] != image.high.shape[:2]:
        sizes = [f"{p.shape[1]}x{p.shape[0]}" for p in (pixels, made, image.high)]
        raise InvalidInput(f"{image.name}: the network makes {sizes[1]} of {sizes[0]}, and HR is {sizes[2]}")
    return made


def _given(takes: Takes, image: TestImage, scale: int, protocol: Protocol) -> Pixels:
    """What the network is given, float64 (h, w, C), 0..1."""
    if takes.channels == 1 and protocol == "srcnn":
        if takes.scale == 1:
            return srcnn_input(image.high, scale)[..., None]
        y = np.round(luma(image.high)) / 255
        return resize(y, 1 / scale, border="mirror")[..., None]
    if takes.channels == 1:
        y = luma(image.low)[..., None] / 255
        return y if takes.scale > 1 else resize(y, scale)
    low = image.low / 255 if takes.scale > 1 else resize(image.low, scale, rounding=False) / 255
    return np.broadcast_to(low, (*low.shape[:2], 3))


def _bicubic(image: TestImage, scale: int, protocol: Protocol) -> Pixels:
    if protocol == "srcnn":
        return srcnn_input(image.high, scale)
    return resize(image.low, scale, rounding=False) / 255
