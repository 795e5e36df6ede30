"""Translation validation: a graph before and after a pass, run on probes in float64, border included.

This finds a wrong rewrite where it happened.  It is not the proof (that is the certificate), it is the alarm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import NotEquivalent
from memsr_compiler.ir.interpreter import Convolve, convolve_same, evaluate, run
from memsr_compiler.ir.rounding import rounding_at

MOST_WEIGHTS = 1 << 22  # of a network for which two random images are too few and time is no object
MOST_PLACES = 64  # numbers of an output whose rounding is looked at, of large ones an eighth of them
_PIXELS = 1 << 12  # of images that this is done for at once
LONGEST = 4_000  # pixels; more than the receptive field of every network in the literature


@dataclass(frozen=True)
class Deviation:
    """The largest difference found, in the network's own units, and where: probe, (image, channel, y, x)."""

    largest: float
    bound: float
    probe: str
    at: tuple[int, ...]
    before: float
    after: float

    def __str__(self) -> str:
        n, c, y, x = self.at
        return (
            f"{self.largest:.3g} (bound {self.bound:.3g}) on probe {self.probe}, image {n}, channel {c}, "
            f"pixel ({y}, {x}): {self.before:.9g} became {self.after:.9g}"
        )


@dataclass(frozen=True)
class ProbeRun:
    """One run of a graph on every probe.

    outputs, peak   its results, and the largest magnitude on the way to them
    steps           roundings one after the other
    products        the convolutions that it took
    clipped         a tensor t with t + C below zero before its ReLU; "" if there is none
    """

    outputs: tuple[Tensor, ...]
    peak: float
    steps: int
    products: _Products = field(repr=False)
    clipped: str = ""


@dataclass(frozen=True)
class _Product:
    """kernel * x.  It holds on to the kernel, so that no other tensor gets its id."""

    kernel: Tensor
    x: Tensor
    value: Tensor


_Products = dict[tuple[int, ...], list[_Product]]


def _share(known: _Products, computed: _Products) -> Convolve:
    """A convolution that computes only what is not known yet.

    Known is what had the very tensor as kernel, not written to since, and the very same numbers in x.  Most passes
    leave most kernels as they are; to validate one then takes as long as what it changed does.
    """

    def convolve(x: Tensor, kernel: Tensor, groups: int, dilation: int) -> Tensor:
        key = id(kernel), kernel._version, groups, dilation
        same = next((p for p in (*computed.get(key, ()), *known.get(key, ())) if torch.equal(p.x, x)), None)
        product = same or _Product(kernel, x, convolve_same(x, kernel, groups, dilation))
        computed.setdefault(key, []).append(product)
        return product.value

    return convolve


def receptive_field(graph: ir.Graph) -> int:
    """Distance, in input pixels, from an output pixel to the farthest input pixel that it depends on."""
    reach: dict[str, float] = {}
    for op in graph:
        inner = max((reach[i] for i in op.inputs), default=0.0)
        scale = graph.type(op.inputs[0]).scale if op.inputs else 1
        reach[op.name] = inner + _reach(op) / scale
    return math.ceil(reach[graph.output])


def _reach(op: ir.Op) -> int:
    """Pixels of its operand that an op looks to each side."""
    if isinstance(op, ir.Conv2d):
        return op.weight.shape[-1] // 2 * op.dilation
    if isinstance(op, ir.ConvTranspose2d):
        return op.weight.shape[-1] // op.stride
    return op.kernel_size // 2 if isinstance(op, ir.BlockConv2d) else 0


def probes(graph: ir.Graph) -> dict[str, Tensor]:
    """Inputs (N, C, H, W) by name, float64, within the input's range, always the same ones.

    Random, all low, all high, and impulses in two corners; 1x1 and 3x5 pixels, where every pixel is at the border, and
    as many as it takes for the corner of the largest kernel to read something.
    """
    low, high = _range(graph)
    inputs = {}
    side = 1 + max(_reach(op) for op in graph)
    weights = sum(op.weight.numel() for op in graph if isinstance(op, ir.Conv2d))
    count = min(max(MOST_WEIGHTS // max(weights, 1), 2), 8)
    for height, width in ((1, 1), (3, 5), *([(side, side)] if side > 3 else [])):
        shape = (graph.input.channels, height, width)
        corners = torch.full(shape, low, dtype=torch.float64)
        corners[:, 0, 0] = corners[:, -1, -1] = high
        flat = [torch.full(shape, v, dtype=torch.float64) for v in (low, high)]
        noise = _noise((count, *shape), low, high)
        ends = noise[(5 * count) // 8 :]  # of the range only: they wake more ReLUs
        ends.copy_(torch.where(ends > (low + high) / 2, high, low))
        inputs[f"{height}x{width}"] = torch.stack([*noise, *flat, corners])
    return inputs


def long_probe(graph: ir.Graph) -> dict[str, Tensor]:
    """Noise on a strip, two pixels wide, that is longer than the receptive field."""
    length = min(2 * receptive_field(graph) + 3, LONGEST)
    return {f"{length}x2": _noise((1, graph.input.channels, length, 2), *_range(graph))}


def _range(graph: ir.Graph) -> tuple[float, float]:
    low, high = graph.input.low, graph.input.high
    return (low if math.isfinite(low) else -1.0), (high if math.isfinite(high) else 1.0)


def _noise(shape: tuple[int, int, int, int], low: float, high: float) -> Tensor:
    generator = torch.Generator().manual_seed(shape[2] * 7919 + shape[3])
    return torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low


def run_on_probes(graph: ir.Graph, inputs: dict[str, Tensor], before: ProbeRun | None = None) -> ProbeRun:
    """Run a graph on every probe.  `before`: of another graph, most of whose kernels it may still have."""
    products: _Products = {}
    convolve = _share(before.products if before else {}, products)
    peak, clipped, raised = 0.0, "", _raised(graph)

    def watch(name: str, value: Tensor) -> None:
        nonlocal peak, clipped
        peak = max(peak, float(value.abs().max()))
        for m in raised.get(name, ()):
            if value[:, _places(m)].lt(0).any():
                clipped = clipped or m.tensor

    outputs = tuple(run(graph, x, watch=watch, convolve=convolve) for x in inputs.values())
    return ProbeRun(outputs, peak, _steps(graph), products, clipped)


def _raised(graph: ir.Graph) -> dict[str, list[ir.Meaning]]:
    """Values with some channels that are t + C and go into a ReLU, by name."""
    relus = [op for op in graph if isinstance(op, ir.Relu)]
    raised = {op.inputs[0]: [m for m in op.meaning if m.kind == "shifted" and _places(m)] for op in relus}
    return {name: meanings for name, meanings in raised.items() if meanings}


def _places(m: ir.Meaning) -> list[int]:
    return [p for p in m.positions if p >= 0]


def rounding_of_constants(graph: ir.Graph, inputs: dict[str, Tensor]) -> float:
    """The most that an output moves when every t + C moves by eps(float64) * C, this way or that at random.

    So much does rounding take from t, and weights after it may make it larger.  0 without shifts.
    """
    raised, eps = _raised(graph), torch.finfo(torch.float64).eps
    if not raised:
        return 0.0
    generator = torch.Generator().manual_seed(0)
    most = 0.0
    for x in inputs.values():
        values: dict[str, Tensor] = {}
        for op in graph:
            values[op.name] = x if isinstance(op, ir.Input) else evaluate(op, *(values[i] for i in op.inputs))
            for m in raised.get(op.name, ()):
                noise = torch.rand(values[op.name].shape, generator=generator, dtype=torch.float64)
                moved = values[op.name].clone()
                moved[:, _places(m)] += (2 * noise[:, _places(m)] - 1).sign() * eps * m.constant
                values[op.name] = moved
        most = max(most, float((values[graph.output] - run(graph, x)).abs().max()))
    return most


def _steps(graph: ir.Graph) -> int:
    """Roundings one after the other on the longest way through the graph: terms of its dot products, and sums."""
    steps: dict[str, int] = {}
    for op in graph:
        own = 1
        if isinstance(op, ir.Conv2d):
            own = op.weight[0].numel()
        elif isinstance(op, ir.BlockConv2d):
            own = op.channels_in * op.kernel_size**2
        elif isinstance(op, ir.ConvTranspose2d):
            own = op.weight[:, 0].numel()
        steps[op.name] = own + max((steps[i] for i in op.inputs), default=0)
    return steps[graph.output]


def amplified_deviation(
    inputs: dict[str, Tensor], before: ProbeRun, after: ProbeRun, graphs: tuple[ir.Graph, ir.Graph], far: Deviation
) -> Deviation:
    """The largest deviation, or one that no rounding explains, beside a bound for that very number of the output.

    It knows what weights amplify and what cancels: `rounding_at`.  Rounded is in the run before the pass, in that after
    it, and in the pass itself, which composes kernels of the same numbers as the run before composes values.

    graphs   before and after;   far   `largest_deviation`: beyond its bound are the places to look at, the
             MOST_PLACES largest of each probe
    """

    def look(name: str, a: Tensor, b: Tensor, places: list[list[int]]) -> list[Deviation]:
        images, at = inputs[name][[n for n, *_ in places]], [place[1:] for place in places]
        first, second = (rounding_at(graph, images, at, far.largest) for graph in graphs)
        return [
            Deviation(float((a - b)[i].abs()), bound, name, i, float(a[i]), float(b[i]))
            for i, bound in zip(map(tuple, places), (2 * first + second).tolist(), strict=True)
        ]

    found: list[Deviation] = []
    for name, a, b in zip(inputs, before.outputs, after.outputs, strict=True):
        difference = (a - b).abs()
        places = (difference > far.bound).nonzero()
        together = max(1, _PIXELS // a[0, 0].numel())
        most = MOST_PLACES if together > 1 else MOST_PLACES // 8
        order = difference[tuple(places.T)].sort(descending=True).indices[:most]
        left, count = places[order].tolist(), 1  # the farthest alone: a wrong pass is soon told
        while left:
            some, left, count = left[:count], left[count:], together
            found += look(name, a, b, some)
            unexplained = [d for d in found if not d.largest <= d.bound]
            if unexplained:
                return unexplained[0]
    return max(found, key=lambda d: d.largest)


def largest_deviation(
    inputs: dict[str, Tensor], before: ProbeRun, after: ProbeRun, of_constants: float = 0.0
) -> Deviation:
    """The largest difference, beside its bound: (eps(float64) * largest magnitude met) * roundings in a row.

    The bound is what rounding alone can do in one pass of dot products whose weights do not amplify; a wrong rewrite
    is many orders of magnitude above it.  Constants of shifts may be far larger than what is carried, so that even
    what little of them is rounded away counts once it is amplified: `of_constants` is how much, one rounding each.
    """
    rounding = torch.finfo(torch.float64).eps * max(before.peak, after.peak)
    bound = (rounding + of_constants) * max(before.steps, after.steps)
    worst: Deviation | None = None
    for name, a, b in zip(inputs, before.outputs, after.outputs, strict=True):
        if a.shape != b.shape:
            raise NotEquivalent(f"on probe {name} the shape {tuple(a.shape)} became {tuple(b.shape)}", probe=name)
        difference = torch.nan_to_num((a - b).abs(), nan=math.inf)
        where = tuple((difference == difference.max()).nonzero()[0].tolist())
        deviation = Deviation(float(difference[where]), bound, name, where, float(a[where]), float(b[where]))
        worst = deviation if worst is None or deviation.largest > worst.largest else worst
    assert worst is not None, "no probe"
    return worst
