"""Bicubic resizing as MATLAB's `imresize` defines it, which made the benchmarks' low-resolution images.

Libraries disagree about "bicubic". This one has a = -0.5, widens the kernel by 1 / scale when it shrinks
(antialiasing), renormalises the weights of each output pixel, and filters along the height before the width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput

Border = Literal["replicate", "mirror"]

REACH = 2  # pixels away, the farthest that an enlarged one depends on


def resize(
    image: NDArray[Any], scale: float, *, border: Border = "replicate", rounding: bool | None = None
) -> NDArray[Any]:
    """The image at `scale` times its height and width (sizes rounded up), antialiased when it shrinks.

    image     (H, W) or (H, W, C), any real dtype; computed in float64
    border    what lies outside: "replicate" the edge pixel (older MATLAB, and the published LR images) or
              "mirror" it with the edge pixel repeated (newer MATLAB)
    rounding  clip to 0..255 and round to 8 bits after each direction (height, then width); None: if
              `image` is uint8
    returns   uint8 if rounding, otherwise float64 (may overshoot the range of the input)

    Raises InvalidInput for an empty image, another rank, a scale that is not positive, or an unknown border.
    Source: Keys, "Cubic convolution interpolation" (1981) for the kernel; MATLAB's documentation of imresize.
    """
    if image.ndim not in (2, 3) or image.size == 0:
        raise InvalidInput(f"resize: image of shape {image.shape}. Give a non-empty (H, W) or (H, W, C).")
    if not (math.isfinite(scale) and scale > 0):
        raise InvalidInput(f"resize: scale {scale}. Give a positive, finite factor, such as 2 or 1 / 3.")
    if border not in ("replicate", "mirror"):
        raise InvalidInput(f"resize: border {border!r}. Choose 'replicate' or 'mirror'.")
    if rounding is None:
        rounding = image.dtype == np.uint8
    result: NDArray[Any] = image.astype(np.float64)
    for axis in (0, 1):
        weights, indices = _taps(image.shape[axis], scale, border)
        source = np.ascontiguousarray(np.swapaxes(result, 0, axis))  # whole rows are gathered
        result = np.swapaxes(_gather(source, weights, indices), 0, axis)
        if rounding:
            result = np.floor(np.clip(result, 0, 255) + 0.5)  # MATLAB rounds halves up; np.round would not
    return np.ascontiguousarray(result, np.uint8 if rounding else np.float64)


def _gather(rows: NDArray[Any], weights: NDArray[Any], indices: NDArray[Any]) -> NDArray[Any]:
    """Sums of weighted rows.  Tap by tap: gathering all taps at once would need `taps` copies of the image."""
    total = np.zeros((len(indices), *rows.shape[1:]))
    tap = np.empty_like(total)
    for index, weight in zip(indices.T, weights.T, strict=True):
        if weight.any():
            np.take(rows, index, axis=0, out=tap, mode="clip")  # the only mode that needs no copy
            tap *= weight.reshape(-1, *[1] * (rows.ndim - 1))
            total += tap
    return total


def enlarge_rows(bands: Iterable[NDArray[Any]], scale: int) -> Iterator[NDArray[Any]]:
    """`resize` of an image that comes by bands of rows, (h, W, C) each, by a whole number: float64 bands."""
    rows: NDArray[Any] | None = None
    above = 0  # of `rows`, how many have been enlarged already
    for band in bands:
        rows = band if rows is None else np.concatenate([rows, band])
        ready = len(rows) - REACH
        if ready > above:
            yield resize(rows, scale, rounding=False)[above * scale : ready * scale]
            rows, above = rows[max(ready - REACH, 0) :], min(ready, REACH)
    if rows is not None:
        yield resize(rows, scale, rounding=False)[above * scale :]


def _cubic(x: NDArray[Any]) -> NDArray[Any]:
    """Keys' kernel with a = -0.5, which is zero beyond |x| = 2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _taps(size: int, scale: float, border: Border) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights and source indices, each (output size, taps), of one direction."""
    # 1 / 3 is not a binary fraction: without the rounding, 3 k pixels could become k + 1.
    length = math.ceil(round(size * scale, 9))
    shrink = min(scale, 1.0)
    centre = (np.arange(length) + 0.5) / scale - 0.5  # pixel centres at integers, in source coordinates
    taps = math.ceil(4 / shrink) + 2
    indices = np.floor(centre - 2 / shrink).astype(np.int64)[:, None] + np.arange(taps)
    weights = _cubic(shrink * (centre[:, None] - indices))
    weights /= weights.sum(axis=1, keepdims=True)
    if border == "replicate":
        return weights, np.clip(indices, 0, size - 1)
    indices = indices % (2 * size)
    return weights, np.where(indices < size, indices, 2 * size - 1 - indices)
