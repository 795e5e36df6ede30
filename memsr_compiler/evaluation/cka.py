"""Linear CKA between two networks' layers: how alike they see (MemSR, Figure 5).

Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited" (ICML 2019), for linear
kernels: |cov(X, Y)|^2 / (|cov(X, X)| |cov(Y, Y)|) with Frobenius norms, X and Y the features of two layers, a sample
for each pixel.  1 for features that are turned or scaled versions of each other, 0 for uncorrelated ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.statistics.moments import Moments, pixels
from memsr_compiler.torch_helpers import full_float32, torch_device

PIXELS = 4096  # of each batch, at most, the same ones in all layers


def linear_cka(a: LeveledTeacher, b: LeveledTeacher, inputs: Sequence[Tensor], *, device: str = "cpu") -> Tensor:
    """Linear CKA of every pair of levels, the output's left out: (levels of a, levels of b), float64, in 0..1.

    inputs   batches (N, C, H, W), as both networks take them
    device   "cpu" or "cuda": where the networks run

    Raises InvalidInput for networks that take images of other channels or other ranges, or have a single layer, and
    for a device that is not to be had.
    """
    place = torch_device(device)
    if (a.input.channels, a.input.low, a.input.high) != (b.input.channels, b.input.low, b.input.high):
        raise InvalidInput("the two networks take images of other channels, or values of another range")
    if min(len(a.levels), len(b.levels)) < 2:
        raise InvalidInput("a network of one layer has no features to compare")
    sizes = [a.widths[1:-1], b.widths[1:-1]]
    total = Moments.none(sum(sizes[0]) + sum(sizes[1]))
    generator = torch.Generator().manual_seed(0)
    with full_float32(place):
        for batch in inputs:
            count = batch.shape[0] * batch.shape[2] * batch.shape[3]
            chosen = torch.randperm(count, generator=generator)[:PIXELS]
            images = batch.to(place).float()
            total += Moments.of(torch.cat([_features(network, images, chosen) for network in (a, b)]))
    covariance = total.covariance
    every = [*sizes[0], *sizes[1]]
    blocks = [torch.split(row, every, dim=1) for row in torch.split(covariance, every)]
    split = len(sizes[0])
    own = [float(blocks[i][i].norm()) for i in range(len(blocks))]
    rows = [
        [_ratio(float(blocks[i][j].square().sum()), own[i] * own[j]) for j in range(split, len(blocks))]
        for i in range(split)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def _ratio(shared: float, own: float) -> float:
    """Share of what is common, 0 where a layer's features never vary."""
    return min(shared / own, 1.0) if own > 0 else 0.0


def _features(network: LeveledTeacher, images: Tensor, chosen: Tensor) -> Tensor:
    """Features of all levels but the output, one after another: (channels, pixels)."""
    with torch.no_grad():
        return torch.cat([pixels(level.after)[:, chosen] for level in network.inner_features(images)])
