"""Images for what no probe image shows of a teacher: units that are dead on all of them, and bounds never reached.

What rounding takes may hide behind such a unit, whatever gain follows it.  The images are looked for by gradients, so
this is no proof either: a unit that fires on none of them may fire on others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.ir.interpreter import evaluate

SIDE = 13  # pixels of an image
PLACES = tuple(product((6, 2, 10), (6, 2, 10)))  # of the units in it, the middle first
STEPS = tuple(0.6 * 0.75**i for i in range(10))  # of the range, by which every pixel is moved
LEAK = 0.2  # of the gradient passes a closed unit, or what lies behind it would never be found
BEYOND = 1e3  # times as much as for a unit counts what is beyond a limit
HAIR = 2.0**-6  # of a channel's largest magnitude; one that is no further beyond its bend shows nothing of its losses

FEW, MOST = 2, 128  # images that are drawn, of large and of small networks
WORK = 1 << 23  # terms for a pixel of all images together
LEAST_TERMS = 32  # of a number, whose memory counts too
PARTS = 8  # of an image's contrast that are tried
HALVINGS = (3, 4, 5)  # of the part in which its first side begins to be seen: the larger a gain, the nearer


@dataclass(frozen=True)
class Unseen:
    """A side of an activation's bend on which a channel never is: what `_list_sides` measures is not positive there.

    channel   counts pixels folded into channels, each of which is a unit of its own
    """

    op: str
    side: int
    channel: int


def list_unseen(graph: ir.Graph, images: Iterable[Tensor]) -> list[Unseen]:
    """All sides of bends, in the graph's order, that none of these images, (N, C, H, W), shows, and another may."""
    possible = _list_possible(graph)
    most: dict[tuple[str, int], Tensor] = {}
    magnitude: dict[tuple[str, int], Tensor] = {}
    with torch.no_grad():
        for x in images:
            for of, value in _run_sides(graph, x, wanted=possible):
                low, high = value.amin((0, 2, 3)), value.amax((0, 2, 3))
                most[of] = torch.maximum(high, most.get(of, high))
                magnitude[of] = torch.stack([high, -low, magnitude.get(of, high)]).amax(0)
    return [
        Unseen(*of, channel)
        for of, reached in most.items()
        for channel in (~(reached > HAIR * magnitude[of])).nonzero()[:, 0].tolist()
    ]


def _list_possible(graph: ir.Graph) -> set[tuple[str, int]]:
    """Activations and sides, but those on which no number is that another activation has just bounded."""
    return {
        (op.name, side)
        for op in graph
        for side, measure in _list_sides(op).items()
        if len(op.inputs) > 1 or max(float(measure(bound)) for bound in _bounds_of(graph[op.inputs[0]])) > 0
    }


def _bounds_of(op: ir.Op) -> Tensor:
    """The least and the most that an op gives."""
    match op:
        case ir.Relu():
            return torch.tensor([0.0, torch.inf], dtype=torch.float64)
        case ir.Clamp():
            return torch.tensor([op.low, op.high], dtype=torch.float64)
    return torch.tensor([-torch.inf, torch.inf], dtype=torch.float64)


def find_images(
    graph: ir.Graph, unseen: Sequence[Unseen], limits: Mapping[str, Tensor] | None = None, most: int = MOST
) -> Tensor:
    """Images (N, C, 13, 13) in the input's range, float64, on which these sides are seen, as far as they were found.

    limits  by tensor, one for each channel: no value is to be less than minus that
    most    of them that are drawn, before there are some of less contrast

    Ascent by the signs of gradients; each side has an image of its own while there are few, and then a pixel.  Every
    image is there as it is, and with as little contrast as shows what it was made for: just beyond a bend the output is
    small, and what it loses may not be.  N is 0 where nothing is unseen.
    """
    low, high = graph.input.low, graph.input.high
    count = min(max(FEW, min(most, WORK // _count_terms(graph))), len(unseen))
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(count, graph.input.channels, SIDE, SIDE, generator=generator, dtype=torch.float64) * 0.2 + 0.4
    grey = grey * (high - low) + low
    if not count:
        return grey
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller has switched off
        try:
            start = grey.float()
            x = _climb(graph.like(start), start.clone(), unseen, limits or {})
        except OverflowError:
            start = grey
            x = _climb(graph, start.clone(), unseen, limits or {})
    shares = _list_shares(graph.like(start), start, x, unseen)
    return torch.stack([grey[i] + share * (x[i].double() - grey[i]) for i, share in shares])


def _count_terms(graph: ir.Graph) -> int:
    """Products and numbers that a pixel of the input costs."""
    terms = 1
    for op in graph:
        t = graph.type(op.name)
        each = op.weight[0].numel() if isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)) else 0
        terms += t.channels * t.scale**2 * max(each, LEAST_TERMS)
    return terms


def _climb(graph: ir.Graph, x: Tensor, unseen: Sequence[Unseen], limits: Mapping[str, Tensor]) -> Tensor:
    """The images, changed so that what is unseen becomes positive.

    Raises OverflowError where values are too large for float32, since no gradient says anything then.
    """
    low, high = graph.input.low, graph.input.high
    for step in STEPS:
        x.requires_grad_()
        tensors: dict[str, Tensor] = {}
        wanted = _sum_wanted(graph, x, unseen, limits, tensors)
        if x.dtype == torch.float32 and not all(bool(t.detach().sum().isfinite()) for t in tensors.values()):
            raise OverflowError("values of an image are infinite in float32")
        (slope,) = torch.autograd.grad(wanted, x)
        x = (x.detach() + step * (high - low) * slope.nan_to_num().sign()).clamp(low, high)
    return x


def _list_shares(graph: ir.Graph, grey: Tensor, x: Tensor, unseen: Sequence[Unseen]) -> list[tuple[int, float]]:
    """(i, share): image i with that much of its contrast, where the first of its sides is seen, the last, and all."""

    def look(share: Tensor) -> Tensor:
        with torch.no_grad():
            return _look_at(graph, grey + share[:, None, None, None] * (x - grey), unseen)[0] > 0

    image = torch.arange(len(unseen)) % len(x)
    begins = torch.ones(len(unseen))
    for n in range(PARTS - 1, 0, -1):
        begins[look(torch.full((len(x),), n / PARTS))] = n / PARTS
    first = torch.ones(len(x)).scatter_reduce(0, image, begins, "amin")
    last = torch.zeros(len(x)).scatter_reduce(0, image, begins, "amax")
    low, high, kept = first - 1 / PARTS, first, list[Tensor]()
    for halvings in HALVINGS:
        for _ in range(halvings):
            middle = (low + high) / 2
            shown = torch.zeros(len(x)).index_add(0, image, look(middle).float()) > 0
            low, high = torch.where(shown, low, middle), torch.where(shown, middle, high)
        kept.append(high)
    shares = torch.stack([*kept, torch.maximum(last, (1 + first) / 2), torch.ones(len(x))], dim=1)
    return [(i, share) for i, each in enumerate(shares.tolist()) for share in sorted(set(each))]


def _sum_wanted(
    graph: ir.Graph, x: Tensor, unseen: Sequence[Unseen], limits: Mapping[str, Tensor], tensors: dict[str, Tensor]
) -> Tensor:
    """The sum of all that is wanted to be positive, in parts of its channel's magnitude, less what is beyond limits.

    tensors  where every value is put
    """
    values, usual = _look_at(graph, x, unseen, _evaluate_leaking, tensors)
    total = (values / usual).sum()
    for name, limit in limits.items():
        total = total - BEYOND * F.relu(-tensors[name] / limit.to(x)[:, None, None] - 1).sum()
    return total


def _look_at(
    graph: ir.Graph,
    x: Tensor,
    unseen: Sequence[Unseen],
    evaluate: Callable[..., Tensor] = evaluate,
    tensors: dict[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Each side's value at the pixel that is its own, and the usual magnitude of its channel."""
    wanted = defaultdict(list)
    for i, side in enumerate(unseen):
        wanted[side.op, side.side].append((i, i % len(x), side.channel, *PLACES[i // len(x) % len(PLACES)]))
    order, values, usual = list[int](), list[Tensor](), list[Tensor]()
    for of, value in _run_sides(graph, x, evaluate, tensors, wanted):
        which, image, channel, row, column = torch.tensor(wanted[of]).T
        order += which.tolist()
        values.append(value[image, channel, row, column])
        each = value.detach().abs().mean((0, 2, 3)).clamp_min(torch.finfo(value.dtype).tiny)
        usual.append(each[channel])
    back = torch.tensor(order).argsort()
    return torch.cat(values)[back], torch.cat(usual)[back]


def _run_sides(
    graph: ir.Graph,
    x: Tensor,
    evaluate: Callable[..., Tensor] = evaluate,
    tensors: dict[str, Tensor] | None = None,
    wanted: Container[tuple[str, int]] | None = None,
) -> Iterator[tuple[tuple[str, int], Tensor]]:
    """For every activation and side of a bend how far on that side its operand is (N, C, H, W), pixels folded.

    tensors  where every value is put, as it is made
    wanted   activations and sides, others than which are passed over; None: all
    """
    values = {} if tensors is None else tensors
    for op in graph:
        operands = [values[name] for name in op.inputs]
        values[op.name] = x if isinstance(op, ir.Input) else evaluate(op, *operands)
        for side, measure in _list_sides(op).items():
            if wanted is None or (op.name, side) in wanted:
                value, scale = measure(*operands), graph.type(op.name).scale
                yield (op.name, side), F.pixel_unshuffle(value, scale) if scale > 1 else value


def _list_sides(op: ir.Op) -> dict[int, Callable[..., Tensor]]:
    """Both sides of each bend: beyond one nothing may be lost, and what is subtracted from it may lose."""
    match op:
        case ir.Relu() | ir.PRelu():
            return {1: lambda x: x, -1: torch.neg}
        case ir.Clamp():
            bounds = [bound for bound in (op.low, op.high) if isfinite(bound)]
            differ: dict[int, Callable[..., Tensor]] = {1: torch.sub, -1: torch.rsub}
            return {s * n: partial(differ[s], other=bound) for n, bound in enumerate(bounds, 1) for s in differ}
        case ir.Maximum():
            return {1: torch.sub, -1: lambda x, y: y - x}
    return {}


def _evaluate_leaking(op: ir.Op, *operands: Tensor) -> Tensor:
    """The value of one op; a little of the gradient passes where an activation is closed."""
    value = evaluate(op, *operands)
    if not _list_sides(op):
        return value
    passed = sum(operands[1:], operands[0])
    return value + LEAK * (passed - passed.detach())
