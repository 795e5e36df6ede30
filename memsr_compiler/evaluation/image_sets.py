"""Images that networks are scored on: a folder's, a list's, those that ship, or the middle of calibration images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import (
    NamedImage,
    crop_to_multiple,
    read_folder,
    read_image,
    sample_photographs,
    to_uint8,
)
from memsr_compiler.images.resize import resize

FACTORS = (2, 3, 4)  # in turn, for networks that work on enlarged images
SCORED = 20  # calibration images, at most: more tell hardly more, and take their time
SIDE = 512  # pixels; of larger calibration images the middle is scored

_WANTED = "want a folder with HR and LR or with HR images, image files, arrays (H, W, C), or TestImages"


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
        """A pair of the HR image alone: cropped to a multiple of the scale, made smaller by MATLAB's bicubic."""
        high = crop_to_multiple(high, scale)
        return TestImage(name, high, resize(high, 1 / scale))

    @property
    def scale(self) -> int:
        """Factor by which `high` is larger than `low`."""
        return _ratio(self.high, self.low)


Pixels: TypeAlias = "NDArray[Any]"
TestImages: TypeAlias = (
    "Sequence[TestImage | Pixels | str | PathLike[str]] | TestImage | Pixels | str | PathLike[str] | None"
)
"""Test images as a function takes them: see `read_test_images`."""


@dataclass(frozen=True)
class ImageSet:
    """Test images, and what they are in words."""

    images: tuple[TestImage, ...]
    words: str


def read_test_images(
    images: TestImages,
    scale: int,
    *,
    keep_grey: bool = False,
    least: int = 1,
    warn: Callable[[str], None] | None = None,
) -> list[TestImage]:
    """The test images that a person means.

    images     a folder with folders HR and LR, a folder of HR images (or HR alone in it); one or a list of TestImages,
               files of HR images, and arrays (H, W, C) or (H, W), uint8 or floating 0..1; None: photographs that ship
    scale      by which they are to be enlarged; 1, for networks that work on enlarged images: by what LR shows, else
               by 2, 3 and 4 in turn
    keep_grey  files that are grey have one channel, Y
    least      HR images alone that are smaller than so many times the scale are passed over
    warn       hears of files that are passed over

    Raises InvalidInput for anything else, for what does not fit the scale, and where no image is left.
    """
    factors = FACTORS if scale == 1 else (_require_scale(scale),)
    if images is None:
        return _degrade(_sample_images(), factors)
    if isinstance(images, (str, PathLike)) and not Path(images).is_file():
        return _read_test_folder(Path(images), scale, factors, keep_grey, least, warn)
    several = images if isinstance(images, (list, tuple)) else [images]
    if not several:
        raise InvalidInput(f"there are no images to score on; {_WANTED}")
    tests = [_as_test_image(image, i, factors, keep_grey) for i, image in enumerate(several)]
    for test in tests:
        if scale > 1 and test.scale != scale:
            raise InvalidInput(f"{test.name}: HR is {_size(test.high)} and LR {_size(test.low)}, which is not x{scale}")
    return tests


def sample_test_images(scale: int) -> list[TestImage]:
    """Test images of the photographs that ship.  Raises InvalidInput if scikit-image, which brings them, is missing."""
    return read_test_images(None, scale)


def find_scale(folder: str | PathLike[str] | None) -> int | None:
    """The factor by which the first image in LR is smaller than the first in HR; None for a folder without these.

    Raises InvalidInput where LR is not smaller, or there is no image.
    """
    if folder is None or not _has_pairs(Path(folder)):
        return None
    high, low = (_first_image(Path(folder) / name) for name in ("HR", "LR"))
    scale = _ratio(high.pixels, low.pixels)
    if scale < 2:
        raise InvalidInput(f"{folder}: {high.name}: HR is {_size(high.pixels)} and LR {_size(low.pixels)}, not smaller")
    return scale


def read_image_set(folder: Path, scale: int, *, warn: Callable[[str], None] | None = None) -> ImageSet:
    """The images in a folder that are large enough for the borders to be left out: see `read_test_images`."""
    images = read_test_images(folder, scale, least=3, warn=warn)
    return ImageSet(tuple(images), f"{len(images)} images in {folder}")


def calibration_image_set(photographs: Sequence[NamedImage] | None, scale: int) -> ImageSet:
    """The middles of the first photographs that a student is derived from (None: of those that ship)."""
    if photographs is None:
        chosen = _sample_images()
        words = f"{len(chosen)} of the photographs it is derived from"
    else:
        chosen = list(photographs[:SCORED])
        some = f"{len(chosen)} of {len(photographs)}" if len(photographs) > len(chosen) else "the"
        words = f"{some} calibration photographs"
    if any(max(p.pixels.shape[:2]) > SIDE for p in chosen):
        words += f", at most {SIDE}x{SIDE} pixels of each"
    middles = [NamedImage(p.name, _cut_middle(p.pixels)) for p in chosen]
    return ImageSet(tuple(_degrade(middles, FACTORS if scale == 1 else (scale,), least=3)), words)


def _sample_images() -> list[NamedImage]:
    return [NamedImage(f"photograph {i}", image) for i, image in enumerate(sample_photographs(), 1)]


def _degrade(images: Sequence[NamedImage], factors: Sequence[int], least: int = 1) -> list[TestImage]:
    """Pairs of HR images by the factors in turn; what is smaller than `least` times its factor is left out."""
    paired = [(image, factors[i % len(factors)]) for i, image in enumerate(images)]
    return [
        TestImage.of(image.name, image.pixels, factor)
        for image, factor in paired
        if min(image.pixels.shape[:2]) >= least * factor
    ]


def _read_test_folder(
    folder: Path,
    scale: int,
    factors: Sequence[int],
    keep_grey: bool,
    least: int,
    warn: Callable[[str], None] | None,
) -> list[TestImage]:
    inner = folder / "HR" if (folder / "HR").is_dir() else folder
    high = read_folder(inner, keep_grey=keep_grey, warn=warn)
    if _has_pairs(folder):
        low = read_folder(folder / "LR", keep_grey=keep_grey, warn=warn)
        return [_pair(h, w, scale, folder) for h, w in _match(high, low, folder)]
    images = _degrade(high, factors, least)
    kept = {image.name for image in images}
    for i, image in enumerate(high):
        if image.name not in kept and warn is not None:
            side = least * factors[i % len(factors)]
            warn(f"{inner / image.name}: is smaller than {side}x{side} pixels, passed over")
    if not images:
        times = " or ".join(map(str, factors))
        raise InvalidInput(
            f"{folder}: no image in it is large enough to be made {times} times smaller; give larger ones"
        )
    return images


def _has_pairs(folder: Path) -> bool:
    return (folder / "HR").is_dir() and (folder / "LR").is_dir()


def _first_image(folder: Path) -> NamedImage:
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            return NamedImage(path.name, read_image(path))
        except InvalidInput:
            continue
    raise InvalidInput(f"{folder}: no readable image in it; give a folder of PNG or JPEG files")


def _match(high: Sequence[NamedImage], low: Sequence[NamedImage], folder: Path) -> list[tuple[NamedImage, NamedImage]]:
    """HR and LR of equal names; an LR name may go on, as in 001x2.png."""
    stems = [(Path(h.name).stem, Path(w.name).stem) for h, w in zip(high, low, strict=False)]
    if len(high) != len(low) or not all(b.startswith(a) for a, b in stems):
        raise InvalidInput(f"{folder}: HR and LR do not hold the same images; give every image the same name in both")
    return list(zip(high, low, strict=True))


def _pair(high: NamedImage, low: NamedImage, scale: int, folder: Path) -> TestImage:
    """HR, cropped to LR's size times the factor, and LR.  Raises InvalidInput where the two do not fit the scale."""
    factor = scale if scale > 1 else _ratio(high.pixels, low.pixels)
    tall, wide = (size * factor for size in low.pixels.shape[:2])
    cropped = high.pixels[:tall, :wide]
    over = max(high.pixels.shape[0] - tall, high.pixels.shape[1] - wide)
    if factor < 2 or cropped.shape[:2] != (tall, wide) or over >= factor:
        fitting = f"x{scale}" if scale > 1 else "2, 3 or 4 times smaller"
        sizes = f"HR is {_size(high.pixels)} and LR {_size(low.pixels)}"
        raise InvalidInput(f"{folder}: {high.name}: {sizes}, which is not {fitting}")
    return TestImage(high.name, cropped, low.pixels)


def _as_test_image(image: object, i: int, factors: Sequence[int], keep_grey: bool) -> TestImage:
    if isinstance(image, TestImage):
        return image
    if isinstance(image, (str, PathLike)):
        name, pixels = Path(image).name, read_image(image, keep_grey=keep_grey)
    elif isinstance(image, np.ndarray):
        name, pixels = f"image {i + 1}", to_uint8(image[..., None] if image.ndim == 2 else image)
    else:
        raise InvalidInput(f"image {i + 1} is a {type(image).__name__}; {_WANTED}")
    factor = factors[i % len(factors)]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or min(pixels.shape[:2]) < factor:
        raise InvalidInput(
            f"{name}: shape {pixels.shape}; want (H, W, 3), (H, W, 1) or (H, W), {factor} pixels a side or more"
        )
    return TestImage.of(name, pixels, factor)


def _require_scale(scale: object) -> int:
    if not isinstance(scale, int) or scale < 1:
        raise InvalidInput(f"scale {scale!r}: want a whole number, 2, 3 or 4")
    return scale


def _cut_middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = (max(size - SIDE, 0) // 2 for size in pixels.shape[:2])
    return pixels[top : top + SIDE, left : left + SIDE]


def _ratio(high: NDArray[Any], low: NDArray[Any]) -> int:
    ratio: float = high.shape[0] / low.shape[0]
    return round(ratio)


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
