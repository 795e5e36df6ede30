"""Scores of networks on test images: PSNR and SSIM on luma, by the protocols behind the published tables."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.image_sets import SSIM_WINDOW, Pixels, TestImage, TestImages, read_test_images
from memsr_compiler.images.metrics import Protocol, luma, psnr, srcnn_input, ssim
from memsr_compiler.images.resize import resize
from memsr_compiler.plain.info import Takes
from memsr_compiler.runtime.open import NetworkFile, open_model
from memsr_compiler.runtime.runners import Network
from memsr_compiler.teachers.teacher import Teacher, TeacherLike, as_teacher
from memsr_compiler.tflite.model import TFLITE
from memsr_compiler.torch_helpers import copy_module, prepare, torch_device

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """PSNR in dB and SSIM (at most 1), both on Y.

    identical   images that are HR itself: their PSNR is infinite, and the average is over the others
    """

    name: str
    psnr: float
    ssim: float
    identical: int = 0


@overload
def evaluate(
    network: Network | TeacherLike,
    images: TestImages = None,
    *,
    takes: Takes | None = None,
    scale: int | None = None,
    protocol: Protocol = "edsr",
    device: str = "cpu",
) -> list[Score]: ...


@overload
def evaluate(
    network: Network | TeacherLike,
    takes: Takes,
    images: TestImages = None,
    *,
    scale: int | None = None,
    protocol: Protocol = "edsr",
    device: str = "cpu",
) -> list[Score]: ...


def evaluate(
    network: Network | TeacherLike,
    *arguments: Takes | TestImages,
    takes: Takes | None = None,
    images: TestImages = None,
    scale: int | None = None,
    protocol: Protocol = "edsr",
    device: str = "cpu",
) -> list[Score]:
    """Score a network on each image: `evaluate("plain.onnx", "Set5/x2")`.

    network   what `read_teacher` gives, a module, a file, or a function float32 (1, C, h, w) -> (1, C, H, W)
    takes     what a function takes, or instead of what a module shows; before the images, or by name
    images    TestImages, a folder with HR and LR or with HR images, or a list of files or arrays; None: the photographs
              that ship.  Of a folder, what is no image, has no partner or is too small is passed over, and logged
    scale     by which the images are to be enlarged; None: the network's own, and for a network that works on enlarged
              images what LR shows, else 2, 3 and 4 in turn
    protocol  which pixels are compared: see `images.metrics`
    device    "cpu" or "cuda", for all but functions

    Raises InvalidInput for what is no network or no image, if network and images do not fit together, the device is not
    to be had, or scikit-image is missing.
    """
    takes, images = _sort_arguments(arguments, takes, images)
    if protocol not in ("edsr", "srcnn"):
        raise InvalidInput(f"protocol {protocol!r}: want edsr or srcnn")
    run, takes = _open_network(network, takes, device)
    if scale is not None and takes.scale not in (1, scale):
        raise InvalidInput(f"the network enlarges by {takes.scale}, the images are to be enlarged by {scale}")
    factor = takes.scale if scale is None else scale
    tests = read_test_images(images, factor, keep_grey=protocol == "srcnn", window=SSIM_WINDOW)
    return [_score(image, enlarge(run, takes, image, protocol=protocol), protocol) for image in tests]


def _sort_arguments(
    arguments: Sequence[Takes | TestImages], takes: Takes | None, images: TestImages
) -> tuple[Takes | None, TestImages]:
    """Takes and images, from arguments that may be either."""
    for argument in arguments:
        if isinstance(argument, Takes) and takes is None:
            takes = argument
        elif images is None and not isinstance(argument, Takes):
            images = argument
        else:
            raise InvalidInput(
                f"{type(argument).__name__}: is one argument too many; evaluate(network, images) or "
                "evaluate(network, Takes(scale), images)"
            )
    if takes is not None and not isinstance(takes, Takes):
        raise InvalidInput(f"takes: a {type(takes).__name__}; want memsr_compiler.Takes, which says the scale")
    return takes, images


def evaluate_bicubic(images: TestImages, *, scale: int, protocol: Protocol = "edsr") -> list[Score]:
    """Score bicubic interpolation, the first row of every table.

    images, scale   as for `evaluate`;   scale 1: what LR shows, else 2, 3 and 4 in turn
    """
    tests = read_test_images(images, scale, keep_grey=protocol == "srcnn", window=SSIM_WINDOW)
    return [_score(image, enlarge_bicubic(image, protocol=protocol), protocol) for image in tests]


def mean(scores: Sequence[Score]) -> Score:
    """The average of SSIM, and of PSNR over the images that have a finite one; infinite where none has.

    Raises InvalidInput where there is nothing to average.
    """
    if not scores:
        raise InvalidInput("no image was scored; give some")
    finite = [s.psnr for s in scores if math.isfinite(s.psnr)]
    psnr = float(np.mean(finite)) if finite else scores[0].psnr
    return Score("average", psnr, float(np.mean([s.ssim for s in scores])), sum(s.identical for s in scores))


def mean_psnr(images: Sequence[TestImage], outputs: Iterable[Pixels], *, protocol: Protocol = "edsr") -> float | None:
    """Average PSNR on Y in dB of what was made of test images, as `mean` takes it; None where there is none.

    outputs   one for each image, as `enlarge` gives them, or rounded to 8 bits
    """
    scores = [image_psnr(image, output, protocol=protocol) for image, output in zip(images, outputs, strict=True)]
    finite = [psnr for psnr in scores if math.isfinite(psnr)]
    if len(finite) < len(scores):
        _log.warning(say_identical(len(scores) - len(finite)))
    return sum(finite) / len(finite) if finite else scores[0] if scores else None


def say_identical(count: int) -> str:
    """Words on images that an average of PSNR leaves out."""
    images = "1 image is HR itself" if count == 1 else f"{count} images are HR itself"
    return f"{images}, PSNR infinite: not in the average of PSNR"


def image_psnr(image: TestImage, output: Pixels, *, protocol: Protocol = "edsr") -> float:
    """PSNR on Y in dB of what was made of a test image."""
    return psnr(output, _match_reference(image, output), scale=image.scale, protocol=protocol)


def enlarge(network: Network, takes: Takes, image: TestImage, *, protocol: Protocol = "edsr") -> Pixels:
    """The test image enlarged by a network, floating (H, W, C), 0..1.

    Raises InvalidInput where that is of another size than HR, or no image.
    """
    if takes.scale not in (1, image.scale):
        raise InvalidInput(f"the network enlarges by {takes.scale}, {image.name} is to be enlarged by {image.scale}")
    low, high = takes.input_range
    pixels = _prepare_input(takes, image, protocol)
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
    with torch.no_grad():
        result = network((tensor * (high - low) + low).float())
    output: Pixels = ((result.double() - low) / (high - low))[0].permute(1, 2, 0).numpy()
    if output.shape[:2] != image.high.shape[:2]:
        sizes = [f"{p.shape[1]}x{p.shape[0]}" for p in (pixels, output, image.high)]
        raise InvalidInput(f"{image.name}: the network makes {sizes[1]} of {sizes[0]}, and HR is {sizes[2]}")
    if not np.isfinite(output).all():
        raise InvalidInput(
            f"{image.name}: the network's output is NaN or infinite for it: its weights are, which memsrc inspect "
            "names, or it overflows in float32; give another, or another --input-range"
        )
    return output


def enlarge_bicubic(image: TestImage, *, protocol: Protocol = "edsr") -> Pixels:
    """The test image enlarged by bicubic interpolation, floating, about 0..1: (H, W, C), or (H, W) by "srcnn"."""
    if protocol == "srcnn":
        return srcnn_input(image.high, image.scale)
    return resize(image.low, image.scale, rounding=False) / 255


def _open_network(network: Any, takes: Takes | None, device: str) -> tuple[Network, Takes]:
    """A network as a function on the CPU's tensors, and what it takes."""
    place = torch_device(device)
    if isinstance(network, (str, PathLike)) and Path(network).suffix.lower() in (".onnx", TFLITE):
        model = open_model(NetworkFile(Path(network)), provider="cpu" if place.type == "cpu" else "cuda")
        return model.network, takes or model.takes
    if isinstance(network, (str, PathLike, Teacher, nn.Module)):
        teacher = as_teacher(network, plain=True)
        module = prepare(copy_module(teacher.module, torch.float32), place)
        return lambda x: module(x.to(place)).cpu(), takes or teacher.takes
    if not callable(network):
        raise InvalidInput(
            f"a network is wanted: what read_teacher gives, a torch.nn.Module, a file or a function; "
            f"not {type(network).__name__}"
        )
    if takes is None:
        raise InvalidInput("a function does not say what it takes; give takes=Takes(scale) with it")
    if place.type != "cpu":
        raise InvalidInput(f"device {device}: a function runs where it runs; leave device out, or give the module")
    return network, takes


def _score(image: TestImage, output: Pixels, protocol: Protocol) -> Score:
    similarity = ssim(output, _match_reference(image, output), scale=image.scale, protocol=protocol)
    decibels = image_psnr(image, output, protocol=protocol)
    return Score(image.name, decibels, similarity, int(math.isinf(decibels)))


def _match_reference(image: TestImage, output: Pixels) -> Pixels:
    """HR as the output is compared with it: a grey image is Y itself, three equal channels are not."""
    high = image.high
    three = output.shape[2:] == (3,) and high.shape[2] == 1
    return np.broadcast_to(high, (*high.shape[:2], 3)) if three else high


def _prepare_input(takes: Takes, image: TestImage, protocol: Protocol) -> Pixels:
    """The image as the network is given it, float64 (h, w, C), 0..1."""
    scale = image.scale
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
