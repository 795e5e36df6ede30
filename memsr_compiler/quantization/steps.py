"""Steps of tensors in 8 bits, and rounding to whole numbers that passes gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LEVELS = 255


@dataclass(frozen=True)
class Steps:
    """Steps of a tensor in 8 bits: value = scale * (integer - zero), integers 0 to 255."""

    scale: float
    zero: int

    @staticmethod
    def of(low: float, high: float) -> Steps:
        """Steps that reach from low to high, and hold 0 exactly where that is between them."""
        scale = float(torch.tensor(max(high - low, 1e-12) / LEVELS, dtype=torch.float32))  # as files keep it
        return Steps(scale, round(-low / scale))

    def count(self, x: Tensor) -> Tensor:
        """The integer nearest to a number of steps, less the zero; one that 8 bits hold."""
        return round_through(x).clamp(-self.zero, LEVELS - self.zero)

    def round(self, x: Tensor) -> Tensor:
        """The nearest value that there is."""
        return self.count(x / self.scale) * self.scale


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def round_through(x: Tensor) -> Tensor:
    """The nearest whole numbers, as whose gradient that of x is taken."""
    rounded: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return rounded
