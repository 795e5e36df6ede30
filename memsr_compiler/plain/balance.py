"""Channels of a plain network brought to one size, without changing what it computes.

ReLU is homogeneous: a channel's row times s and its column in the next layer divided by s give the same network.  A
derived student comes in its teacher's units, first kernels hundreds of times the last, and optimizers, whose steps are
of one size for all weights, wreck it.  Balanced, every channel's row has the norm of its column.  Equalisation as in
Nagel et al. 2019, arXiv 1906.04721, by norms instead of ranges; by powers of two, so that no digit changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from memsr_compiler.plain.halves import list_fixed, scale_channels
from memsr_compiler.plain.network import PlainNet

_SWEEPS = 500  # over all layers at most: each changes what its neighbours see
_LEAST = 1e-300  # in place of zero, to divide by
_SETTLED = 1.002  # a sweep with no larger factor is the last; what is far off moves slowly, so many more may be ahead


def balance_channels(net: PlainNet) -> PlainNet:
    """The same network, bit for bit, with every channel's row and column of one norm to within a factor of 4.

    Rounding to powers of two takes a factor of 2 at most of a channel itself, and as much of its neighbours.
    Channels with an empty row or column, carries by a shift, constants and what leaves a stage stay as they are; a
    certificate says what was scaled.  Raises ExportError where a weight would leave the range of its dtype.
    """
    squares = [layer.weight.detach().cpu().double().square().sum(dim=(2, 3)) for layer in net]
    factors = _balance(squares, list_fixed(net))
    exponents = [-factor.log2().round().long() for factor in factors]
    return scale_channels(net, exponents)


def _balance(squares: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
    """Factors (C_out,) of each layer's rows, after which rows and columns have equal norms; 1 where fixed.

    squares   (C_out, C_in) of each layer: the squared norms of its taps
    """
    joints = [
        i for i in range(len(squares) - 1) if len(squares[i]) == squares[i + 1].shape[1]
    ]  # no pixel shuffle there
    squares = list(squares)
    factors = [torch.ones(len(square), dtype=torch.float64) for square in squares]

    def scale(i: int, s: Tensor) -> None:
        squares[i] = squares[i] * s[:, None].square()
        squares[i + 1] = squares[i + 1] / s.square()
        factors[i] *= s

    for i, factor in _even_layers(squares, joints).items():
        scale(i, torch.where(_free(squares, fixed, i), torch.tensor(factor, dtype=torch.float64), 1.0))
    for _ in range(_SWEEPS):
        largest = 1.0
        for i in joints:
            row, column = squares[i].sum(1), squares[i + 1].sum(0)
            s = torch.where(_free(squares, fixed, i), (column / row.clamp_min(_LEAST)).pow(0.25), 1.0)
            scale(i, s)
            largest = max(largest, float(s.max()), float((1 / s).max()))
        if largest < _SETTLED:
            break
    return factors


def _free(squares: list[Tensor], fixed: list[Tensor], i: int) -> Tensor:
    """Whether each channel between layers i and i + 1 may be scaled, (C,)."""
    return (squares[i].sum(1) > 0) & (squares[i + 1].sum(0) > 0) & ~fixed[i]


def _even_layers(squares: list[Tensor], joints: list[int]) -> dict[int, float]:
    """Factors of whole layers, by joint, after which the layers of each stage have one norm.

    Sweeps alone would take hundreds of rounds to carry what one end of a deep network has too much to the other.
    """
    logs = [0.5 * math.log(float(square.sum()) or 1.0) for square in squares]
    factors: dict[int, float] = {}
    for stage in _split_runs(joints):
        layers = logs[stage[0] : stage[-1] + 2]
        middle, behind = sum(layers) / len(layers), 0.0
        for i in stage:
            behind += middle - logs[i]
            factors[i] = math.exp(behind)
    return factors


def _split_runs(numbers: list[int]) -> list[list[int]]:
    """Runs of whole numbers that follow each other."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
