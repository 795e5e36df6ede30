"""Images that networks are scored on: a folder's, a list's, those that ship, or the middle of calibration images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.checks import require_whole
from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import (
    NamedImage,
    crop_to_multiple,
    read_folder,
    read_image,
    require_levels,
    sample_photographs,
    to_uint8,
)
from memsr_compiler.images.pairs import TestFiles, find_test_files
from memsr_compiler.images.resize import resize
from memsr_compiler.quantities import say_count

FACTORS = (2, 3, 4)  # in turn, for networks that work on enlarged images
SCORED = 20  # calibration images, at most: more tell hardly more, and take their time
SIDE = 512  # pixels; of larger calibration images the middle is scored
PSNR_WINDOW, SSIM_WINDOW = 1, 11  # pixels a side that have to be left once `scale` pixels are shaved off each side

_log = logging.getLogger(__name__)
_WANTED = "want a folder with HR and LR or with HR images, image files, arrays (H, W, C), or TestImages"


@dataclass(frozen=True)
class TestImage:
    """An image pair, uint8 (H, W, 3), or (H, W, 1) where it is grey.

    high   what outputs are compared with, a multiple of the scale high and wide
    low    `high` made smaller by the scale; protocol "srcnn" makes its own, without rounding, and does not look at it
    made   whether `low` was made here, not given
    """

    __test__ = False  # pytest: not a test

    name: str
    high: NDArray[np.uint8]
    low: NDArray[np.uint8]
    made: bool = False

    def __post_init__(self) -> None:
        """Raises InvalidInput for what is no pair of images, the one a whole number of times as large as the other."""
        _require_pixels(self.name, "HR", self.high)
        _require_pixels(self.name, "LR", self.low)
        factor = _find_ratio(self.high, self.low)
        if factor < 1 or self.high.shape[:2] != (factor * self.low.shape[0], factor * self.low.shape[1]):
            raise InvalidInput(
                f"{self.name}: HR is {_format_size(self.high)} and LR {_format_size(self.low)}, which is no whole "
                "factor; crop HR, or let TestImage.of make LR"
            )

    @staticmethod
    def of(name: str, high: NDArray[np.uint8], scale: int) -> TestImage:
        """A pair of the HR image alone: cropped to a multiple of the scale, made smaller by MATLAB's bicubic.

        Raises InvalidInput for what is no such image, or is smaller than one pixel of LR.
        """
        _require_pixels(name, "HR", high)
        require_whole("scale", scale, 1, f"scale {scale}: want 2, 3 or 4")
        if min(high.shape[:2]) < scale:
            raise InvalidInput(f"{name}: is {_format_size(high)} pixels; give {scale} a side or more")
        high = crop_to_multiple(high, scale)
        return TestImage(name, high, resize(high, 1 / scale), made=True)

    @property
    def scale(self) -> int:
        """Factor by which `high` is larger than `low`."""
        return _find_ratio(self.high, self.low)


_Hear: TypeAlias = "Callable[[str], None]"
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
    window: int | None = None,
    warn: Callable[[str], None] | None = None,
    on_skip: Callable[[str], None] | None = None,
) -> list[TestImage]:
    """The test images that a person means.

    images     a folder with HR and LR images (`images.pairs`) or with HR images alone; one or a list of TestImages,
               files of HR images, and arrays (H, W, C) or (H, W), uint8 or floating 0..1; None: photographs that ship
    scale      by which they are to be enlarged; 1, for networks that work on enlarged images: by what LR shows, else
               by 2, 3 and 4 in turn
    keep_grey  files that are grey have one channel, Y
    window     pixels a side that a metric needs after shaving; None: an image can be of any size
    warn       hears of colours that are a guess; None: the log does
    on_skip    hears of files that are passed over: what is no image, without a partner, of another size than its
               partner's, too small; None: `warn` does

    Raises InvalidInput for anything else, for what does not fit the scale or is too small where it was named by itself,
    and where no image is left.
    """
    factors = FACTORS if scale == 1 else (_require_scale(scale),)
    if images is None:
        return _degrade(_list_samples(), factors)
    if isinstance(images, (str, PathLike)) and not Path(images).is_file():
        warn = warn or _log.warning
        files = find_test_files(Path(images), scale if scale > 1 else None)
        for note in files.notes:
            warn(note)
        read = _read_alone if files.pairs is None else _read_pairs
        return read(files, scale, keep_grey, window, warn, on_skip or warn)
    several = images if isinstance(images, (list, tuple)) else [images]
    if not several:
        raise InvalidInput(f"there are no images to score on; {_WANTED}")
    tests = [_make_test_image(image, i, factors, keep_grey) for i, image in enumerate(several)]
    for test in tests:
        if scale > 1 and test.scale != scale:
            raise InvalidInput(
                f"{test.name}: HR is {_format_size(test.high)} and LR {_format_size(test.low)}, which is not x{scale}"
            )
        if small := _find_too_small(test.high, test.scale, window):
            raise InvalidInput(f"{test.name}: {small}; leave it out")
    return tests


def sample_test_images(scale: int) -> list[TestImage]:
    """Test images of the photographs that ship.  Raises InvalidInput if scikit-image, which brings them, is missing."""
    return read_test_images(None, scale)


def find_scale(folder: str | PathLike[str] | None) -> int | None:
    """The factor by which LR is smaller than HR in the first pair that can be read; None for a folder without pairs.

    Raises InvalidInput where LR is not smaller, or there is no image.
    """
    files = None if folder is None or Path(folder).is_file() else find_test_files(Path(folder), None)
    if files is None or files.pairs is None:
        return None
    for names in files.pairs:
        try:
            high, low = (read_image(path) for path in names)
        except InvalidInput:
            continue
        scale = _find_ratio(high, low)
        if scale < 2:
            sizes = f"HR is {_format_size(high)} and LR {_format_size(low)}"
            raise InvalidInput(f"{folder}: {_name_pair(*names)}: {sizes}, not smaller")
        return scale
    raise InvalidInput(f"{folder}: no readable image in it; give a folder of PNG or JPEG files")


def read_image_set(folder: Path, scale: int, *, warn: Callable[[str], None] | None = None) -> ImageSet:
    """The images in a folder that are large enough for a PSNR: see `read_test_images`."""
    images = read_test_images(folder, scale, window=PSNR_WINDOW, warn=warn)
    return ImageSet(tuple(images), f"{say_count(len(images), 'image')} in {folder}")


def calibration_image_set(photographs: Sequence[NamedImage] | None, scale: int) -> ImageSet:
    """The middles of the first photographs that a student is derived from (None: of those that ship)."""
    if photographs is None:
        chosen = _list_samples()
        words = f"{len(chosen)} of the photographs it is derived from"
    else:
        chosen = list(photographs[:SCORED])
        some = f"{len(chosen)} of {len(photographs)}" if len(photographs) > len(chosen) else "the"
        words = f"{some} calibration photographs"
    if any(max(p.pixels.shape[:2]) > SIDE for p in chosen):
        words += f", at most {SIDE}x{SIDE} pixels of each"
    middles = [NamedImage(p.name, _cut_middle(p.pixels)) for p in chosen]
    factors = FACTORS if scale == 1 else (scale,)
    tests = _degrade(middles, factors, window=PSNR_WINDOW)
    if not tests:
        raise InvalidInput(f"none of the calibration photographs is large enough to score on; {_say_needed(factors)}")
    return ImageSet(tuple(tests), words)


def _list_samples() -> list[NamedImage]:
    return [NamedImage(f"photograph {i}", image) for i, image in enumerate(sample_photographs(), 1)]


def _degrade(images: Sequence[NamedImage], factors: Sequence[int], window: int | None = None) -> list[TestImage]:
    """Pairs of HR images by the factors in turn; what is too small is left out."""
    paired = [(image, factors[i % len(factors)]) for i, image in enumerate(images)]
    return [
        TestImage.of(image.name, image.pixels, factor)
        for image, factor in paired
        if _find_too_small(image.pixels, factor, window) is None
    ]


def _read_alone(
    files: TestFiles, scale: int, keep_grey: bool, window: int | None, warn: _Hear, on_skip: _Hear
) -> list[TestImage]:
    """HR images, made smaller."""
    factors = FACTORS if scale == 1 else (scale,)
    high = read_folder(files.folder, paths=files.alone, keep_grey=keep_grey, warn=warn, on_skip=on_skip)
    images = _degrade(high, factors, window)
    for i, image in enumerate(high):
        if small := _find_too_small(image.pixels, factors[i % len(factors)], window):
            on_skip(f"{files.folder / image.name}: {small}; passed over")
    if not images:
        names = ", ".join(image.name for image in high[:3]) + (", ..." if len(high) > 3 else "")
        raise InvalidInput(f"{files.folder}: no image in it is large enough ({names}); {_say_needed(factors, window)}")
    return images


def _read_pairs(
    files: TestFiles, scale: int, keep_grey: bool, window: int | None, warn: _Hear, on_skip: _Hear
) -> list[TestImage]:
    assert files.pairs is not None, "HR images alone are read by _read_alone"
    images, faults = [], [f"{path}: has no partner" for path in files.unpaired]
    for high, low in files.pairs:
        try:
            pixels = [read_image(path, keep_grey=keep_grey, warn=warn) for path in (high, low)]
            image = _make_pair((high, pixels[0]), (low, pixels[1]), scale)
        except InvalidInput as error:
            faults.append(str(error))
            continue
        if small := _find_too_small(image.high, image.scale, window):
            faults.append(f"{high}: {small}")
        else:
            images.append(image)
    if not images:
        raise InvalidInput("; ".join(faults[:3]) + ("; ..." if len(faults) > 3 else ""))
    for fault in faults:
        on_skip(f"{fault.rstrip('.')}; passed over")
    return images


def _make_pair(high: tuple[Path, Pixels], low: tuple[Path, Pixels], scale: int) -> TestImage:
    """HR, cropped to LR's size times the factor, and LR.  Raises InvalidInput where the two do not fit the scale."""
    factor = scale if scale > 1 else _find_ratio(high[1], low[1])
    tall, wide = (size * factor for size in low[1].shape[:2])
    cropped = high[1][:tall, :wide]
    over = max(high[1].shape[0] - tall, high[1].shape[1] - wide)
    if factor < 2 or cropped.shape[:2] != (tall, wide) or over >= factor:
        fitting = f"x{scale}" if scale > 1 else "2, 3 or 4 times smaller"
        sizes = f"HR is {_format_size(high[1])} and LR {_format_size(low[1])}"
        raise InvalidInput(f"{_name_pair(high[0], low[0])}: {sizes}, which is not {fitting}")
    return TestImage(high[0].name, cropped, low[1])


def _name_pair(high: Path, low: Path) -> str:
    """Both paths, or HR's where LR has the same name."""
    return str(high) if high.name == low.name else f"{high} and {low.name}"


def smallest_side(factor: int, window: int | None) -> int:
    """The height and width that an HR image needs at least: a multiple of the factor, as it is cropped to that."""
    return factor if window is None else -(-(2 * factor + window) // factor) * factor


def _find_too_small(high: Pixels, factor: int, window: int | None) -> str | None:
    """Words on an HR image that is too small; None for others."""
    side = smallest_side(factor, window)
    return f"is smaller than {side}x{side} pixels" if min(high.shape[:2]) < side else None


def _make_test_image(image: object, i: int, factors: Sequence[int], keep_grey: bool) -> TestImage:
    if isinstance(image, TestImage):
        return image
    if isinstance(image, (str, PathLike)):
        name, pixels = Path(image).name, read_image(image, keep_grey=keep_grey)
    elif isinstance(image, np.ndarray):
        name = f"image {i + 1}"
        require_levels(image, name)
        pixels = to_uint8(image[..., None] if image.ndim == 2 else image)
    else:
        raise InvalidInput(f"image {i + 1} is a {type(image).__name__}; {_WANTED}")
    factor = factors[i % len(factors)]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or min(pixels.shape[:2]) < factor:
        raise InvalidInput(
            f"{name}: shape {pixels.shape}; want (H, W, 3), (H, W, 1) or (H, W), {factor} pixels a side or more"
        )
    return TestImage.of(name, pixels, factor)


def _say_needed(factors: Sequence[int], window: int | None = PSNR_WINDOW) -> str:
    needed = " or ".join(str(smallest_side(factor, window)) for factor in factors)
    return f"give images of {needed} pixels a side or more"


def _require_pixels(name: object, which: str, pixels: object) -> None:
    """Raises InvalidInput for what is no image of a pair."""
    if not isinstance(name, str):
        raise InvalidInput(f"the name {name!r} of a test image is a {type(name).__name__}; want text")
    if not isinstance(pixels, np.ndarray):
        raise InvalidInput(f"{name}: {which} is a {type(pixels).__name__}; want a NumPy array, uint8 (H, W, 3)")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise InvalidInput(
            f"{name}: {which} is {pixels.dtype} of shape {pixels.shape}; want uint8 in 0..255, (H, W, 3) or (H, W, 1)"
        )


def _require_scale(scale: object) -> int:
    if not isinstance(scale, int) or scale < 1:
        raise InvalidInput(f"scale {scale!r}: want a whole number, 2, 3 or 4")
    return scale


def _cut_middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = (max(size - SIDE, 0) // 2 for size in pixels.shape[:2])
    return pixels[top : top + SIDE, left : left + SIDE]


def _find_ratio(high: NDArray[Any], low: NDArray[Any]) -> int:
    ratio: float = high.shape[0] / low.shape[0]
    return round(ratio)


def _format_size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
