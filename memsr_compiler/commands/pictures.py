"""Crops of photographs for the report: where they are taken, and by whom they were made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.commands.photographs import Images, Sample, Samples
from memsr_compiler.images.files import to_uint8
from memsr_compiler.images.metrics import luma
from memsr_compiler.images.resize import resize
from memsr_compiler.reports.side_by_side import Picture

PICTURES = 3
CROP = 56  # pixels a side, shown three times enlarged
WHOLE = 256  # pixels; the longer side of a whole photograph


def pictures(samples: Samples, made: Mapping[str, Images]) -> list[Picture]:
    """One for each sample: the original, bicubic, and what the networks made of it, by name."""
    return [
        _picture(sample, {name: images[i] for name, images in made.items()}) for i, sample in enumerate(samples.images)
    ]


def _picture(sample: Sample, made: Mapping[str, NDArray[np.uint8]]) -> Picture:
    grey = sample.input.shape[1] == 1
    original = luma(sample.high).round().astype(np.uint8) if grey else sample.high
    tall, wide = sample.high.shape[:2]
    top, left = hardest(sample)
    here = slice(top, top + CROP), slice(left, left + CROP)
    crops: list[tuple[str, NDArray[np.uint8], float | None]] = [("original", original[here], None)]
    for name, image in {"bicubic": sample.bicubic, **made}.items():
        crops.append((name, to_uint8(image[here]), sample.score(image)))
    place = left / wide, top / tall, min(CROP, wide) / wide, min(CROP, tall) / tall
    whole = resize(original, min(1.0, WHOLE / max(tall, wide)))
    return Picture(sample.name, to_uint8(whole), place, crops)


def hardest(sample: Sample) -> tuple[int, int]:
    """Top and left of the crop in which bicubic is furthest from the original."""
    error = np.square(luma(sample.bicubic) - luma(sample.high))
    tall, wide = error.shape
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tops, lefts = _starts(tall, sample.shave), _starts(wide, sample.shave)
    bottoms, rights = np.minimum(tops + CROP, tall), np.minimum(lefts + CROP, wide)
    total: NDArray[Any] = (
        sums[np.ix_(bottoms, rights)]
        - sums[np.ix_(tops, rights)]
        - sums[np.ix_(bottoms, lefts)]
        + sums[np.ix_(tops, lefts)]
    )
    row, column = np.unravel_index(int(total.argmax()), total.shape)
    return int(tops[row]), int(lefts[column])


def _starts(length: int, shave: int) -> NDArray[np.int64]:
    """Where crops may begin: every fourth pixel, away from the border where there is room."""
    last = length - CROP
    return np.arange(shave, last - shave + 1, 4) if last >= 2 * shave else np.array([max(last, 0) // 2])
