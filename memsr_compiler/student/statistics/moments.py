"""Streamed statistics: sums in float64 that do not grow with the data, and that can be added up across processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        x = samples.double()
        return Moments(x.shape[1], x.sum(1).cpu(), products(x).cpu())

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


def products(x: Tensor, rows: int = 128) -> Tensor:
    """Product x x^T in x's dtype and on its device, of which only one half has to be multiplied out."""
    out = x.new_empty(len(x), len(x))
    for start in range(0, len(x), rows):
        end = start + rows
        out[start:end, start:] = x[start:end] @ x[start:].T
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
        x, y = x.double(), y.double()
        return Regression(Moments.of(x), y.sum(1).cpu(), (x @ y.T).cpu())

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
    return image.transpose(0, 1).reshape(image.shape[1], image.shape[0] * image.shape[2] * image.shape[3])
