"""FAKD: which pixels are alike, He et al. 2020 (ICIP, "FAKD: Feature-Affinity Based Knowledge Distillation").

Their teacher supervision, half of the loss of the output, is what labels from photographs and teacher are here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LARGEST = 1 << 22
"""Numbers of an affinity matrix that are held at once; the rest is computed again for the gradient.

A patch of 96x96 has a matrix of 85 million numbers for each image."""

_LEAST = 1e-8  # of a pixel's norm


def affinity_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over the depths of the L1 between the affinity matrices of student and teacher.

    Each (N, C, H, W), with any number of channels: the matrices (H W, H W) are cosines between the channels of every
    two pixels, the spatial affinity of He et al.
    """
    pairs = zip(student, teacher, strict=True)
    return torch.stack([_matrix_distance(_normalise(mine), _normalise(theirs)) for mine, theirs in pairs]).sum()


def _normalise(features: Tensor) -> Tensor:
    """Pixels of norm 1, (N, C, H W)."""
    return F.normalize(features.flatten(2), dim=1, eps=_LEAST)


def _matrix_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """L1 between the matrices of cosines, by bands of rows, so that it needs no memory for all of them."""
    images, _, pixels = student.shape
    rows = max(1, LARGEST // (images * pixels))
    total = student.new_zeros(())
    for top in range(0, pixels, rows):
        band = checkpoint(_band_distance, student, teacher, top, top + rows, use_reentrant=False)
        assert isinstance(band, Tensor)
        total = total + band
    return total / (images * pixels**2)


def _band_distance(student: Tensor, teacher: Tensor, top: int, end: int) -> Tensor:
    """Sum of the magnitudes of the differences in these rows of the matrices."""
    mine, theirs = (x[:, :, top:end].transpose(1, 2) @ x for x in (student, teacher))
    return torch.sum(torch.abs(mine - theirs))
