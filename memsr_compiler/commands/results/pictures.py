"""Crops of photographs for the report: where they are taken, and by whom they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.evaluation.image_sets import TestImage
from memsr_compiler.evaluation.scores import enlarge_bicubic, image_psnr
from memsr_compiler.images.files import to_uint8
from memsr_compiler.images.metrics import luma
from memsr_compiler.images.resize import resize
from memsr_compiler.reports.side_by_side import Picture

Images = Sequence[NDArray[np.uint8]]

PICTURES = 3
CROP = 56  # pixels a side, shown three times enlarged
WHOLE = 256  # pixels; the longer side of a whole photograph


def draw_pictures(tests: Sequence[TestImage], outputs: Mapping[str, Images], *, grey: bool) -> list[Picture]:
    """Pictures for the report, one for each image: the original, bicubic, and the networks' outputs, by name.

    grey   the networks work on Y, which is what is shown
    """
    return [
        _draw_picture(test, {name: images[i] for name, images in outputs.items()}, grey) for i, test in enumerate(tests)
    ]


def _draw_picture(test: TestImage, outputs: Mapping[str, NDArray[np.uint8]], grey: bool) -> Picture:
    original = luma(test.high).round().astype(np.uint8) if grey else test.high
    bicubic = enlarge_bicubic(test)
    tall, wide = test.high.shape[:2]
    top, left = find_hardest(test, bicubic)
    here = slice(top, top + CROP), slice(left, left + CROP)
    crops: list[tuple[str, NDArray[np.uint8], float | None]] = [("original", original[here], None)]
    shown = (luma(bicubic) / 255)[..., None] if grey else bicubic
    crops.append(("bicubic", to_uint8(shown[here]), image_psnr(test, bicubic)))
    crops += [(name, to_uint8(image[here]), image_psnr(test, image)) for name, image in outputs.items()]
    place = left / wide, top / tall, min(CROP, wide) / wide, min(CROP, tall) / tall
    whole = resize(original, min(1.0, WHOLE / max(tall, wide)))
    return Picture(test.name, to_uint8(whole), place, crops)


def find_hardest(test: TestImage, bicubic: NDArray[Any]) -> tuple[int, int]:
    """Top and left of the crop in which bicubic is furthest from the original."""
    error = np.square(luma(bicubic) - luma(test.high))
    tall, wide = error.shape
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tops, lefts = _list_starts(tall, test.scale), _list_starts(wide, test.scale)
    bottoms, rights = np.minimum(tops + CROP, tall), np.minimum(lefts + CROP, wide)
    total: NDArray[Any] = (
        sums[np.ix_(bottoms, rights)]
        - sums[np.ix_(tops, rights)]
        - sums[np.ix_(bottoms, lefts)]
        + sums[np.ix_(tops, lefts)]
    )
    row, column = np.unravel_index(int(total.argmax()), total.shape)
    return int(tops[row]), int(lefts[column])


def _list_starts(length: int, shave: int) -> NDArray[np.int64]:
    """Places where crops may begin: every fourth pixel, away from the border where there is room."""
    last = length - CROP
    return np.arange(shave, last - shave + 1, 4) if last >= 2 * shave else np.array([max(last, 0) // 2])
