"""MemSR's Algorithm 1 and Eq. 5 to 11: tensors in, tensors out, all float64.  Knows no graph, no image, no file.

F (C, N) are a level's features, one column a pixel, F^S (r, N) the student's; M (C, r) is to give F back:

    F ~ M F^S + bias,  F - mean = U S V^T,  M = U[:, :r],                            Algorithm 1 and Eq. 5 to 7
    F^S = M^T (F - mean) + gamma,  bias = mean - M gamma
    M K^S ~ K M_below  for each tap of the level's kernel K, by least squares         Eq. 8 to 11
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from memsr_compiler.ir.kernels import bias_from_ones, mix_inputs
from memsr_compiler.student.report import Kernel
from memsr_compiler.student.statistics.moments import Moments
from memsr_compiler.student.statistics.survey import eq15_error

NOTHING = 1e-12  # of the largest variance: less is rounding, not a direction


@dataclass(frozen=True)
class PrincipalComponents:
    """Principal components of a level's features, largest first: the decomposition of MemSR's Algorithm 1.

    mean (C,)    energy (C,): the variances along vectors (C, C)    against: the energy that Eq. 15 divides by
    """

    mean: Tensor
    energy: Tensor
    vectors: Tensor
    against: float

    @staticmethod
    def of(moments: Moments, relative_to: Literal["centred", "uncentred"]) -> PrincipalComponents:
        """Decompose features of which the moments are known.

        The singular vectors of the centred features are the eigenvectors of their covariance.  Of a vector and its
        opposite, which the decomposition leaves open and the ReLU does not, the one whose largest entry is positive.
        """
        energy, vectors = torch.linalg.eigh(moments.covariance)
        energy, vectors = energy.flip(0), vectors.flip(1)
        energy = energy.where(energy > max(NOTHING * float(energy[0]), 1e-14 * float(moments.mean.square().sum())), 0)
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        against = float(energy.sum())
        if relative_to == "uncentred":
            against += float(moments.mean.square().sum())
        return PrincipalComponents(moments.mean, energy, vectors * largest.sign(), against)

    @property
    def rank(self) -> int:
        return int((self.energy > 0).sum())

    def error(self, directions: int) -> float:
        """Relative error of the features if only the first directions are kept (MemSR, Eq. 15)."""
        return eq15_error(self.energy, directions, self.against)

    def narrowest(self, theta: float) -> int:
        """Smallest number of directions of which Eq. 15 is below theta (MemSR, Sec. 3.5).

        All errors are known at once: no search, and nothing that a search could spoil.
        """
        fits = [r for r in range(1, len(self.energy)) if self.error(r) < theta]
        return min(fits, default=len(self.energy))

    def basis(self, width: int, ones: bool) -> Basis:
        """Basis of the first directions for a layer of that width, not shifted yet."""
        r = min(width - ones, self.rank)
        return Basis(self.mean, self.vectors[:, :r], torch.zeros(r, dtype=torch.float64), width, ones)


@dataclass(frozen=True)
class Basis:
    """A level as the student holds it: F ~ directions * (F^S - shift) + mean (MemSR, Algorithm 1, Eq. 5 to 7).

    Its channels: the constant 1, if `ones`; one for each direction; zeros up to `width`.
    mean (C,)    directions (C, r), orthonormal columns: M    shift (r,): gamma of Algorithm 1
    """

    mean: Tensor
    directions: Tensor
    shift: Tensor
    width: int
    ones: bool

    @staticmethod
    def complete(channels: int, width: int, ones: bool) -> Basis:
        """Basis that holds all channels of the teacher as they are, in a layer of that width."""
        zeros = torch.zeros(channels, dtype=torch.float64)
        identity = torch.eye(channels, dtype=torch.float64)
        return Basis(zeros, identity, zeros, width, ones)

    def with_shift(self, shift: Tensor) -> Basis:
        """This basis, its components raised by gamma (r,)."""
        return replace(self, shift=shift)

    @property
    def map(self) -> Tensor:
        """Map M (C, width + 1), the constant's column last.  Algorithm 1's corrected bias: mean - M gamma, once."""
        out = torch.zeros(len(self.mean), self.width + 1, dtype=torch.float64)
        out[:, self.ones : self.ones + self.directions.shape[1]] = self.directions
        out[:, -1] = self.mean - self.directions @ self.shift
        return out

    @property
    def lifted(self) -> Tensor:
        """Matrix from [1; F^S] to [1; F], (1 + C, 1 + width)."""
        out = torch.zeros(len(self.mean) + 1, self.width + 1, dtype=torch.float64)
        out[0, 0] = 1
        out[1:, 0], out[1:, 1:] = self.map[:, -1], self.map[:, :-1]
        return out

    def components(self, samples: Tensor) -> Tensor:
        """Components of features along the directions, before the shift: (C, N) -> (r, N)."""
        towards = self.directions.T.to(samples)
        return towards @ samples - (self.directions.T @ self.mean)[:, None].to(samples)

    def solve_kernel(self, kernel: Tensor, lifted: Tensor, ones: bool) -> Kernel:
        """Solve for the student's kernel (MemSR, Eq. 8 to 11): for each tap the K^S with  M K^S ~ K M_below.

        By least squares, which is M^T K M_below, as M has orthonormal columns; the constant channel stays the constant.

        kernel   K (C, 1 + C_below, k, k) of the teacher's level;   lifted   of the basis below
        ones     the level below has a channel of ones
        """
        composed = mix_inputs(kernel, lifted)
        weight, bias = split_constant(torch.einsum("cr,cijk->rijk", self.directions, composed), ones)
        bias = bias - self.directions.T @ self.mean + self.shift
        above, below = int(self.ones), self.width - self.ones - len(bias)
        weight = torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, 0, above, below))
        bias = torch.nn.functional.pad(bias, (above, below))
        bias[:above] = 1
        return weight, bias


@dataclass(frozen=True)
class NegativeEntries:
    """Streamed sums over the negative entries of components, from which Algorithm 1 has its mean shift.

    total, count, lowest (r,): their sum, how many there are, the smallest or 0    samples: entries of either sign
    """

    total: Tensor
    count: Tensor
    lowest: Tensor
    samples: int

    @staticmethod
    def none(components: int) -> NegativeEntries:
        """Sums over no sample."""
        total, count, lowest = (torch.zeros(components, dtype=torch.float64) for _ in range(3))
        return NegativeEntries(total, count, lowest, 0)

    @staticmethod
    def of(components: Tensor) -> NegativeEntries:
        """Sums over components (r, N), which are overwritten."""
        count = (components < 0).sum(1).double()
        negative = components.clamp_max_(0)
        return NegativeEntries(negative.sum(1).cpu(), count.cpu(), negative.amin(1).cpu(), negative.shape[1])

    def __add__(self, other: NegativeEntries) -> NegativeEntries:
        lowest = torch.minimum(self.lowest, other.lowest)
        samples = self.samples + other.samples
        return NegativeEntries(self.total + other.total, self.count + other.count, lowest, samples)

    def mean_shift(self, beta: float, over: Literal["negative", "all"]) -> Tensor:
        """Shift gamma = -beta * mean of the negative entries, (r,) (MemSR, Algorithm 1)."""
        averaged = self.count.clamp_min(1) if over == "negative" else self.count.new_tensor(self.samples)
        return self.total.mul(-beta).div(averaged)


def split_constant(kernel: Tensor, ones: bool) -> Kernel:
    """Split a kernel on [1; x] into kernel and bias on x: the constant's centre tap is a bias (MemSR, Eq. 4).

    Its other taps go to channel 0 of x, if that holds ones; else they are bias too, right inside the image only.
    """
    weight, bias = bias_from_ones(kernel)
    constant, weight = weight[:, 0], weight[:, 1:].clone()
    if ones:
        weight[:, 0] += constant
        return weight, bias
    return weight, bias + constant.sum((1, 2))
