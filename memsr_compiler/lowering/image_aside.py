"""Teachers that add the image itself at their end: the image is set aside, and what is left is compiled.

ABPN, ECBSR and many others learn only what nearest-neighbour enlargement lacks, and add that image, each pixel
repeated, before or after their last pixel shuffle.  Carried inside a plain network it takes channels in every layer;
outside it is one addition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from memsr_compiler import ir
from memsr_compiler.ir.interpreter import run
from memsr_compiler.torch_helpers import enlarge
from memsr_compiler.trace.trace import ImageSkip, Traced

_POINTWISE = (ir.Input, ir.Select, ir.Concat, ir.PixelShuffle, ir.PixelUnshuffle, ir.Affine, ir.Sum)


def set_image_aside(traced: Traced) -> Traced:
    """The teacher without the nearest-neighbour image that it adds at its end; itself, if it adds none, or another.

    traced   y = f(x) + nearest(x), the sum before the last pixel shuffle or after it
    """
    graph = traced.graph
    last = graph[graph.output]
    shuffle = list[ir.Op]()
    while isinstance(last, (ir.PixelShuffle, ir.Select)):  # of TFLite's channels, in another order
        shuffle.insert(0, last)
        last = graph[last.inputs[0]]
    if traced.image_skip is not None or not isinstance(last, ir.Sum):
        return traced
    for total in _list_sums(graph, last):
        for image in total.inputs:
            rest = list(total.inputs)
            rest.remove(image)
            if rest and _is_image(_end_at(graph, image, shuffle), graph):
                return replace(traced, graph=_without(graph, total, rest), image_skip=ImageSkip("nearest", graph.scale))
    return traced


def _list_sums(graph: ir.Graph, total: ir.Sum) -> Iterator[ir.Sum]:
    """A sum, and those among its terms that nothing else reads, nor the sum itself twice."""
    yield total
    for term in graph.operands(total):
        once = len(graph.users(term.name)) == 1 and total.inputs.count(term.name) == 1
        if isinstance(term, ir.Sum) and once:
            yield from _list_sums(graph, term)


def _end_at(graph: ir.Graph, value: str, shuffle: list[ir.Op]) -> ir.Graph:
    """The part of the graph that makes a value, and the shuffle of it."""
    ops = list(graph)
    for i, op in enumerate(shuffle):
        ops.append(replace(op, name=f"shuffled.{i}", inputs=(value,)))
        value = ops[-1].name
    return _prune(ops, value)


def _is_image(part: ir.Graph, whole: ir.Graph) -> bool:
    """Whether a part of the teacher gives the image with its pixels repeated, by what it does with one pixel.

    Only operations that treat every pixel by itself, and as an affine function, are looked at: what they do is known
    from the zero pixel and from those with one channel that is 1.  One that is neither shows constants beside which
    float64 keeps whole numbers alone.
    """
    if not all(isinstance(op, _POINTWISE) or (isinstance(op, ir.Conv2d) and op.pointwise) for op in part):
        return False
    channels = whole.input.channels
    pixels = torch.cat([torch.zeros(1, channels), torch.eye(channels)]).double()[..., None, None]
    if part.scale != whole.scale or not torch.equal(run(part, pixels), enlarge(pixels, whole.scale, "nearest")):
        return False
    between = torch.full_like(pixels[:1], 0.3)
    return torch.allclose(run(part, between), enlarge(between, whole.scale, "nearest"), rtol=1e-9, atol=0)


def _without(graph: ir.Graph, total: ir.Op, rest: list[str]) -> ir.Graph:
    """The graph with a sum of these operands in place of that of all."""
    if len(rest) > 1:
        ops = [replace(op, inputs=tuple(rest)) if op is total else op for op in graph]
        return _prune(ops, graph.output)
    renamed = [replace(op, inputs=tuple(rest[0] if i == total.name else i for i in op.inputs)) for op in graph]
    return _prune(renamed, rest[0] if graph.output == total.name else graph.output)


def _prune(ops: list[ir.Op], output: str) -> ir.Graph:
    """A graph of those ops that the output needs, and the input."""
    needed = {output}
    for op in reversed(ops):
        if op.name in needed:
            needed.update(op.inputs)
    return ir.Graph(tuple(op for op in ops if op.name in needed or isinstance(op, ir.Input)), output)
