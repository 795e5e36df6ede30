"""Images for what no probe image shows of a teacher: units that are dead on all of them, and bounds never reached.

What rounding takes may hide behind such a unit, whatever gain follows it.  The images are looked for by gradients, so
this is no proof either: a unit that fires on none of them may fire on others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.ir.interpreter import evaluate

SIDE = 13  # pixels of an image
PLACES = tuple(product((6, 2, 10), (6, 2, 10)))  # of the units in it, the middle first
STEPS = tuple(0.6 * 0.75**i for i in range(10))  # of the range, by which every pixel is moved
LEAK = 0.2  # of the gradient passes a closed unit, or what lies behind it would never be found

FEW, MANY = 4, 96  # images, of large and of small networks
SMALL = 1 << 18  # numbers of a network of which there are many


@dataclass(frozen=True)
class Unseen:
    """A side of an activation's bend on which a channel never is: where `_sides` would have to be positive."""

    op: str
    side: int
    channel: int


def list_unseen(graph: ir.Graph, images: Iterable[Tensor]) -> list[Unseen]:
    """All sides of bends, in the graph's order, that none of these images, each (N, C, H, W), shows.

    What a clamp does beyond its bounds is not looked for: that is a constant, behind which nothing is lost.
    """
    seen: dict[tuple[str, int], Tensor] = {}
    with torch.no_grad():
        for x in images:
            for (name, side), value in _run_sides(graph, x):
                here = (value > 0).amax((0, 2, 3))
                seen[name, side] = here | seen.get((name, side), here)
    return [Unseen(*of, int(channel)) for of, shown in seen.items() for channel in (~shown).nonzero()]


def find_images(graph: ir.Graph, unseen: Sequence[Unseen]) -> Tensor:
    """Images (N, C, 13, 13) in the input's range, float64, on which these sides are seen, as far as they were found.

    Ascent by the signs of gradients, each side at a pixel of its own while there are few; then the same less and less
    far from grey, down to halfway: just beyond a bend the output is small, and what it loses may not be.  N is 0 where
    nothing is unseen.
    """
    low, high = graph.input.low, graph.input.high
    small = sum(op.weight.numel() for op in graph if isinstance(op, ir.Conv2d)) < SMALL
    most = MANY if small else FEW
    count = min(most // 2, len(unseen))
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(count, graph.input.channels, SIDE, SIDE, generator=generator, dtype=torch.float64) * 0.2 + 0.4
    grey = grey * (high - low) + low
    if not count:
        return grey
    x = grey.float()
    for step in STEPS:
        x.requires_grad_()
        (slope,) = torch.autograd.grad(_sum_wanted(graph, x, unseen), x)
        x = (x.detach() + step * (high - low) * slope.nan_to_num().sign()).clamp(low, high)
    shares = torch.linspace(1.0, 0.5, min(most // count, 16), dtype=torch.float64)
    return torch.cat([grey + share * (x - grey) for share in shares])


def _sum_wanted(graph: ir.Graph, x: Tensor, unseen: Sequence[Unseen]) -> Tensor:
    """The sum of all that is wanted to be positive, each at its pixel and in parts of its channel's magnitude."""
    wanted = defaultdict(list)
    for i, side in enumerate(unseen):
        wanted[side.op, side.side].append((i % len(x), side.channel, *PLACES[i // len(x) % len(PLACES)]))
    total = x.new_zeros(())
    for of, value in _run_sides(graph, x, _evaluate_leaking):
        if of in wanted:
            image, channel, row, column = torch.tensor(wanted[of]).T
            scale = value.shape[-1] // SIDE
            usual = value.detach().abs().mean((0, 2, 3)).clamp_min(torch.finfo(value.dtype).tiny)
            total = total + (value[image, channel, row * scale, column * scale] / usual[channel]).sum()
    return total


def _run_sides(
    graph: ir.Graph, x: Tensor, evaluate: Callable[..., Tensor] = evaluate
) -> Iterator[tuple[tuple[str, int], Tensor]]:
    """For every activation and either side of its bend how far on that side its operand is (N, C, H, W)."""
    values: dict[str, Tensor] = {}
    for op in graph:
        operands = [values[name] for name in op.inputs]
        values[op.name] = x if isinstance(op, ir.Input) else evaluate(op, *operands)
        for side, value in _sides(op, *operands).items():
            yield (op.name, side), value


def _sides(op: ir.Op, *operands: Tensor) -> dict[int, Tensor]:
    match op:
        case ir.Relu():
            return {1: operands[0]}
        case ir.PRelu():
            return {1: operands[0], -1: -operands[0]}
        case ir.Clamp():
            return {1: operands[0] - op.low, -1: op.high - operands[0]}
        case ir.Maximum():
            return {1: operands[0] - operands[1], -1: operands[1] - operands[0]}
    return {}


def _evaluate_leaking(op: ir.Op, *operands: Tensor) -> Tensor:
    """The value of one op; a little of the gradient passes where an activation is closed."""
    value = evaluate(op, *operands)
    if not _sides(op, *operands):
        return value
    passed = sum(operands[1:], operands[0])
    return value + LEAK * (passed - passed.detach())
