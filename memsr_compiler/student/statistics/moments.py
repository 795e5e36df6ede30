"""Streamed statistics: sums in float64 that do not grow with the data, and that can be added up across processes.

Samples are multiplied out in their own dtype, float32 as a rule, piece by piece: see `tap_products`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memsr_compiler.student.statistics.tap_products import TapGrid, add_up, multiply


@dataclass(frozen=True)
class Moments:
    """First and second moments of vectors with C entries, all float64 and on the CPU.

    count      how many vectors
    total      (C,) their sum
    products   (C, C) the sum of their outer products
    """

    count: int
    total: Tensor
    products: Tensor

    @staticmethod
    def of(samples: Tensor) -> Moments:
        """Moments of the columns of samples (C, N), in any dtype and on any device, where they are multiplied out."""
        return Moments(samples.shape[1], add_up(samples.T).cpu(), _multiply_half(samples.T).cpu())

    @staticmethod
    def of_taps(grid: TapGrid) -> Moments:
        """Moments of the taps of images, and of the constant 1 after them: see `taps`."""
        mean = grid.mean[:, None, None, None]
        ones, every = len(mean), grid.size**2
        parts = grid.products().view(ones + 1, every, ones + 1, every)
        total = parts[:ones, :, ones, every // 2] + grid.mean[:, None] * parts[ones, :, ones, every // 2]
        parts = parts[:ones] + mean * parts[ones:]
        inner = parts[:, :, :ones] + mean.view(1, 1, -1, 1) * parts[:, :, ones:]
        total = torch.cat([total.flatten(), total.new_full((1,), grid.count)])
        whole = total.new_empty(len(total), len(total))
        whole[:-1, :-1] = inner.reshape(ones * every, -1)
        whole[-1] = whole[:, -1] = total
        return Moments(grid.count, total.cpu(), whole.cpu())

    @staticmethod
    def none(size: int) -> Moments:
        """Moments of no sample."""
        return Moments(0, torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64))

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets of samples together: over batches, over images, over processes."""
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)

    @property
    def mean(self) -> Tensor:
        """Mean vector, (C,)."""
        return self.total / self.count

    @property
    def second(self) -> Tensor:
        """Mean outer product, not centred, (C, C)."""
        return self.products / self.count

    @property
    def covariance(self) -> Tensor:
        """Covariance matrix, (C, C): divided by the count, not one less."""
        return self.second - torch.outer(self.mean, self.mean)


def cross_taps(grid: TapGrid, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Sum of targets (O,), and of the taps times targets, (I, O): float64, as a `Regression` has them.

    targets   (N, O', H, W) each, side by side O of them
    """
    sums, own = grid.cross(targets)
    parts = sums.view(len(grid.mean) + 1, grid.size**2, -1)
    total = parts[-1, grid.size**2 // 2, :-1] + grid.count * own
    read = (parts[:-1] + grid.mean[:, None, None] * parts[-1:]).flatten(0, 1)
    cross = read[:, :-1] + torch.outer(read[:, -1], own)
    return total.cpu(), torch.cat([cross, total[None]]).cpu()


def _multiply_half(x: Tensor, columns: int = 128) -> Tensor:
    """Compute `multiply(x, x)`, of which only one half has to be multiplied out."""
    out = x.new_empty(x.shape[1], x.shape[1], dtype=torch.float64)
    for start in range(0, len(out), columns):
        end = start + columns
        out[start:end, start:] = multiply(x[:, start:end], x[:, start:])
        out[end:, start:end] = out[start:end, end:].T
    return out


@dataclass(frozen=True)
class Regression:
    """Streamed sums for the least squares of y on x, float64 and on the CPU.  x ends with the constant 1.

    inputs   moments of x (I,);   total  (O,) sum of y;   cross  (I, O) sum of x y^T
    """

    inputs: Moments
    total: Tensor
    cross: Tensor

    @staticmethod
    def of(x: Tensor, y: Tensor) -> Regression:
        """Sums over samples in columns: x (I, N), its last row ones, and y (O, N)."""
        dtype = torch.promote_types(x.dtype, y.dtype)
        x, y = x.to(dtype), y.to(dtype)
        return Regression(Moments.of(x), add_up(y.T).cpu(), multiply(x.T, y.T).cpu())

    @staticmethod
    def of_taps(images: Tensor, size: int, *targets: Tensor) -> Regression:
        """Sums over all pixels of images (N, C, H, W): of their taps, see `taps`, and of targets, side by side."""
        grid = TapGrid.of(images, size)
        return Regression(Moments.of_taps(grid), *cross_taps(grid, targets))

    @staticmethod
    def none(inputs: int, outputs: int) -> Regression:
        """Sums over no sample."""
        zeros = torch.zeros(inputs, outputs, dtype=torch.float64)
        return Regression(Moments.none(inputs), zeros.sum(0), zeros)

    def __add__(self, other: Regression) -> Regression:
        return Regression(self.inputs + other.inputs, self.total + other.total, self.cross + other.cross)

    @property
    def covariance(self) -> Tensor:
        """Covariance of x with y, (I, O)."""
        return self.cross / self.inputs.count - torch.outer(self.inputs.mean, self.total / self.inputs.count)

    def solve(self, strength: float) -> Tensor:
        """Solve for the W (O, I) that minimises  mean |W x - y|^2 + strength * sum of W^2 * var x.

        The penalty goes by variance, not by power: a feature that was shifted to be positive is not any surer for it,
        and the constant is free.
        """
        covariance = self.inputs.covariance[:-1, :-1]
        variance = covariance.diagonal().clamp_min(0)
        power = self.inputs.second.diagonal()[:-1]
        floor = 1e-13 * float(power.max()) + 1e-300  # what never varies gets no weight
        damped = covariance + torch.diag(strength * variance + floor)
        rows: Tensor = torch.linalg.solve(damped, self.covariance[:-1]).T
        constant = self.total / self.inputs.count - rows @ self.inputs.mean[:-1]
        return torch.cat([rows, constant[:, None]], dim=1)


def taps(image: Tensor, size: int) -> Tensor:
    """Taps that a zero-padded size x size convolution reads: (N, C, H, W) -> (C * size**2 + 1, N * H * W).

    Rows in the order of a kernel (C_out, C, size, size) flattened; the last row is 1, for the bias.
    """
    n, c, h, w = image.shape
    margin = size // 2
    padded = torch.nn.functional.pad(image, (margin,) * 4)
    out = image.new_ones(c * size**2 + 1, n * h * w)
    views = out[:-1].view(c, size, size, n, h, w)
    for i in range(size):
        for j in range(size):
            views[:, i, j] = padded[:, :, i : i + h, j : j + w].transpose(0, 1)
    return out


def pixels(image: Tensor) -> Tensor:
    """Pixels of images, one a column: (N, C, H, W) -> (C, N * H * W)."""
    return image.permute(0, 2, 3, 1).reshape(-1, image.shape[1]).T
