"""Bounds, derived, on the difference of two ways of computing the same; and constants that shifts need."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from helpers.networks import RandomNetwork
from torch import Tensor

from memsr_compiler import ir, passes
from memsr_compiler.ir.interpreter import evaluate, run
from memsr_compiler.ir.validate import long_probe, probes
from memsr_compiler.lowering.canonical import canonical
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.trace.trace import trace

EPS = torch.finfo(torch.float64).eps


def shift_constant(network: RandomNetwork, input_range: tuple[float, float], images: list[Tensor]) -> float:
    """A power of two, at least three times what is carried for these images and for those of validation."""
    graph = canonical(trace(network, input_range=input_range).graph, "fold")[0].graph
    graph = passes.skip_to_conv(graph, carry="shift")
    largest = 1.0

    def watch(name: str, value: Tensor) -> None:
        nonlocal largest
        if isinstance(graph[name], (ir.Carry, ir.Sum, ir.Conv2d)):
            largest = max(largest, float(value.abs().max()))

    for x in (*images, *probes(graph).values(), *long_probe(graph).values()):
        run(graph, x, watch=watch)
    return 2.0 ** torch.tensor(3 * largest).log2().ceil().item()


def rounding(graph: ir.Graph, plain: PlainNet, x: Tensor) -> Tensor:
    """Bound on the difference of two ways of computing the same in float64, for each output value.

    An output is a sum of products along all ways through the network.  However they are grouped, each product takes
    at most as many roundings as there are terms one after the other, each of eps times its magnitude; so
    eps * terms * the sum of the magnitudes bounds it (Higham 2002, sec. 3.1), once for each of the two networks.
    """
    terms = sum(op.weight[0].numel() for op in graph if isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)))
    terms = max(terms + len(graph.ops), sum(layer.weight[0].numel() + 1 for layer in plain))
    z = x.abs()
    for layer in plain:
        assert layer.bias is not None
        z = F.conv2d(z, layer.weight.abs(), layer.bias.abs(), padding=layer.padding)
        z = F.pixel_shuffle(z, layer.shuffle)
    return EPS * terms * (magnitudes(graph, x) + z)


def magnitudes(graph: ir.Graph, x: Tensor) -> Tensor:
    """The output with every product on the way counted by its magnitude, so that nothing cancels."""
    values: dict[str, Tensor] = {}
    for op in graph:
        operands = [values[i] for i in op.inputs]
        if isinstance(op, ir.Input):
            value = x.abs()
        elif isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)):
            value = evaluate(replace(op, weight=op.weight.abs(), bias=op.bias.abs()), *operands)
        elif isinstance(op, ir.Affine):
            value = evaluate(replace(op, scale=op.scale.abs(), shift=op.shift.abs()), *operands)
        elif isinstance(op, ir.PRelu):
            value = operands[0] * (1 + op.slope.abs()[:, None, None])
        elif isinstance(op, ir.Clamp):
            value = operands[0] + sum(abs(bound) for bound in (op.low, op.high) if math.isfinite(bound))
        elif isinstance(op, ir.Maximum):
            value = operands[0] + operands[1]
        else:
            value = evaluate(op, *operands)
        values[op.name] = value
    return values[graph.output]
