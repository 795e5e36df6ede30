"""The meaning of the IR: one small interpreter over torch's own operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler import ir

FEW_PIXELS = 512
MOST_TAPS = 1 << 27
"""The most numbers that taps of an image are copied to at once, a GiB in float64: a kernel of 127 has 16,129."""

Convolve = Callable[[Tensor, Tensor, int, int], Tensor]


def run(
    graph: ir.Graph,
    x: Tensor,
    *,
    watch: Callable[[str, Tensor], None] | None = None,
    convolve: Convolve | None = None,
) -> Tensor:
    """The graph's output for x (N, C, H, W), in x's dtype and on x's device; a value is dropped after its last use.

    `watch(name, value)` sees every value once, as it is made; `convolve` is what to use instead of `convolve_same`.
    """
    left = {op.name: len(graph.users(op.name)) for op in graph}
    left[graph.output] += 1
    values: dict[str, Tensor] = {}
    for op in graph:
        how = {"convolve": convolve} if convolve and isinstance(op, (ir.Conv2d, ir.BlockConv2d)) else {}
        value = x if isinstance(op, ir.Input) else evaluate(op, *(values[i] for i in op.inputs), **how)
        values[op.name] = value
        if watch is not None:
            watch(op.name, value)
        for name in set(op.inputs):
            left[name] -= 1
            if not left[name]:
                del values[name]
    return values[graph.output]


@singledispatch
def evaluate(op: ir.Op, *operands: Tensor, **how: Convolve) -> Tensor:
    """The value of one op."""
    raise TypeError(f"{type(op).__name__} has no meaning")


def _like(weight: Tensor, x: Tensor) -> Tensor:
    return weight.to(dtype=x.dtype, device=x.device)


def convolve_same(x: Tensor, weight: Tensor, groups: int = 1, dilation: int = 1) -> Tensor:
    """Zero-padded convolution that keeps the size.

    On few pixels torch's own reads the weights once for every image; one matrix product reads them once for all,
    which is what validation of wide networks spends its time on.
    """
    k = weight.shape[-1]
    padding, pixels = k // 2 * dilation, x.shape[0] * x.shape[2] * x.shape[3]
    rows = max(1, MOST_TAPS // (weight[0].numel() * groups * x.shape[0] * x.shape[3]))
    if rows < x.shape[2]:
        padded = F.pad(x, [padding] * 4)
        bands = [padded[:, :, top : top + rows + 2 * padding] for top in range(0, x.shape[2], rows)]
        return torch.cat([F.conv2d(band, weight, groups=groups, dilation=dilation) for band in bands], dim=2)
    if groups > 1 or pixels > FEW_PIXELS:
        return F.conv2d(x, weight, padding=padding, groups=groups, dilation=dilation)
    taps = F.unfold(x, k, dilation=dilation, padding=padding).transpose(0, 1).reshape(-1, pixels)
    return (weight.flatten(1) @ taps).reshape(len(weight), len(x), *x.shape[2:]).transpose(0, 1)


@evaluate.register
def _(op: ir.Conv2d, x: Tensor, convolve: Convolve = convolve_same) -> Tensor:
    y, bias = convolve(x, _like(op.weight, x), op.groups, op.dilation), _like(op.bias, x)[None, :, None, None]
    return y.add_(bias) if convolve is convolve_same else y + bias  # what others give may be theirs to keep


@evaluate.register
def _(op: ir.BlockConv2d, x: Tensor, convolve: Convolve = convolve_same) -> Tensor:
    y = _like(op.bias, x)[None, :, None, None].repeat(len(x), 1, *x.shape[2:])
    for b in op.blocks:
        rows, columns = b.kernel.shape[:2]
        part = x[:, b.column : b.column + columns]
        y[:, b.row : b.row + rows] += convolve(part, _like(b.kernel, x), 1, 1)
    return y


@evaluate.register
def _(op: ir.ConvTranspose2d, x: Tensor) -> Tensor:
    extra = op.stride + 2 * op.padding - op.weight.shape[-1]
    weight, bias = _like(op.weight, x), _like(op.bias, x)
    return F.conv_transpose2d(x, weight, bias, op.stride, op.padding, extra, op.groups)


@evaluate.register
def _(op: ir.Affine, x: Tensor) -> Tensor:
    return _like(op.scale, x)[None, :, None, None] * x + _like(op.shift, x)[None, :, None, None]


@evaluate.register
def _(op: ir.Sum, *xs: Tensor) -> Tensor:
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return total


@evaluate.register
def _(op: ir.Concat, *xs: Tensor) -> Tensor:
    return torch.cat(xs, dim=1)


@evaluate.register
def _(op: ir.Select, x: Tensor) -> Tensor:
    return x[:, list(op.index)]


@evaluate.register
def _(op: ir.Relu, x: Tensor) -> Tensor:
    return F.relu(x)


@evaluate.register
def _(op: ir.PRelu, x: Tensor) -> Tensor:
    return F.prelu(x, _like(op.slope, x))


@evaluate.register
def _(op: ir.Clamp, x: Tensor) -> Tensor:
    return x.clamp(op.low, op.high)


@evaluate.register
def _(op: ir.Maximum, x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y)


@evaluate.register
def _(op: ir.PixelShuffle, x: Tensor) -> Tensor:
    return F.pixel_shuffle(x, op.factor)


@evaluate.register
def _(op: ir.PixelUnshuffle, x: Tensor) -> Tensor:
    return F.pixel_unshuffle(x, op.factor)


@evaluate.register
def _(op: ir.Carry, x: Tensor) -> Tensor:
    return x
