"""SRKD: statistics of features, Gao et al. 2018 (ACCV, "Image Super-Resolution Using Knowledge Distillation")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def statistics_map(features: Tensor) -> Tensor:
    """Mean magnitude over the channels, (N, C, H, W) -> (N, 1, H, W): G_mean of Gao et al."""
    return features.abs().mean(dim=1, keepdim=True)


def statistics_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over the depths of the MSE between the statistics maps of student and teacher.

    Each (N, C, H, W), with any number of channels: the map has one.
    """
    pairs = zip(student, teacher, strict=True)
    return torch.stack([F.mse_loss(statistics_map(mine), statistics_map(theirs)) for mine, theirs in pairs]).sum()
