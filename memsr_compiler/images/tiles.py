"""Images in pieces of one size, for networks that take no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """A piece along one axis: it starts at `start`, and of its result `first` to `last` - 1 of the whole is taken."""

    start: int
    first: int
    last: int


def place_spans(extent: int, side: int, margin: int) -> list[Span]:
    """Pieces of `side` pixels that cover `extent`, each result at least `margin` from where the image was cut.

    A shorter extent has one piece, which goes beyond it.  Raises ValueError where the margins leave nothing.
    """
    if extent <= side:
        return [Span(0, 0, extent)]
    step = side - 2 * margin
    if step < 1:
        raise ValueError(f"pieces of {side} pixels with margins of {margin}")
    starts = [*range(0, extent - side, step), extent - side]
    ends = [*(start + margin for start in starts[1:]), extent]
    firsts = [0, *ends[:-1]]
    return [Span(*each) for each in zip(starts, firsts, ends, strict=True)]


def cut(image: Tensor, row: Span, column: Span, height: int, width: int) -> Tensor:
    """A piece of an image (C, H, W), continued by its last rows and columns where it ends."""
    part = image[:, row.start : row.start + height, column.start : column.start + width]
    beyond = (0, width - part.shape[2], 0, height - part.shape[1])
    return F.pad(part[None], beyond, mode="replicate")[0] if any(beyond) else part


def stack(pieces: Sequence[Tensor], batch: int | None) -> Iterator[Tensor]:
    """Pieces as batches of that size, or of one; the last one is filled up by copies of its last piece."""
    size = batch or 1
    for begin in range(0, len(pieces), size):
        group = list(pieces[begin : begin + size])
        yield torch.stack([*group, *[group[-1]] * (size - len(group))])


def cut_batches(images: Sequence[Tensor], sizes: tuple[int | None, int | None, int | None]) -> list[Tensor]:
    """Images (N, C, H, W) as batches of the batch, height and width that a network takes; None: any."""
    batch, height, width = sizes
    if sizes == (None, None, None):
        return list(images)
    batches: list[Tensor] = []
    for group in images:
        h, w = height or group.shape[2], width or group.shape[3]
        places = list(product(place_spans(group.shape[2], h, 0), place_spans(group.shape[3], w, 0)))
        batches += stack([cut(image, *place, h, w) for image in group for place in places], batch)
    return batches
