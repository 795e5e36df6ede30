"""Convolutions in float64: matrix products, and fewer of them by Winograd's minimal filtering."""

from __future__ import annotations

import torch
from torch import Tensor

from memsr_compiler.ir.interpreter import convolve_same as general

COLUMNS = 1024  # pixels of one matrix product: what it reads and writes stays in the cache
FEW_CHANNELS = 16  # below this the products are so small that the sums around them cost more


def convolve(x: Tensor, weight: Tensor, groups: int = 1, dilation: int = 1) -> Tensor:
    """Zero-padded convolution that keeps the size, several times faster than torch's in float64.

    The result lies in memory channel by channel, so that `moments.pixels` of it is no copy.
    """
    if x.dtype != torch.float64 or groups > 1 or dilation > 1:
        return general(x, weight, groups, dilation)
    if weight.shape[-1] == 3 and min(weight.shape[:2]) >= FEW_CHANNELS:
        return _minimal(x, weight)
    return _by_taps(x, weight)


def _by_taps(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve by one matrix product per tap, on shifted pieces of the padded images laid end to end."""
    n, c, height, width = x.shape
    size = weight.shape[-1]
    margin = size // 2
    rows, columns = height + 2 * margin, width + 2 * margin
    padded = x.new_zeros(c, n, rows, columns)
    padded[:, :, margin : margin + height, margin : margin + width] = x.transpose(0, 1)
    flat = padded.view(c, -1)
    out = x.new_empty(len(weight), flat.shape[1])
    taps = weight.permute(2, 3, 0, 1).reshape(size * size, len(weight), c).contiguous()
    last = flat.shape[1] - (size - 1) * (columns + 1)
    for start in range(0, last, COLUMNS):
        stop = min(start + COLUMNS, last)
        piece = out[:, start:stop]
        for number, tap in enumerate(taps):
            shift = number // size * columns + number % size
            source = flat[:, start + shift : stop + shift]
            if number:
                piece.addmm_(tap, source)
            else:
                torch.mm(tap, source, out=piece)
    return out.view(len(weight), n, rows, columns)[:, :, :height, :width].transpose(0, 1)


# G of F(4, 3) in Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), section 4.3, of which
# `_rows_in` and `_rows_out` are B and A.
_G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


def _minimal(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve with 3x3 kernels by F(4, 3) from row to row, tap by tap within a row: half the multiplications.

    In float64 its larger coefficients cost a digit of sixteen.

    The images lie one below the other with a row of zeros between, and a column of zeros at their right, which is the
    left border of the next row.  Four rows are a line of work; row r of each line lies with the rows r of all lines.
    """
    n, c, height, width = x.shape
    lines, columns = -(-n * (height + 1) // 4), width + 1
    stacked = x.new_zeros(c, 4 * (lines + 1), columns)
    _images(stacked[:, 1:], n, height).copy_(x.transpose(0, 1))
    rows = stacked.view(c, lines + 1, 4, columns).permute(2, 0, 1, 3).reshape(4, c, -1)
    taps = torch.einsum("pi,ocij->jpoc", weight.new_tensor(_G), weight).contiguous()
    out = x.new_empty(len(weight), lines, 4, columns)
    most = max(COLUMNS // columns, 1)
    below = x.new_zeros(6, c, most * columns + 2)  # a zero at either end, where the border's taps reach
    for start in range(0, lines, most):
        stop = min(start + most, lines)
        pixels = (stop - start) * columns
        ahead = [slice((start + k) * columns, (start + k) * columns + pixels) for k in (0, 1)]
        _rows_in([*rows[:, :, ahead[0]], *rows[:2, :, ahead[1]]], below[:, :, 1 : pixels + 1])
        products = torch.bmm(taps[0], below[:, :, :pixels])
        products.baddbmm_(taps[1], below[:, :, 1 : pixels + 1]).baddbmm_(taps[2], below[:, :, 2 : pixels + 2])
        _rows_out(products.view(6, len(weight), stop - start, columns), out[:, start:stop])
    return _images(out.view(len(weight), 4 * lines, columns), n, height).transpose(0, 1)


def _images(stacked: Tensor, n: int, height: int) -> Tensor:
    """View of the images (C, N, H, W) in what `_minimal` lays out."""
    c, _, columns = stacked.shape
    return stacked[:, : n * (height + 1)].view(c, n, height + 1, columns)[:, :, :height, : columns - 1]


def _rows_in(d: list[Tensor], out: Tensor) -> None:
    """Compute B^T d: six rows, of which the last two are the next line's first."""
    even, odd = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    even, odd = d[4] - d[2], d[3] - d[1]
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])
    torch.sub(even, d[2] - d[0], alpha=4, out=out[0])
    torch.sub(d[5] - d[3], odd, alpha=4, out=out[5])


def _rows_out(m: Tensor, out: Tensor) -> None:
    """Compute A^T m: four rows."""
    even, odd, even2, odd2 = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    torch.add(m[0].add_(even), even2, out=out[:, :, 0])
    torch.add(odd, odd2, alpha=2, out=out[:, :, 1])
    torch.add(even, even2, alpha=4, out=out[:, :, 2])
    torch.add(odd.add_(odd2, alpha=8), m[5], out=out[:, :, 3])
