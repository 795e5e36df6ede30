"""Images in and out: files, 8-bit arrays, and the tensors networks take.

An image is an array (H, W, C) of RGB, or of one grey channel where that is asked for: uint8 in 0..255 or
float32 in 0..1.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from memsr_compiler.errors import InvalidInput, first_line, say_missing
from memsr_compiler.files import is_image_name, list_files
from memsr_compiler.images.decoding.decode import decode
from memsr_compiler.images.decoding.opening import count_frames, open_image
from memsr_compiler.images.formats import WRITTEN
from memsr_compiler.locks import temporary_file

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

_SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
_MORE = ("brick.png", "camera.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "page.png")


_OVERSHOT = 0.5  # beyond 0..1, at most, in floating pixels


def read_image(
    path: str | os.PathLike[str],
    *,
    dtype: DTypeLike = np.uint8,
    keep_grey: bool = False,
    keep_alpha: bool = False,
    most_pixels: int | None = None,
    warn: Callable[[str], None] | None = None,
) -> NDArray[Any]:
    """The picture in a file, upright: (H, W, 3) RGB, uint8 in 0..255 or float32 in 0..1.

    keep_grey    give a grey file as (H, W, 1) instead of three equal channels
    keep_alpha   give transparency, if there is any, as one channel more; else it is dropped, and `warn` hears of it
    most_pixels  more are refused before they are decoded; None: as many as make Pillow distrust a file, 179 million
    warn         hears of colours that are a guess (CMYK without a profile), and of frames and transparency that are
                 left out; None: the log does

    16 bits and floating-point numbers are rounded to 8 bits, and the orientation a camera noted is applied.
    Raises InvalidInput for a file that is missing, damaged, no image, or too large, and pixels of unknown meaning.
    """
    if np.dtype(dtype) not in (np.uint8, np.float32):
        raise InvalidInput(f"read_image: dtype {np.dtype(dtype)}. Choose uint8 (0..255) or float32 (0..1).")
    with open_image(path, most_pixels) as file:
        frames = count_frames(path, file)
        image = decode(path, file, most_pixels)
    of_many = [f"has {frames} pages or frames; the first is read"] if frames > 1 else []
    colours = to_eight_bits(image.pixels[..., : image.channels])
    if image.channels == 1 and not keep_grey:
        colours = colours.repeat(3, axis=2)
    alpha = to_eight_bits(image.pixels[..., image.channels :])
    hidden = not keep_alpha and bool((alpha < 255).any())
    seen = ["is transparent in parts; its colours are read as if it were not, those that nobody sees too"]
    for note in (*image.notes, *of_many, *(seen if hidden else ())):
        (warn or _log.warning)(f"{path}: {note}")
    pixels = np.concatenate([colours, alpha], axis=2) if keep_alpha else np.ascontiguousarray(colours)
    return pixels if np.dtype(dtype) == np.uint8 else (pixels / np.float32(255)).astype(np.float32)


def write_image(path: str | os.PathLike[str], image: NDArray[Any]) -> None:
    """Write an image; the extension chooses the format, and a failed write leaves no half file behind.

    image  (H, W, 3), (H, W, 1) or (H, W); uint8, or floating in 0..1, which is clipped and rounded to 8 bits

    Raises InvalidInput for another shape or dtype, an unknown extension, or a place that is not writable.
    """
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise InvalidInput(f"{path}: array of shape {image.shape}. Give (H, W, 3), (H, W, 1) or (H, W).")
    pixels = to_uint8(image)
    path = Path(path)
    kind = WRITTEN.get(path.suffix.lower())
    if kind is None:
        raise InvalidInput(f"{path}: files of this kind are not written; end it in {', '.join(WRITTEN)}")
    try:
        with temporary_file(path.parent) as (staged, file):
            Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(file, kind)
            file.close()
            staged.replace(path)
    except (OSError, ValueError, KeyError) as error:  # KeyError: this Pillow was built without that format
        raise InvalidInput(f"{path}: not written ({first_line(error)}). Check folder and extension.") from error


def png(image: NDArray[Any]) -> bytes:
    """The image (H, W, 3), (H, W, 1) or (H, W) as the content of a PNG file; uint8, or floating in 0..1."""
    pixels = to_uint8(image)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """The image in 8 bits; floating values in 0..1 are clipped and rounded.

    Raises InvalidInput for a dtype that is neither uint8 nor floating, and for NaN.
    """
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise InvalidInput(f"image of dtype {image.dtype}. Give uint8 in 0..255 or floating in 0..1.")
    if np.isnan(image).any():
        raise InvalidInput("image with NaN pixels, which have no 8-bit value. Check the network behind it.")
    result: NDArray[np.uint8] = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return result


def require_levels(pixels: NDArray[Any], name: str) -> None:
    """Raise InvalidInput for floating pixels that are no levels of 0..1: NaN, or far beyond, as those of 0..255.

    What an enlargement overshot by is taken.
    """
    if not np.issubdtype(pixels.dtype, np.floating) or not pixels.size:
        return
    low, high = float(pixels.min()), float(pixels.max())
    if not -_OVERSHOT <= low <= high <= 1 + _OVERSHOT:  # NaN is not either
        raise InvalidInput(
            f"{name}: floating pixels from {low:g} to {high:g}; give them in 0..1, those of 0..255 divided by 255, say"
        )


def to_eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Levels of 8 or 16 bits as levels of 8, rounded."""
    if pixels.dtype == np.uint8:
        return pixels
    result: NDArray[np.uint8] = np.rint(pixels / 257).astype(np.uint8)
    return result


def to_tensor(image: NDArray[Any]) -> Tensor:
    """The image as a tensor: (H, W, C) or (H, W), uint8 or 0..1 -> float32 (1, C, H, W) in 0..1, sharing no memory."""
    import torch  # here, as image files are enlarged without it

    pixels = image.reshape(*image.shape[:2], -1).transpose(2, 0, 1)[None]
    if image.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
    return torch.from_numpy(pixels.astype(np.float32, order="C"))


def to_image(tensor: Tensor) -> NDArray[np.uint8]:
    """The tensor as an image, as it is stored and scored: (1, C, H, W) or (C, H, W) in 0..1 -> uint8 (H, W, C).

    Raises InvalidInput for a batch of several images or another rank, and for NaN.
    """
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3:
        raise InvalidInput(f"tensor of shape {tuple(tensor.shape)}. Give one image, (1, C, H, W).")
    return to_uint8(tensor.detach().permute(1, 2, 0).cpu().float().numpy())


def sample_photographs(*, scale: int = 1, more: bool = False) -> list[NDArray[np.uint8]]:
    """Colour photographs installed with scikit-image, uint8 (H, W, 3), cropped to multiples of `scale`.

    more   also textures, print and sky, most of them grey, as three equal channels

    Enough to try the compiler out or to calibrate with, and no download. Being few, they are no benchmark.
    Raises InvalidInput if scikit-image or one of the files is missing.
    """
    try:
        import skimage
    except ImportError as error:
        raise InvalidInput(say_missing("scikit-image", "brings the sample photographs")) from error
    folder = Path(skimage.__file__).parent / "data"
    names = (*_SAMPLES, *(_MORE if more else ()))
    return [crop_to_multiple(_read_sample(folder / name), scale).copy() for name in names]


@cache
def _read_sample(path: Path) -> NDArray[np.uint8]:
    """One of the sample photographs, 8 MB in all, which notebooks and sweeps ask for over and over."""
    return read_image(path)


def crop_to_multiple(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """The upper left part of an (H, W, ...) image whose height and width are multiples of `scale`."""
    height, width = (size - size % scale for size in image.shape[:2])
    return image[:height, :width]


@dataclass(frozen=True)
class NamedImage:
    """An image (H, W, C) and what to call it."""

    name: str
    pixels: NDArray[Any]


def read_folder(
    folder: str | os.PathLike[str],
    *,
    paths: Sequence[Path] | None = None,
    keep_grey: bool = False,
    warn: Callable[[str], None] | None = None,
    on_skip: Callable[[str], None] | None = None,
) -> list[NamedImage]:
    """Every image in a folder, in order of name, as `read_image` gives it; what is no image is passed over.

    paths     of its files; None: all
    warn      hears of colours that are a guess
    on_skip   hears of each file that is passed over; None: `warn` does

    Raises InvalidInput if the folder does not exist or holds no readable image.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InvalidInput(f"{place}: is no folder; give one with PNG or JPEG files")
    images = []
    unreadable: dict[str, str] = {}
    for path in list_files(place) if paths is None else paths:
        try:
            images.append(NamedImage(path.name, read_image(path, keep_grey=keep_grey, warn=warn)))
        except InvalidInput as error:
            unreadable[path.name] = str(error)
    if not images:
        names = list(unreadable)
        named = f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""
        why = "".join(f". {reason.rstrip('.')}" for reason in [*unreadable.values()][:1])  # mostly the same of all
        raise InvalidInput(
            f"{place}: no readable image in it{named}; give a folder of PNG or JPEG files{say_inner(place)}{why}"
        )
    if hears := on_skip or warn:
        for reason in unreadable.values():
            hears(f"{reason.rstrip('.')}; passed over")
    return images


def say_inner(folder: Path) -> str:
    """Words on the first of the folders in it, or in those, that hold images, LR after others; "" where none does."""
    inner = sorted(filter(Path.is_dir, folder.iterdir()), key=lambda path: ("lr" in path.name.lower(), path))
    for place in inner:
        with suppress(OSError):  # it may not be ours to read
            for within in (place, *sorted(filter(Path.is_dir, place.iterdir()))):
                if any(is_image_name(path.name) for path in list_files(within)):
                    return f", {within} perhaps"
    return ""


def read_images(folder: str | os.PathLike[str], *, keep_grey: bool = False) -> list[NDArray[Any]]:
    """The pixels of every image in a folder: see `read_folder`.  The log hears of what is passed over."""
    return [image.pixels for image in read_folder(folder, keep_grey=keep_grey, warn=_log.warning)]
