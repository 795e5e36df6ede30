"""Calibration images as a network is given them, from whatever a person has: tensors, photographs, files, a folder.

Photographs are made smaller as the test images of the network's scale are, in float64; `images.tensors` takes them as
they are, for runs whose inputs need not look like low-resolution images.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import NamedImage, crop_to_multiple, read_image, sample_photographs
from memsr_compiler.images.metrics import luma, srcnn_input
from memsr_compiler.images.pairs import read_high
from memsr_compiler.images.resize import resize
from memsr_compiler.quantities import say_count

FACTORS = (2, 3, 4)  # by which images are enlarged for networks that work on enlarged ones
FEW = 24  # photographs: up to so many are used by every factor

CalibrationImage: TypeAlias = "Tensor | NDArray[Any] | str | PathLike[str]"
CalibrationImages: TypeAlias = "CalibrationImage | Sequence[CalibrationImage]"
"""Calibration images as a function takes them: see `calibration_inputs`."""

_WANTED = (
    "calibration images are tensors (N, C, H, W) as the network is given them, photographs as uint8 arrays (H, W, 3), "
    "image files, or a folder of those"
)
_log = logging.getLogger(__name__)


def calibration_inputs(
    images: CalibrationImages, *, scale: int, channels: int, input_range: tuple[float, float]
) -> list[Tensor]:
    """Prepare images as a network is given them, each (N, channels, H, W) in `input_range`.

    images   one or a list of: tensors (N, channels, H, W), in that range already, taken as they are; photographs, as
             uint8 arrays (H, W, 3) or as image files, made smaller first, see `network_inputs`; or a folder of such
             files, of which those that are too small or no images are passed over, with a warning in the log

    Raises InvalidInput for anything else, and where there is no image.
    """
    require_images(images)
    if isinstance(images, (str, PathLike)) and Path(images).is_dir():
        return photographs_as_inputs(
            read_high(images, _log.warning),
            str(images),
            scale=scale,
            channels=channels,
            input_range=input_range,
            on_skip=_log.warning,
        )
    several = _as_list(images)
    few = sum(not isinstance(image, Tensor) for image in several) <= FEW
    inputs: list[Tensor] = []
    for i, image in enumerate(several):
        if isinstance(image, Tensor):
            inputs.append(_require_tensor(image, i, channels))
            continue
        name = f"calibration image {i}" if isinstance(image, np.ndarray) else str(image)
        pixels = image if isinstance(image, np.ndarray) else read_image(name)
        try:
            inputs += network_inputs(pixels, scale=scale, channels=channels, input_range=input_range, every_factor=few)
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}") from error
    return inputs


def require_images(images: object) -> None:
    """Raise InvalidInput for what is no calibration image, by type, shape and whether files are there: at once."""
    several = _as_list(images)
    if not several:
        raise InvalidInput("there are no calibration images; give some, or leave them out for the ones that ship")
    for i, image in enumerate(several):
        if isinstance(image, (str, PathLike)):
            path = Path(image)
            if not path.exists() or (path.is_dir() and image is not images):
                raise InvalidInput(f"{path}: is no image file; {_WANTED}")
        elif isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise InvalidInput(f"calibration image {i}: array of {image.dtype}, shape {image.shape}; {_WANTED}")
        elif not isinstance(image, Tensor):
            raise InvalidInput(f"calibration image {i}: is a {type(image).__name__}; {_WANTED}")
        elif image.ndim != 4 or image.dtype == torch.bool or image.is_complex():
            raise InvalidInput(f"calibration image {i}: {image.dtype} of shape {tuple(image.shape)}; {_WANTED}")


def _as_list(images: object) -> list[object]:
    """One image or several, as a list."""
    return list(images) if isinstance(images, Sequence) and not isinstance(images, str) else [images]


def _require_tensor(image: Tensor, i: int, channels: int) -> Tensor:
    if image.shape[1] != channels:
        raise InvalidInput(
            f"the network takes {say_count(channels, 'channel')}, the calibration images have {image.shape[1]}"
        )
    if not image.numel():
        raise InvalidInput(f"calibration image {i}: shape {tuple(image.shape)} has no pixel")
    return image.detach().cpu()


def photographs_as_inputs(
    photographs: Sequence[NamedImage],
    where: str,
    *,
    scale: int,
    channels: int,
    input_range: tuple[float, float],
    on_skip: Callable[[str], None],
) -> list[Tensor]:
    """Prepare a folder's photographs with `network_inputs`; pass over those that are too small.

    where    the folder, for messages;   on_skip   hears of each that is passed over, and where all are blank

    Raises InvalidInput if none is left.
    """
    inputs: list[Tensor] = []
    few = len(photographs) <= FEW
    for image in photographs:
        try:
            inputs += network_inputs(
                image.pixels, scale=scale, channels=channels, input_range=input_range, every_factor=few
            )
        except InvalidInput as error:
            on_skip(f"{Path(where, image.name)}: {error}; passed over")
    if not inputs:
        raise InvalidInput(f"{where}: no image in it is large enough; give photographs of 64x64 pixels or more")
    if all((image.pixels == image.pixels[:1, :1]).all() for image in photographs):
        on_skip(f"{where}: its images have one colour each, so they show little of what the network does")
    return inputs


def network_inputs(
    photograph: NDArray[np.uint8],
    *,
    scale: int,
    channels: int,
    input_range: tuple[float, float],
    every_factor: bool = True,
) -> list[Tensor]:
    """Prepare a photograph (H, W, 3) as a network is given it: float64 (1, channels, h, w) in `input_range`.

    scale         > 1: the photograph is made smaller by that much, as the benchmarks' images are; 1: the network works
                  on enlarged images, so it is made smaller and enlarged again, by 2, 3 and 4
    channels      3: RGB; 1: Y of ITU-R BT.601
    every_factor  else by one of the three, as the photograph's content has it: enough where there are many

    Raises InvalidInput for another number of channels, or a photograph smaller than the scale.
    """
    _require_channels(channels)
    if min(photograph.shape[:2]) < max(scale, 4 if scale == 1 else 1):
        raise InvalidInput(f"a photograph of {photograph.shape[1]}x{photograph.shape[0]} pixels is too small")
    if scale > 1:
        images = [_in_units(_shrink(photograph, scale), channels)]
    else:
        factors = FACTORS if every_factor else FACTORS[_content(photograph) % len(FACTORS) :][:1]
        cropped = [(crop_to_multiple(photograph, factor), factor) for factor in factors]
        images = [srcnn_input(i, factor) if channels == 1 else _blur(i, factor) for i, factor in cropped]
    return [_tensor(pixels, input_range) for pixels in images]


def _require_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise InvalidInput(
            f"the network takes {say_count(channels, 'channel')}, and photographs have 3, or 1 for Y; give tensors"
        )


def _shrink(photograph: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    return resize(crop_to_multiple(photograph, scale), 1 / scale)


def _in_units(low: NDArray[np.uint8], channels: int) -> NDArray[Any]:
    """An image of 0..255 as one of 0..1, RGB or Y."""
    return (low if channels == 3 else luma(low)) / 255


def _tensor(pixels: NDArray[Any], input_range: tuple[float, float]) -> Tensor:
    """Tensor float64 (1, C, H, W) in the input range, from (H, W) or (H, W, C) in 0..1."""
    low, high = input_range
    single = torch.from_numpy(np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)))
    return single[None].double() * (high - low) + low


def _blur(image: NDArray[np.uint8], factor: int) -> NDArray[Any]:
    return resize(resize(image, 1 / factor), factor, rounding=False) / 255


def _content(image: NDArray[Any]) -> int:
    return int(hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:8], 16)


def sample_inputs(*, scale: int, channels: int, input_range: tuple[float, float]) -> list[Tensor]:
    """Photographs that come with scikit-image, as `network_inputs`.

    Raises InvalidInput where it is missing, and for another number of channels.
    """
    _require_channels(channels)
    if scale > 1:
        return [_tensor(_in_units(low, channels), input_range) for low in _small_samples(scale)]
    return [
        prepared
        for image in sample_photographs(more=True)
        for prepared in network_inputs(image, scale=scale, channels=channels, input_range=input_range)
    ]


@cache
def _small_samples(scale: int) -> tuple[NDArray[np.uint8], ...]:
    """The sample photographs, made smaller: 2 MB, and half a second of which every command that derives has need."""
    return tuple(_shrink(image, scale) for image in sample_photographs(more=True))
