"""Constants of shifts that are too large for the numbers of the network: rounding them takes what the tensors need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.ir.interpreter import run
from memsr_compiler.lowering.equivalence import probe_images

MOST = 2.0**-9  # of a tensor's largest magnitude: half of one of 256 levels


@dataclass(frozen=True)
class ShiftLoss:
    """A tensor, what rounding constants of shifts takes from it, and its largest magnitude on the probe images."""

    tensor: str
    lost: float
    peak: float

    @property
    def too_much(self) -> bool:
        return not self.lost <= MOST * self.peak

    def __str__(self) -> str:
        return (
            f"{self.tensor}: rounding the constants of shifts takes up to {self.lost:.3g} from it, whose values reach "
            f"{self.peak:.3g}; more than 1/{round(1 / MOST)} of that is too much"
        )


def worst_shift_loss(teacher: ir.Graph, losses: Mapping[str, float]) -> ShiftLoss | None:
    """The tensor that loses most for its size; None where no constant of a shift enters.

    losses  by tensor, as the certificate's checker finds them
    """
    if not losses:
        return None
    peaks = _peaks(teacher)
    found = (ShiftLoss(tensor, lost, _need(teacher, tensor, peaks)) for tensor, lost in losses.items() if tensor)
    return max(found, key=lambda loss: loss.lost / loss.peak, default=None)


def _need(teacher: ir.Graph, tensor: str, peaks: Mapping[str, float]) -> float:
    """The magnitude that a tensor has to have room for: of a ReLU its operand's.

    A tensor that is nothing on the probe images is given a little of the image's magnitude, lest it had to be perfect.
    """
    op = teacher[tensor.split("#")[0]]
    activation = isinstance(op, (ir.Relu, ir.PRelu, ir.Clamp, ir.Maximum))
    return max(peaks[name] for name in (op.name, *(op.inputs if activation else ())))


def _peaks(teacher: ir.Graph) -> dict[str, float]:
    """The largest magnitude of every tensor on the probe images, at least a 256th of the image's own."""
    low, high = teacher.input.low, teacher.input.high
    peaks = dict.fromkeys((op.name for op in teacher), max(abs(low), abs(high)) / 256)

    def watch(name: str, value: Tensor) -> None:
        peaks[name] = max(peaks[name], float(value.abs().max()))

    with torch.no_grad():
        for image in probe_images(teacher.input.channels, (low, high)).values():
            run(teacher, image, watch=watch)
    return peaks
