"""PISR: the photograph itself as privileged information, Lee et al. 2020 (ECCV, arXiv 2007.07524).

Its teacher is an auto-encoder: an encoder makes a small image of the photograph, which is to be like the real one
(imitation loss), a decoder of the student's own shape restores the photograph.  Then the student begins as the decoder,
and follows its features by variational information distillation (Ahn et al. 2019) with a Laplace distribution.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.plain.network import PlainNet
from memsr_compiler.training.losses import CentredStudent, feature_weight, pixel_loss

AUTO_ENCODER = 0.5
"""Part of a run in which the auto-encoder is trained; theirs has two runs of one length."""

IMITATION = 1e-4
"""Weight of the imitation loss: lambda^T of Lee et al."""

_WIDE, _NARROW = 56, 12  # channels of the encoder: d and s of Lee et al.
_LEAST = 1e-8  # of a scale


class Encoder(nn.Sequential):
    """Photographs -> small images, (N, C, s h, s w) -> (N, C, h, w), a mirrored FSRCNN, as their code has it."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__(
            nn.Conv2d(channels, _WIDE, 5, padding=2),
            nn.PReLU(),
            nn.Conv2d(_WIDE, _WIDE, 5, stride=scale, padding=2),
            nn.PReLU(),
            nn.Conv2d(_WIDE, _NARROW, 3, padding=1),
            nn.PReLU(),
            nn.Conv2d(_NARROW, channels, 3, padding=1),
        )


class Estimator(nn.Module):
    """The decoder's features as the student's tell them: location and scale of a Laplace distribution at each place.

    (N, C, H, W) -> two of that shape
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.location, self.scale = (
            nn.Sequential(nn.Conv2d(channels, channels, 1), nn.PReLU(), nn.Conv2d(channels, channels, 1))
            for _ in range(2)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.location(features), F.softplus(self.scale(features)) + _LEAST


def laplace_distance(location: Tensor, scale: Tensor, features: Tensor) -> Tensor:
    """Mean of log b + |f - mu| / b: the part of a Laplace distribution's negative logarithm that can be trained."""
    return (scale.log() + (features - location).abs() / scale).mean()


class Privileged(CentredStudent):
    """A plain student that is the decoder of an auto-encoder first, and follows what that became afterwards.

    network, means   of CentredStudent: decoder and student are one network, so the student begins as the decoder
    weight           of the features' distance, lambda^S;   epsilon   what is left of it at the end of the run

    The photograph is the first of what is wanted of an output.  A state holds both stages, so a run goes on from any.
    """

    taught: Tensor
    """Whether the auto-encoder has become the teacher."""

    def __init__(self, network: PlainNet, *, weight: float, epsilon: float, means: Sequence[Tensor], seed: int) -> None:
        super().__init__(network, means)
        self._weight, self._epsilon = weight, epsilon
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(network.info.channels, network.scale)
            self.estimator = Estimator(network[-1].in_channels)
        self.decoder = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("taught", torch.tensor(False))

    def forward(self, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        photograph = high[:, 0]
        if share < AUTO_ENCODER:
            small = self.encoder(photograph)
            pixels = pixel_loss(self._features(small)[1], photograph[:, None])
            imitation = F.l1_loss(small, low)
            return pixels + IMITATION * imitation, pixels, imitation
        if not self.taught:
            self._become_teacher()
        own, output = self._features(low)
        with torch.no_grad():
            theirs = _last_features(self.decoder, self.encoder(photograph))
        pixels = pixel_loss(output, high)
        location, scale = self.estimator(own[-1])
        distance = laplace_distance(location, scale, theirs)
        weight = feature_weight(share, weight=self._weight, epsilon=self._epsilon)
        return pixels + weight * distance, pixels, distance

    def _become_teacher(self) -> None:
        """Keep the decoder as it is now."""
        self.decoder.load_state_dict(self.settle().state_dict())
        self.taught.fill_(True)


def _last_features(net: PlainNet, low: Tensor) -> Tensor:
    """Features that a network's last layer reads."""
    for layer in list(net)[:-1]:
        low = layer(low)
    return low
