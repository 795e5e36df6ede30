"""The choice of a narrow layer's channels: ReLUs of the teacher and linear directions, chosen together.

Beyond MemSR, whose Algorithm 1 keeps principal components and takes ReLU for the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

POWER_STEPS = 12
RIDGE = 1e-6  # of a variance: what is less may be the rounding of products in float32


@dataclass(frozen=True)
class Choice:
    """Channels that were chosen.

    relus       indices of the chosen ReLU candidates
    directions  (candidates, k): the linear channels, as combinations of the linear candidates
    """

    relus: tuple[int, ...]
    directions: Tensor


def choose(covariance: Tensor, relus: int, target: Tensor, width: int, *, preference: float = 1.0) -> Choice:
    """Choose the `width` channels from which the target can be had best by a linear map, greedily.

    covariance   (n, n) of the candidates: first `relus` single channels, then linear ones that may be combined
    target       (n, T) their covariance with the target, in coordinates in which all errors count alike
    preference   how many times as much a ReLU counts as it explains now: a non-linearity that is gone cannot be had
                 again by the layers above, nor by a joint refit, a direction often can

    At each step the ReLU, or the linear direction, that explains most of what is left; in the end the linear
    directions anew, all together, for the ReLUs that were chosen (reduced rank regression).
    """
    greedy = _Greedy(covariance, relus, target)
    chosen: list[int] = []
    linear = 0
    while len(chosen) + linear < width:
        gain, direction = greedy.best_direction()
        gains = preference * greedy.relu_gains(chosen)
        best = int(gains.argmax()) if relus else -1
        if relus and float(gains[best]) > max(gain, 0.0):
            greedy.take_relu(best)
            chosen.append(best)
        elif gain > greedy.nothing:
            greedy.take_direction(direction)
            linear += 1
        else:
            break
    return Choice(tuple(chosen), _Greedy(covariance, relus, target).directions(chosen, linear))


class _Greedy:
    """Candidates and target, what was taken regressed out of both.

    The linear candidates' inverse covariance follows ReLUs only: a direction that was taken is gone from the target,
    and with it from every later direction.
    """

    def __init__(self, covariance: Tensor, relus: int, target: Tensor) -> None:
        self.relus = relus
        self.power = covariance.diagonal().clone()
        self.covariance = covariance.clone()
        self.target = target.clone()
        linear = covariance[relus:, relus:]
        ridge = RIDGE * linear.diagonal() + 1e-12 * float(linear.diagonal().max()) + 1e-300
        self.inverse = torch.linalg.inv(linear + torch.diag(ridge))
        self.guess = target.new_ones(target.shape[1])
        self.nothing = 1e-12 * float(target.square().sum()) / max(float(self.power.max()), 1e-300)

    def relu_gains(self, chosen: list[int]) -> Tensor:
        """Share of the target that each ReLU explains, (relus,)."""
        power = self.covariance.diagonal()[: self.relus]
        gains = self.target[: self.relus].square().sum(1) / power.clamp_min(1e-300)
        gains[power < 1e-6 * self.power[: self.relus]] = 0  # only rounding is left of it
        gains[chosen] = 0
        return gains

    def best_direction(self) -> tuple[float, Tensor]:
        """Find the linear candidates' combination that explains most, by power iteration, and how much that is."""
        cross = self.target[self.relus :]
        vector = self.guess
        gain = 0.0
        for _ in range(POWER_STEPS):
            vector = cross.T @ (self.inverse @ (cross @ vector))
            length = float(vector.norm())
            if not length > 1e-300:
                break
            gain, vector = length, vector / length
        self.guess = vector + 1e-3 / len(vector) ** 0.5
        return gain, self.inverse @ (cross @ vector)

    def take_relu(self, index: int) -> None:
        one = torch.zeros(len(self.power), dtype=self.power.dtype)
        one[index] = 1
        seen = self.covariance[index].clone()
        power = float(seen[index])
        along = seen[self.relus :]
        moved = self.inverse @ along
        self._regress_out(one)
        rest = power - float(along @ moved)
        if rest > RIDGE * power:  # else the ReLU is linear on this data, as good as one of the directions
            self.inverse = self.inverse + torch.outer(moved, moved) / rest

    def take_direction(self, direction: Tensor) -> None:
        full = torch.cat([direction.new_zeros(self.relus), direction])
        self._regress_out(full)

    def _regress_out(self, candidate: Tensor) -> None:
        seen = self.covariance @ candidate
        power = float(seen @ candidate)
        if power > 0:
            explained = candidate @ self.target
            self.target = self.target - torch.outer(seen, explained) / power
            self.covariance = self.covariance - torch.outer(seen, seen) / power

    def directions(self, relus: list[int], count: int) -> Tensor:
        """The best `count` directions together, once the ReLUs are regressed out."""
        for index in relus:
            self.take_relu(index)
        cross = self.target[self.relus :]
        _, vectors = torch.linalg.eigh(cross.T @ self.inverse @ cross)
        best = vectors.flip(1)[:, :count]
        together: Tensor = self.inverse @ (cross @ best)
        return together
