"""Constants so large that adding them rounds: x + 12582912 - 12582912 is x in exact arithmetic, round(x) in float32."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.ir.interpreter import run

_LEVELS = 255
_LOOKED_AT = 1 / 32  # of a grey level: what adding a constant may round by before that is measured
_MOST = 1 / 8  # of a grey level, by which it may move the result
_SIDE = 12  # pixels, of the image on which it is measured


def require_small_constants(graph: ir.Graph, *, outside: bool = False) -> None:
    """Refuse a network in which an added constant rounds: float32 has 24 digits, and next to C numbers 2**-23 C apart.

    outside   whether the image is added to the result behind the graph

    For values up to 1 a constant up to a thousand is passed over.  With larger ones the network is run on noise, in
    float64 but for these sums, which are rounded to float32: by an eighth of a grey level or more, a 255th of what
    the result reaches, or of the input's range where the image is added to it, is no matter of rounding.
    Raises UnsupportedModel that names the largest.
    """
    low, high = graph.input.low, graph.input.high
    low, high = (low, high) if math.isfinite(high - low) else (0.0, 1.0)
    steps = {op.name: (step, constant) for op in graph for step, constant in [_find_step(op)]}
    large = {name: found for name, found in steps.items() if not found[0] < _LOOKED_AT * min(high - low, 1) / _LEVELS}
    if not large:
        return
    draw = np.random.default_rng(0).random((1, graph.input.channels, _SIDE, _SIDE))
    image = torch.from_numpy(draw) * (high - low) + low

    def round_sums(name: str, value: Tensor) -> None:
        if name in large:
            value.copy_(value.float())

    result = run(graph, image)
    moved = float((run(graph, image, watch=round_sums) - result).abs().max())
    level = (high - low if outside else float(result.max() - result.min())) / _LEVELS
    if not moved >= _MOST * level or moved == 0:  # nor where both overflow, which is another matter
        return
    name = max(large, key=lambda name: abs(large[name][1]))
    step, constant = large[name]
    raise UnsupportedModel(
        f"{name}: addition of {constant:.9g}: next to so large a constant float32 has numbers {step:.3g} apart only. "
        f"Adding it rounds, which moves the result by {moved / level:.3g} of {_LEVELS} grey levels, and a plain "
        "network does not round; if this is how it rounds values, leave that out, else add less"
    )


def _find_step(op: ir.Op) -> tuple[float, float]:
    """The largest constant that an op adds, behind the distance of numbers of float32 next to it."""
    added = op.shift if isinstance(op, ir.Affine) else getattr(op, "bias", None)
    if added is None or not len(added):
        return 0.0, 0.0
    constant = float(added[added.abs().argmax()])
    if abs(constant) > torch.finfo(torch.float32).max:
        return math.inf, constant
    return float(abs(np.spacing(np.float32(constant)))), constant
