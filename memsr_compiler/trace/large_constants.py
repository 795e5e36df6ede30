"""Numbers so large that adding to them rounds: x + 12582912 - 12582912 is x exactly, and round(x) in float32."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.ir.interpreter import run

_LEVELS = 255
_LOOKED_AT = 1 / 32  # of a grey level: what adding to a number may round by before that is measured
_MOST = 1 / 8  # of a grey level, by which it may move the result
_SIDE = 12  # pixels, of the image on which it is measured


def require_small_constants(graph: ir.Graph, *, outside: bool = False) -> None:
    """Refuse a network in which large numbers round: float32 has 24 digits, and next to C numbers 2**-23 C apart.

    outside   whether the image is added to the result behind the graph

    For values up to 1 numbers up to a thousand are passed over.  With larger ones, constants that are added or values,
    such as the bound of a clamp or features times a million, the network is run on noise, in float64 but for these
    values, which are rounded to float32: by an eighth of a grey level or more, a 255th of what the result reaches, or
    of the input's range where the image is added to it and reaches further, is no matter of rounding.
    Raises UnsupportedModel that names the largest constant, or else the largest value.
    """
    low, high = graph.input.low, graph.input.high
    low, high = (low, high) if math.isfinite(high - low) else (0.0, 1.0)
    least = _LOOKED_AT * min(high - low, 1) / _LEVELS
    added = {op.name: (step, constant) for op in graph for step, constant in [_find_step(op)] if not step < least}
    draw = np.random.default_rng(0).random((1, graph.input.channels, _SIDE, _SIDE))
    image = torch.from_numpy(draw) * (high - low) + low
    values: dict[str, tuple[float, float]] = {}

    def find_large(name: str, value: Tensor) -> None:
        most = float(value.abs().max())
        if name != graph.input.name and least <= (step := _space(most)) < math.inf:
            values[name] = step, most

    result = run(graph, image, watch=find_large)
    large = added or values
    if not large:
        return

    def round_large(name: str, value: Tensor) -> None:
        if name in added or name in values:
            value.copy_(value.float())

    moved = float((run(graph, image, watch=round_large) - result).abs().max())
    reach = float(result.max() - result.min())
    level = (max(reach, high - low) if outside else reach) / _LEVELS
    if not moved >= _MOST * level or moved == 0:  # nor where both overflow, which is another matter
        return
    name = max(large, key=lambda name: abs(large[name][1]))
    step, number = large[name]
    levels = moved / level if level else math.inf
    what, kind, adding = f"it gives values of {number:.9g}", "value", "Adding to it"
    if added:
        what, kind, adding = f"addition of {number:.9g}", "constant", "Adding it"
    raise UnsupportedModel(
        f"{name}: {what}: next to so large a {kind} float32 has numbers {step:.3g} apart only. "
        f"{adding} rounds, which moves the result by {levels:.3g} of {_LEVELS} grey levels, and a plain network does "
        "not round; if this is how it rounds values, leave that out, else add less"
    )


def _find_step(op: ir.Op) -> tuple[float, float]:
    """The largest constant that an op adds, behind the distance of numbers of float32 next to it."""
    added = op.shift if isinstance(op, ir.Affine) else getattr(op, "bias", None)
    if added is None or not len(added):
        return 0.0, 0.0
    constant = float(added[added.abs().argmax()])
    return _space(constant), constant


def _space(number: float) -> float:
    """The distance of numbers of float32 next to one; infinite where it ends before."""
    if not abs(number) <= torch.finfo(torch.float32).max:
        return math.inf
    return float(abs(np.spacing(np.float32(number))))
