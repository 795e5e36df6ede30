"""Products of the taps that a convolution reads, with each other and with targets, without ever writing the taps down.

Two taps see the same feature map, one of them shifted, so their product depends on the shift between them alone: 13
shifts for the 81 pairs of a 3x3 kernel.  That holds where a kernel may stand anywhere on the zero-padded plane; what
kernels contribute that stand just outside of the image is taken off again, a frame of a few hundred pixels.

Products are multiplied out in the images' own dtype, float32 as a rule, piece by piece and about the mean, and added up
in float64: the rounding is that of few terms, and of the variance, not of the power, which in a student's raised
channels is forty times as large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TERMS = 256  # that float32 adds up: more lose digits, which a regression on channels that are nearly alike needs
PIECE = 16 * TERMS  # pixels that are laid out at once: what a product reads stays in the cache


@dataclass(frozen=True)
class TapGrid:
    """Images about their mean on a zero-padded plane, row after row, with a channel that is 1 inside the image.

    plane   (N, H + 2 m, W + 2 m, C + 1), m = size // 2;   mean  (C,) float64, what was subtracted inside
    """

    plane: Tensor
    mean: Tensor
    size: int

    @staticmethod
    def of(images: Tensor, size: int) -> TapGrid:
        """Lay out images (N, C, H, W) for kernels of size x size."""
        plane, mean = _lay_out([images], size // 2)
        return TapGrid(plane, mean, size)

    @property
    def count(self) -> int:
        """Pixels of the images, of all of which the taps are."""
        n, height, width, _ = self.plane.shape
        margin = self.size // 2
        return n * (height - 2 * margin) * (width - 2 * margin)

    def products(self) -> Tensor:
        """Sums of tap times tap over all pixels, (I, I) float64, I = (C + 1) size^2; the last channel's are the ones'.

        Taps in the order of a kernel (C_out, C + 1, size, size) flattened, about the mean.
        """
        size, channels = self.size, self.plane.shape[3]
        shifts = 2 * size - 1
        total = self.plane.new_zeros(size, channels, shifts * channels, dtype=torch.float64)
        for rows, windows in self._pieces():
            below = self._flat(rows)
            for down in range(size):
                total[down] += multiply(below, windows[down * self.plane.shape[2] :][: len(below)])
        half = total.view(size, channels, shifts, channels).permute(0, 2, 1, 3)  # by shift (down, right)
        half[0] = (half[0] + half[0].flip(0).transpose(1, 2)) / 2  # the same sums, rounded otherwise
        every = torch.cat([half[1:].flip((0, 1)).transpose(2, 3), half])
        apart = torch.arange(size)[None, :] - torch.arange(size)[:, None] + size - 1
        # (from row, to row, from column, to column, C, C): the shift from one tap to the other
        pairs = every[apart[:, :, None, None], apart[None, None, :, :]]
        whole = pairs.permute(4, 0, 2, 5, 1, 3).reshape(channels * size**2, -1)
        return whole - self._outside()

    def cross(self, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Sums of tap times target over all pixels, and of the taps, (I, O + 1); and the targets' mean, (O,): float64.

        targets   (N, O', H, W) each, side by side O of them, that are taken about their mean
        """
        size, channels = self.size, self.plane.shape[3]
        margin, width = size // 2, self.plane.shape[2]
        plane, mean = _lay_out(targets, margin)
        wanted = plane.flatten(0, 2)
        total = self.plane.new_zeros(size, size * channels, wanted.shape[1], dtype=torch.float64)
        first = (size - 1 - margin) * channels
        for rows, windows in self._pieces():
            here = wanted[rows.start + margin * width : rows.stop + margin * width]
            for down in range(size):
                seen = windows[down * width :][: len(here), first : first + size * channels]
                total[down] += multiply(seen, here)
        return total.view(size, size, channels, -1).permute(2, 0, 1, 3).reshape(channels * size**2, -1), mean

    def _flat(self, rows: slice) -> Tensor:
        return self.plane.view(-1, self.plane.shape[3])[rows]

    def _pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield pieces of the plane's pixels, and the windows of size - 1 image rows more.

        A window, (2 size - 1) * (C + 1) numbers, is all that lies less than `size` columns beside a pixel.
        """
        _, _, width, channels = self.plane.shape
        beside, further = self.size - 1, (self.size - 1) * width
        flat = F.pad(self.plane.view(-1, channels), (0, 0, beside, further + beside))
        count = self.plane[..., 0].numel()
        for start in range(0, count, PIECE):
            stop = min(start + PIECE, count)
            part = flat[start : stop + further + 2 * beside]
            shape = stop - start + further, (2 * beside + 1) * channels
            yield slice(start, stop), part.as_strided(shape, (channels, 1), part.storage_offset()).contiguous()

    def _outside(self) -> Tensor:
        """Products of the taps of kernels whose middle lies outside of the image."""
        margin = self.size // 2
        if not margin:
            return self.plane.new_zeros((), dtype=torch.float64)
        plane = F.pad(self.plane.permute(0, 3, 1, 2), (margin,) * 4)
        frame = (
            plane[:, :, : 3 * margin],
            plane[:, :, -3 * margin :],
            plane[:, :, margin:-margin, : 3 * margin],
            plane[:, :, margin:-margin, -3 * margin :],
        )
        seen = torch.cat([F.unfold(side, self.size).transpose(1, 2).flatten(0, 1) for side in frame])
        frame_products = multiply(seen, seen)
        return (frame_products + frame_products.T) / 2


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Compute a^T b, (C, O) float64, of samples in rows, (N, C) and (N, O), of one dtype."""
    if a.dtype == torch.float64:
        return a.T @ b
    total = a.new_zeros(a.shape[1], b.shape[1], dtype=torch.float64)
    whole = len(a) // TERMS * TERMS
    for start in range(0, whole, PIECE):
        x, y = (part[start : min(start + PIECE, whole)].view(-1, TERMS, part.shape[1]) for part in (a, b))
        total += torch.bmm(x.transpose(1, 2), y).sum(0, dtype=torch.float64)
    if whole < len(a):
        total += (a[whole:].T @ b[whole:]).double()
    return total


def add_up(a: Tensor) -> Tensor:
    """Sum of samples in rows (N, C), (C,) float64, of which as many are added in their own dtype as by `multiply`."""
    whole = len(a) // TERMS * TERMS
    parts = a[:whole].view(-1, TERMS, a.shape[1]).sum(1)
    return parts.sum(0, dtype=torch.float64) + a[whole:].sum(0, dtype=torch.float64)


def _lay_out(images: Sequence[Tensor], margin: int) -> tuple[Tensor, Tensor]:
    """Lay images less their mean out side by side, pixel by pixel, and a channel of ones; say the mean, float64.

    images   (N, C', H, W) each;   returns (N, H + 2 margin, W + 2 margin, C + 1), and (C,)
    """
    n, _, height, width = images[0].shape
    channels = sum(part.shape[1] for part in images)
    plane = images[0].new_empty(n, height + 2 * margin, width + 2 * margin, channels + 1)
    if margin:
        for side in (plane[:, :margin], plane[:, -margin:], plane[:, :, :margin], plane[:, :, -margin:]):
            side.zero_()
    inside = plane[:, margin : margin + height, margin : margin + width]
    means = [part.mean(dim=(0, 2, 3)) for part in images]
    places = torch.split(inside[..., :channels], [part.shape[1] for part in images], dim=3)
    for part, mean, place in zip(images, means, places, strict=True):
        torch.sub(part.permute(0, 2, 3, 1), mean, out=place)
    inside[..., channels] = 1
    return plane, torch.cat(means).double()
