"""A student whose features are compared with its teacher's as they are, without maps between them: SRKD, FAKD."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.training.losses import TaughtStudent, feature_weight, pixel_loss
from memsr_compiler.training.methods.fakd import affinity_distance
from memsr_compiler.training.methods.srkd import statistics_distance

Distance = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""Distance of the student's features from the teacher's, each (N, C, H, W), numbers of channels apart."""

DISTANCES: Mapping[str, Distance] = {"srkd": statistics_distance, "fakd": affinity_distance}

DEPTHS = 3  # at which both compare features: low, middle and high


class Comparison(TaughtStudent):
    """A plain student beside its teacher, compared at three depths.

    weight   of the distance;   epsilon   what is left of it at the end.  With weight 0 the teacher is not run.
    network, teacher, means   of TaughtStudent
    """

    def __init__(
        self,
        network: PlainNet,
        teacher: LeveledTeacher,
        distance: Distance,
        *,
        weight: float,
        epsilon: float,
        means: Sequence[Tensor],
    ) -> None:
        super().__init__(network, teacher, means)
        self._distance, self._weight, self._epsilon = distance, weight, epsilon

    def forward(self, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        own, output = self._features(low)
        pixels = pixel_loss(output, high)
        if not self._weight:
            return pixels, pixels, torch.zeros_like(pixels)
        theirs = self._teacher_features(low)
        depths = choose_depths(len(own))
        distance = self._distance([own[i] for i in depths], [theirs[i] for i in depths])
        weight = feature_weight(share, weight=self._weight, epsilon=self._epsilon)
        return pixels + weight * distance, pixels, distance


def choose_depths(layers: int) -> list[int]:
    """Numbers, from 0, of the layers after each third of an inner stack; all of them where it has fewer."""
    return sorted({-(-layers * part // DEPTHS) - 1 for part in range(1, DEPTHS + 1)})
