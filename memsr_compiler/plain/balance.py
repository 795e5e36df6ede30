"""Channels of a plain network brought to one size, without changing what it computes.

ReLU is homogeneous: a channel's row times s and its column in the next layer divided by s give the same network.  A
derived student comes in its teacher's units, first kernels hundreds of times the last, and optimizers, whose steps are
of one size for all weights, wreck it.  Balanced, every channel's row has the norm of its column.  Equalisation as in
Nagel et al. 2019, arXiv 1906.04721, by norms instead of ranges; by powers of two, so that no digit changes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memsr_compiler.plain.halves import list_fixed, scale_channels
from memsr_compiler.plain.network import PlainNet

_SWEEPS = 50  # over all layers: each changes what its neighbours see


def balance_channels(net: PlainNet) -> PlainNet:
    """The same network, bit for bit, with every channel's row and column of one norm to within a factor of 4.

    Rounding to powers of two takes a factor of 2 at most of a channel itself, and as much of its neighbours.
    Channels with an empty row or column, carries by a shift, constants and what leaves a stage stay as they are; a
    certificate says what was scaled.  Raises ExportError where a weight would leave the range of its dtype.
    """
    weights = [layer.weight.detach().cpu().double() for layer in net]
    factors = _balance(weights, list_fixed(net))
    exponents = [-factor.log2().round().long() for factor in factors]
    return scale_channels(net, exponents)


def _balance(weights: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
    """Factors (C_out,) of each layer's rows, after which rows and columns have equal norms; 1 where fixed."""
    factors = [torch.ones(len(weight), dtype=torch.float64) for weight in weights]
    for _ in range(_SWEEPS):
        for i in range(len(weights) - 1):
            above, below = weights[i : i + 2]
            if len(above) != below.shape[1]:  # a pixel shuffle lies between
                continue
            row, column = above.flatten(1).norm(dim=1), below.transpose(0, 1).flatten(1).norm(dim=1)
            free = (row > 0) & (column > 0) & ~fixed[i]
            s = torch.where(free, (column / row.clamp_min(1e-300)).sqrt(), 1.0)
            weights[i] = above * s[:, None, None, None]
            weights[i + 1] = below / s[None, :, None, None]
            factors[i] *= s
    return factors
