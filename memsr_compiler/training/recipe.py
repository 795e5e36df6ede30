"""A recipe: how a network is trained, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from memsr_compiler.errors import InvalidInput
from memsr_compiler.quantities import say_count

Precision = Literal["no", "bf16", "fp16"]
OptimizerName = Literal["adam", "muon"]


@dataclass(frozen=True)
class Recipe:
    """Numbers that say how to train.

    steps        optimizer steps;  batch  patches in each, of all processes together
    rate         peak of the one-cycle learning rate (Smith and Topin 2018);  warm_up  share of the steps until it
    start        the first learning rate, as a part of the peak
    every        steps from one validation to the next, each with a checkpoint
    clip         largest norm of the gradient; 0: none
    average      decay of the exponential moving average of weights, which is then what is validated and kept; 0: none.
                 After step t it is (1 + t) / (10 + t) at most
    optimizer    Adam, the paper's; or Muon for kernels, see `muon`
    precision    accelerate's mixed precision;  compiled  by torch.compile
    workers      processes that cut patches
    """

    steps: int = 10_000
    batch: int = 16
    rate: float = 2e-4
    warm_up: float = 0.3
    start: float = 0.04
    every: int = 500
    clip: float = 0.0
    average: float = 0.0
    optimizer: OptimizerName = "adam"
    precision: Precision = "no"
    compiled: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        """Raises InvalidInput for numbers that are not possible."""
        for name, low in (("steps", 1), ("batch", 1), ("every", 1), ("workers", 0)):
            if getattr(self, name) < low:
                raise InvalidInput(f"{name} {getattr(self, name)}: want {low} or more")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InvalidInput(f"a learning rate of {self.rate} is not possible; 2e-4 is the paper's")
        for name, value, fits, wanted in (
            ("warm-up", self.warm_up, 0 < self.warm_up < 1, "between 0 and 1"),
            ("first rate", self.start, 0 < self.start <= 1, "above 0, at most 1"),
            ("average (--ema)", self.average, 0 <= self.average < 1, "from 0 to below 1"),
            ("clip", self.clip, math.isfinite(self.clip) and self.clip >= 0, "from 0 on"),
        ):
            if not fits:
                raise InvalidInput(f"{name} {value}: want a number {wanted}")
        if self.optimizer not in ("adam", "muon"):
            raise InvalidInput(f"optimizer {self.optimizer!r}: want adam or muon")
        if self.precision not in ("no", "bf16", "fp16"):
            raise InvalidInput(f"precision {self.precision!r}: want no, bf16 or fp16")

    def share_of(self, processes: int) -> int:
        """Patches of a batch that each of several processes takes.  Raises InvalidInput unless all take as many."""
        if self.batch % processes:
            raise InvalidInput(
                f"a batch of {say_count(self.batch, 'patch', 'patches')} cannot be shared by "
                f"{say_count(processes, 'process', 'processes')} equally"
            )
        return self.batch // processes
