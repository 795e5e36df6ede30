"""Colours under transparent pixels: what nobody sees must not reach what is seen.

A network mixes the colours of pixels that lie near each other, whatever their alpha.  So pixels of alpha 0, whose
colours are leftovers (black, mostly), first get those of the nearest visible ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]


def extend_bands(bands: Iterable[Pixels], reach: int) -> Iterator[Pixels]:
    """Colours of an image that comes by bands with alpha last, those under alpha 0 as `extend_colours` makes them.

    Numbers are whole and added exactly, so the result does not depend on how the image is cut.
    """
    rows: Pixels | None = None
    above = 0  # of `rows`, how many have been given already
    for band in bands:
        rows = band if rows is None else np.concatenate([rows, band])
        ready = len(rows) - reach
        if ready - above >= reach:  # not for every row: most of the work is around what is given
            yield extend_colours(rows, reach)[above:ready]
            rows, above = rows[max(ready - reach, 0) :], min(ready, reach)
    if rows is not None:
        yield extend_colours(rows, reach)[above:]


def extend_colours(pixels: Pixels, reach: int) -> Pixels:
    """Colours of pixels (H, W, C) with alpha last, those under alpha 0 made of visible ones.

    reach   a hidden pixel with nothing visible within so many rows and columns becomes grey

    Each takes the mean of what is visible in the smallest of the squares 3x3, 5x5, 9x9, ... around it that holds any.
    """
    visible: NDArray[np.bool_] = pixels[..., -1] > 0
    colours: Pixels = pixels[..., :-1]
    wanted = ~visible
    if not wanted.any():
        return colours
    result: Pixels = colours.copy()
    result[wanted] = np.iinfo(pixels.dtype).max // 2
    radius = 1
    while wanted.any():
        radius = min(radius, reach)
        number = np.uint32 if int(np.iinfo(pixels.dtype).max) * (2 * radius + 1) ** 2 < 1 << 32 else np.uint64
        count = _sum_squares(visible.astype(number), radius)
        filled = wanted & (count > 0)
        for channel in range(colours.shape[2]):
            total = _sum_squares(np.where(visible, colours[..., channel], 0).astype(number), radius)
            result[..., channel][filled] = (total[filled] + count[filled] // 2) // count[filled]
        wanted &= ~filled
        if radius == reach:
            break
        radius *= 2
    return result


def working_bytes(width: int, channels: int, itemsize: int, reach: int) -> int:
    """Bytes that `extend_bands` takes, at most, for bands of at most `reach` rows."""
    numbers = 5 * 4  # sums, their running totals, the mask and what is taken of them
    return 4 * reach * width * (3 * (channels + 1) * itemsize + numbers)


def _sum_squares(values: Pixels, radius: int) -> Pixels:
    """Sums over the square around each pixel, what lies outside being 0.

    Running totals may overflow: differences are right again where they fit.
    """
    for axis in (0, 1):
        length = values.shape[axis]
        totals = np.zeros_like(values, shape=[n + (i == axis) for i, n in enumerate(values.shape)])
        np.cumsum(values, axis=axis, out=totals[1:] if axis == 0 else totals[:, 1:])
        places = np.arange(length)
        after, before = np.minimum(places + radius + 1, length), np.maximum(places - radius, 0)
        values = totals.take(after, axis)
        values -= totals.take(before, axis)
    return values
