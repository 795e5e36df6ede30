"""Constants of shifts that are too large for the numbers of the network: rounding them takes what the tensors need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.ir.interpreter import evaluate, run
from memsr_compiler.lowering.equivalence import probe_images
from memsr_compiler.proof.forms import tensor_of

MOST = 2.0**-9  # of a tensor's largest magnitude: half of one of 256 levels
MOST_IN_ALL = 2.0**-8  # of what all tensors lose, each relative to its own, added up: nothing says that they cancel

DIGITS = {torch.float16: 1 / 16}
"""Part of lost digits that counts.  Two levels are accepted in float16, where others have half of one, and networks of
such numbers were measured to lose less than a quarter of what is found: their channels' largest values do not meet."""


@dataclass(frozen=True)
class ShiftLoss:
    """A tensor, what rounding constants of shifts takes from it, and its largest magnitude on the probe images.

    in_all   what all tensors lose, each relative to its own magnitude, added up
    digits   of what is lost, the part that is lost in numbers too small for their dtype, and in sums that cancel
    """

    tensor: str
    lost: float
    peak: float
    in_all: float = field(default=0.0, compare=False)
    digits: float = field(default=0.0, compare=False)

    @property
    def too_much(self) -> bool:
        return not (self.lost <= MOST * self.peak and self.in_all <= MOST_IN_ALL)

    @property
    def of_digits(self) -> bool:
        """Whether digits are most of what is lost."""
        return self.digits > self.lost / 2

    @property
    def cause(self) -> str:
        """Reason of the loss, in words."""
        if self.of_digits:
            return "keeping fewer digits, of numbers too small for their dtype or of large ones that cancel,"
        return "rounding the constants of shifts"

    def __str__(self) -> str:
        if self.lost <= MOST * self.peak:
            return (
                f"{self.cause} takes up to {self.lost / self.peak:.3g} of {self.tensor}, which is "
                f"the most, and in all, tensor by tensor, {self.in_all:.3g}; more than 1/{round(1 / MOST_IN_ALL)} is "
                "too much"
            )
        return (
            f"{self.tensor}: {self.cause} takes up to {self.lost:.3g} from it, whose values reach "
            f"{self.peak:.3g}; more than 1/{round(1 / MOST)} of that is too much"
        )


def worst_shift_loss(
    teacher: ir.Graph,
    losses: Mapping[str, float],
    digits: Mapping[str, Mapping[str, float]] | None = None,
    dtype: torch.dtype = torch.float32,
) -> ShiftLoss | None:
    """The tensor that loses most for its size; None where no tensor loses anything.

    losses  by tensor, as the certificate's checker finds them
    digits  as well, times what each other tensor reaches
    dtype   of the plain network: in float16 many numbers lose digits that nobody misses
    """
    if not losses and not digits:
        return None
    peaks, share = _peaks(teacher), DIGITS.get(dtype, 1.0)
    small = {
        tensor: share * sum(most * (_need(teacher, other, peaks) if other else 1.0) for other, most in lost.items())
        for tensor, lost in (digits or {}).items()
    }
    lost = {tensor: losses.get(tensor, 0.0) + small.get(tensor, 0.0) for tensor in (*losses, *small) if tensor}
    need = {tensor: _need(teacher, tensor, peaks) for tensor in lost}
    in_all = sum(lost[tensor] / peak for tensor, peak in need.items())
    found = (ShiftLoss(t, lost[t], peak, in_all, small.get(t, 0.0)) for t, peak in need.items())
    return max(found, key=lambda loss: loss.lost / loss.peak, default=None)


def output_loss(teacher: ir.Graph, by_channel: Mapping[str, Tensor]) -> tuple[float, float]:
    """The most that the output moves on the probe images where tensors are off by what they lose; its magnitude.

    by_channel  losses, one for each channel of a tensor, as the certificate's checker finds them

    Constants are off by the same at every pixel.  All channels are off in one direction, then each in one at random.
    What a tensor may lose is judged by its largest channel, and the output may have little to do with that one.
    """
    lost: dict[str, Tensor] = {}
    for tensor, each in by_channel.items():
        lost[tensor_of(tensor)] = each + lost.get(tensor_of(tensor), 0.0)
    generator = torch.Generator().manual_seed(0)
    random = {name: torch.randint(0, 2, each.shape, generator=generator) * 2 - 1 for name, each in lost.items()}
    most, peak = 0.0, 0.0
    for image in probe_images(teacher.input.channels, (teacher.input.low, teacher.input.high)).values():
        exact = run(teacher, image.double())
        peak = max(peak, float(exact.abs().max()))
        for signs in (dict.fromkeys(lost, 1), random):
            moved = _run_moved(teacher, image.double(), {name: signs[name] * each for name, each in lost.items()})
            most = max(most, float((moved - exact).abs().max()))
    return most, peak


def _run_moved(graph: ir.Graph, x: Tensor, offsets: Mapping[str, Tensor]) -> Tensor:
    """The graph's output where some values are moved, each channel by a number of its own."""
    values: dict[str, Tensor] = {}
    for op in graph:
        value = x if isinstance(op, ir.Input) else evaluate(op, *(values[i] for i in op.inputs))
        values[op.name] = value + offsets[op.name][:, None, None] if op.name in offsets else value
    return values[graph.output]


def _need(teacher: ir.Graph, tensor: str, peaks: Mapping[str, float]) -> float:
    """The magnitude that a tensor has to have room for: of a ReLU its operand's.

    A tensor that is nothing on the probe images is given a little of the image's magnitude, lest it had to be perfect.
    """
    op = teacher[tensor_of(tensor)]
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
