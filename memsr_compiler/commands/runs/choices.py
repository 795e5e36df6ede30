"""Choices of a run that its options leave open, by what is trained and how."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from memsr_compiler.commands.interface.training_options import (
    DistillOptions,
    Labels,
    Method,
    OptimizerName,
    TrainingOptions,
)

Options = TypeVar("Options", bound=TrainingOptions)


@dataclass(frozen=True)
class Choices:
    """Optimizer, its peak rate, decay of the weights' average, labels, lambda (`weight`) and epsilon of Eq. 14."""

    optimizer: OptimizerName
    rate: float
    ema: float
    labels: Labels
    weight: float
    epsilon: float = 1e-5


PUBLISHED = Choices(optimizer="adam", rate=2e-4, ema=0.0, labels="photographs", weight=0.3)
"""MemSR's."""

BEST = Choices(optimizer="muon", rate=2e-3, ema=0.999, labels="both", weight=0.0)
"""The best that was measured for derived students: benchmarks/training_choices.py."""

INTEGERS = dataclasses.replace(BEST, optimizer="adam", rate=1e-4)
"""For 8-bit integers, which are found already where the student is good."""

METHODS: dict[Method, dict[str, Any]] = {
    "memsr": {},
    "srkd": {"weight": 1.0, "epsilon": 1.0},  # the weights of Gao et al. are not known here
    "fakd": {"weight": 10.0, "epsilon": 1.0, "labels": "both"},  # He et al.: half of the output's loss to the teacher
    "pisr": {"weight": 1e-6, "epsilon": 1.0, "labels": "photographs"},  # Lee et al.
}
"""What each method's authors chose, however it is trained besides; `labels` where they are part of it."""

ADAM_RATE = 1e-3  # the best that was measured for Adam, with channels balanced

DEEP = 10
"""Layers from which on a student is as deep as networks that teach are."""

DEEP_RATE = 2e-4
"""Peak rate of either optimizer for deep derived students: what one layer's step does, all behind it carry on, and they
begin where little is left to be gained.  Ten times that throws them back: docs/training.md."""


def choose(options: TrainingOptions, layers: int = 0) -> Choices:
    """The choices that the options make, and the default of each that they leave open.

    layers   of a student that is to be trained from its own weights
    """
    default = _defaults(options)
    given = {
        name: value
        for name in (field.name for field in dataclasses.fields(Choices))
        if (value := getattr(options, name, None)) is not None
    }
    if "optimizer" in given and given["optimizer"] != default.optimizer:
        default = dataclasses.replace(default, rate=ADAM_RATE if given["optimizer"] == "adam" else BEST.rate)
    if layers >= DEEP:
        default = dataclasses.replace(default, rate=min(default.rate, DEEP_RATE))
    return dataclasses.replace(default, **given)


def settle(options: Options, choices: Choices) -> Options:
    """The options with every choice made, as a run is to remember them."""
    names = {field.name for field in dataclasses.fields(options)}
    made = {name: value for name, value in dataclasses.asdict(choices).items() if name in names}
    return dataclasses.replace(options, **made)


def _defaults(options: TrainingOptions) -> Choices:
    if not isinstance(options, DistillOptions):
        return PUBLISHED
    training = PUBLISHED if not options.centred else INTEGERS if options.int8 else BEST
    return dataclasses.replace(training, **METHODS[options.method])
