"""Approximations: what stands in a frozen network for what no plain network can express.  Data only.

A gate (channel attention) becomes a number for each channel, a smooth activation a few straight pieces.  Both have one
form, with numbers of its own for each channel:  y = shift + scale * x + sum over k of slopes[k] * relu(x - knots[k]).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memsr_compiler.ir.ops import Affine, Op, Relu, Sum

DIGITS = 6  # that numbers are rounded to: they are means over images, and are written out in certificates
MOST_KNOTS = 16  # that are read from a file


@dataclass(frozen=True)
class Replacement:
    """One place where the teacher was approximated, and the numbers that stand there now.

    name     of the value in the frozen graph
    kind     "gate", "spatial gate", or the activation: "gelu"
    scale, shift, knots, slopes   see above; a tuple has a number for each channel, or one for all
    """

    name: str
    kind: str
    scale: tuple[float, ...]
    shift: tuple[float, ...] = (0.0,)
    knots: tuple[tuple[float, ...], ...] = ()
    slopes: tuple[tuple[float, ...], ...] = ()

    def evaluate(self, x: Tensor) -> Tensor:
        """The value for x (N, C, H, W)."""
        shift, scale = (_column(v, x) for v in (self.shift, self.scale))
        y = shift + scale * x
        for knot, slope in zip(self.knots, self.slopes, strict=True):
            y = y + _column(slope, x) * (x - _column(knot, x)).relu()
        return y

    def to_data(self) -> dict[str, Any]:
        """The replacement as JSON has it."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind, "scale": self.scale, "shift": self.shift}
        return data | ({"knots": self.knots, "slopes": self.slopes} if self.knots else {})

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Replacement:
        """The replacement in JSON of `to_data`.  Raises KeyError, TypeError or ValueError."""
        knots, slopes = (tuple(_read_numbers(row) for row in data.get(key, ())) for key in ("knots", "slopes"))
        if len(knots) != len(slopes) or len(knots) > MOST_KNOTS:
            raise ValueError(f"{len(knots)} knots and {len(slopes)} slopes")
        scale, shift = _read_numbers(data["scale"]), _read_numbers(data["shift"])
        return Replacement(str(data["name"]), str(data["kind"]), scale, shift, knots, slopes)


def pack_numbers(values: Tensor) -> tuple[float, ...]:
    """Numbers (C,) rounded to a few digits, one for all where they are equal."""
    rounded = tuple(float(f"{value:.{DIGITS}g}") for value in values.tolist())
    return rounded[:1] if len(set(rounded)) == 1 else rounded


def replacement_ops(replacement: Replacement, operand: str, channels: int) -> list[Op]:
    """Ops that compute a replacement of a value of so many channels.  Raises ValueError where its numbers do not fit.

    Where the first piece is not level, two ReLUs share the first knot, one on either side: no value need be carried.
    """
    r = replacement
    for numbers in (r.scale, r.shift, *r.knots, *r.slopes):
        if len(numbers) not in (1, channels):
            raise ValueError(f"{r.name}: {len(numbers)} numbers for {channels} channels")
    shift, scale = _spread(r.shift, channels), _spread(r.scale, channels)
    if not r.knots:
        return [Affine(name=r.name, inputs=(operand,), scale=scale, shift=shift)]
    knots = [_spread(knot, channels) for knot in r.knots]
    slopes = [_spread(slope, channels) for slope in r.slopes]
    one = torch.ones(channels, dtype=torch.float64)
    pieces = [(one, -knot, slope) for knot, slope in zip(knots, slopes, strict=True)]
    if bool(scale.any()):  # scale * x = scale * (knot + relu(x - knot) - relu(knot - x))
        shift = shift + scale * knots[0]
        pieces = [(one, -knots[0], slopes[0] + scale), (-one, knots[0], -scale), *pieces[1:]]
    ops: list[Op] = []
    for i, (sign, offset, slope) in enumerate(pieces, start=1):
        at, bent, term = (f"{r.name}.{what}{i}" for what in ("at", "relu", "piece"))
        ops += [
            Affine(name=at, inputs=(operand,), scale=sign, shift=offset),
            Relu(name=bent, inputs=(at,)),
            Affine(name=term, inputs=(bent,), scale=slope, shift=shift if i == 1 else 0 * shift),
        ]
    terms = tuple(op.name for op in ops[2::3])
    if len(terms) == 1:
        return [*ops[:-1], Affine(name=r.name, inputs=(ops[-2].name,), scale=pieces[0][2], shift=shift)]
    return [*ops, Sum(name=r.name, inputs=terms)]


def _column(numbers: Sequence[float], x: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=x.dtype, device=x.device)[None, :, None, None]


def _spread(numbers: Sequence[float], channels: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).expand(channels).clone()


def _read_numbers(values: Sequence[Any]) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError("a number of an approximation is missing or not finite")
    return numbers
