"""Bounds, derived, on the difference of two ways of computing the same; and constants that shifts need."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler import ir, passes
from memsr_compiler.ir.interpreter import evaluate, run
from memsr_compiler.ir.validate import long_probe, probes
from memsr_compiler.lowering.canonical import canonical
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.torch_helpers import enlarge

EPS = torch.finfo(torch.float64).eps

# dB between two ways of computing a network in float32, on images of 60x48 pixels.  Of values that are 1e-6 apart one
# in 2,000 lies so near to the middle of two of 255 levels that it turns to the other: 4 of 8,640.  Each moves Y by
# half a level at most, and a square d^2, of 2,880, by d: 10 / ln 10 * 4 * d / (2,880 * d^2) for d of 6 (32 dB) or more.
PSNR_ROUNDING = 1e-3


def shift_constant(network: ir.Graph, images: list[Tensor]) -> float:
    """A power of two, at least three times what is carried for these images and for those of validation."""
    graph = canonical(network, "fold")[0].graph
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


def likely_rounding(net: PlainNet, x: Tensor, dtype: torch.dtype, *, once: bool = False) -> Tensor:
    """How far apart two ways of computing a plain network in this dtype are likely to be, for each output value.

    The bound of `rounding` holds for the worst case, in which no rounding cancels another: in float32 ten times the
    output itself.  Here roundings are taken as independent and of mean 0 (Higham and Mary 2019).  A sum of n products
    is then off by about sqrt(n) * eps / 2 of their magnitudes; through a layer squares of such errors, of different
    channels, add up weighted by squares of the weights.  Allowed are six standard deviations of the difference of two,
    one time in 10^9, which takes no heed of the processor.

    once   sums are exact, and each value and each weight is rounded to the dtype once; so are an enlarged image, of
           less than twice the image's largest value, and the sum with it
    """
    eps, z = torch.finfo(dtype).eps, x.double()
    variance = (eps * z) ** 2 if once else torch.zeros_like(z)
    for layer in net:
        assert layer.bias is not None
        w, b, p = layer.weight.detach().double(), layer.bias.detach().double(), layer.padding
        y = F.conv2d(z, w, b, padding=p)
        if once:
            local = y**2 + F.conv2d(z**2, w**2, b**2, padding=p)
        else:
            local = (w[0].numel() + 1) * F.conv2d(z.abs(), w.abs(), b.abs(), padding=p) ** 2
        variance = F.conv2d(variance, w**2, padding=p) + eps**2 * local
        if layer.slope is not None:
            variance = variance * layer.slope.double().abs().clamp_min(1) ** 2
        variance = F.pixel_shuffle(variance, layer.shuffle)
        z = F.pixel_shuffle(layer.activate(y), layer.shuffle)
    bound = 6 * variance.sqrt()
    if not net.info.image_skip:
        return bound
    if net.info.image_skip == "nearest":
        return bound + 2 * eps * (z + enlarge(x.double(), net.scale, "nearest")).abs()  # the sum, and x where `once`
    return bound + (4 * eps * float(x.abs().max()) if once else resize_rounding(x, eps))


def resize_rounding(x: Tensor, eps: float) -> float:
    """How far apart two ways of enlarging an image, bilinear or bicubic, may be.

    A position of at most the length L of the image is scaled and moved by half a pixel: 2 * eps * (L + 1) for both.
    The weights of one direction, 1.375 in all, change by 3 at most from pixel to pixel (bicubic, a = -0.75), those of
    both by 2 * 1.375 * 3 < 9.  Each of the 8 weights is a polynomial of degree 3 with steps of at most 6 in magnitude,
    six of them: 8 * 6 * 6 * 1.375 * eps; the 16 products add less than 100.
    """
    return eps * (18 * (max(x.shape[-2:]) + 1) + 512) * float(x.abs().max())


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
