"""Images as networks take them: whatever a person has, as tensors in a network's range.

Pixels stay as many as they are.  Photographs that a student is derived from are made smaller first, as test images are:
that is `student.calibration_images`.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import read_image, read_images, require_levels, to_tensor
from memsr_compiler.images.metrics import luma

if TYPE_CHECKING:  # images are read and written without torch
    from numpy.typing import NDArray
    from torch import Tensor

Image: TypeAlias = "Tensor | NDArray[Any] | str | PathLike[str]"
Images: TypeAlias = "Image | Sequence[Image]"
"""Images as a function takes them: see `image_tensors`."""

_WANTED = (
    "want tensors (N, C, H, W) in the network's range, arrays of pixels (H, W, C), uint8 or floating 0..1, "
    "image files, or a folder of them"
)


def image_tensors(images: Images, *, channels: int | None, input_range: tuple[float, float]) -> list[Tensor]:
    """The images that a person means, each (N, channels, H, W) in a network's range.

    images    one or a list: tensors and arrays (N, C, H, W), which are in that range already; pixels (H, W, C) or
              (H, W), uint8 or floating 0..1, and files, which are taken to it, and to Y of ITU-R BT.601 for a network
              of one channel; a folder of image files
    channels  of the network, 3 or 1; None: tensors may have any number, pixels keep theirs

    Raises InvalidInput for anything else, for files that are no images, and where there is no image.
    """
    if isinstance(images, (str, PathLike)):
        path = Path(images)
        several: Sequence[Image] = read_images(path) if path.is_dir() else [read_image(path)]
    elif isinstance(images, (list, tuple)):
        several = images
    else:
        several = [images]  # type: ignore[list-item]
    if not several:
        raise InvalidInput(f"there are no images; {_WANTED}")
    return [_tensor(image, i, channels, input_range) for i, image in enumerate(several)]


def image_tensors_in_range(images: Images, *, channels: int | None, input_range: tuple[float, float]) -> list[Tensor]:
    """The same of images from which something is measured: those of another range, and NaN, are refused."""
    tensors = image_tensors(images, channels=channels, input_range=input_range)
    low, high = input_range
    beyond = (high - low) / 2  # an image that was made smaller goes a little beyond its range
    for i, image in enumerate(tensors):
        least, most = float(image.min()), float(image.max())
        if not low - beyond <= least <= most <= high + beyond:  # NaN is not either
            raise InvalidInput(f"image {i}: values from {least:g} to {most:g}; the network takes {low:g} to {high:g}")
    return tensors


def _tensor(image: object, i: int, channels: int | None, input_range: tuple[float, float]) -> Tensor:
    import torch

    if isinstance(image, (str, PathLike)):
        image = read_image(image)
    if isinstance(image, np.ndarray) and image.ndim == 4:
        image = torch.from_numpy(_as_torch_has_it(image)) if np.issubdtype(image.dtype, np.floating) else image
    if isinstance(image, np.ndarray) and image.ndim != 4:
        return _from_pixels(image, i, channels, input_range)
    if not isinstance(image, (torch.Tensor, np.ndarray)):
        raise InvalidInput(f"image {i}: is a {type(image).__name__}; {_WANTED}")
    fits = image.ndim == 4 and 0 not in image.shape and image.shape[1] == (channels or image.shape[1])
    if isinstance(image, np.ndarray) or not fits or not image.is_floating_point():
        raise InvalidInput(
            f"image {i}: {image.dtype} of shape {tuple(image.shape)}; give floating (N, {channels or 'C'}, H, W)"
        )
    if image.layout is not torch.strided or image.is_meta:
        kind = "a meta tensor, without values" if image.is_meta else f"a tensor of layout {image.layout}"
        raise InvalidInput(f"image {i}: is {kind}; give a dense one")
    return image.detach()


def _as_torch_has_it(array: NDArray[Any]) -> NDArray[Any]:
    """A floating array without what torch has not: negative strides, foreign byte order, more than 64 bits."""
    dtype = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    return array.astype(dtype, order="C", copy=False)


def _from_pixels(pixels: NDArray[Any], i: int, channels: int | None, input_range: tuple[float, float]) -> Tensor:
    if pixels.dtype != np.uint8 and not np.issubdtype(pixels.dtype, np.floating):
        raise InvalidInput(f"image {i}: pixels of dtype {pixels.dtype}; give uint8 in 0..255 or floating in 0..1")
    if channels not in (None, 1, 3):
        raise InvalidInput(f"image {i}: pixels have 3 channels, or 1 for Y; give tensors (N, {channels}, H, W)")
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    if planes.ndim != 3 or planes.shape[2] not in (1, 3) or planes.size == 0:
        raise InvalidInput(f"image {i}: pixels of shape {pixels.shape}; give (H, W, 3), (H, W, 1) or (H, W)")
    if channels == 1 and planes.shape[2] == 3:
        planes = luma(planes)[..., None] / 255
    require_levels(planes, f"image {i}")
    low, high = input_range
    x = to_tensor(planes.repeat(3, axis=2) if channels == 3 and planes.shape[2] == 1 else planes)
    return x * (high - low) + low
