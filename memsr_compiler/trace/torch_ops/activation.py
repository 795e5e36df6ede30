"""Words for what is piecewise linear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.trace.builder import Builder
from memsr_compiler.trace.torch_ops.constants import find_constant
from memsr_compiler.trace.torch_ops.pointwise import linear, match_channels, neg
from memsr_compiler.trace.torch_ops.registry import Word, word
from memsr_compiler.trace.torch_ops.shape import (
    count_on,
    is_of_channels,
    lay_out,
    number_channels,
    rearrange,
    squeeze,
    take,
)
from memsr_compiler.trace.torch_ops.unsupported import GLOBAL, POOLING
from memsr_compiler.trace.views import View

_LARGEST = 3.4e38  # bounds there are none for any float32, of which the largest is often written with a few digits


def number(value: object) -> float:
    return float(value.item()) if isinstance(value, Tensor) else float(value)  # type: ignore[arg-type]


@word("relu")
def relu(b: Builder, x: View, inplace: bool = False) -> View:
    return b.add(ir.Relu(name=b.name("relu"), inputs=(b.feature(x),)))


@word("prelu")
def prelu(b: Builder, x: View, weight: Tensor) -> View:
    slope = torch.broadcast_to(weight.double().reshape(-1), (b.channels(x),)).clone()
    return b.add(ir.PRelu(name=b.name("prelu"), inputs=(b.feature(x),), slope=slope))


@word("leaky_relu")
def leaky_relu(b: Builder, x: View, negative_slope: float = 0.01, inplace: bool = False) -> View:
    return prelu(b, x, torch.tensor([negative_slope], dtype=torch.float64))


@word("rrelu")
def rrelu(
    b: Builder, x: View, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *_: Any, **__: Any
) -> View:
    if training:
        b.refuse("a randomised ReLU draws its slopes", "call model.eval() first")
    return leaky_relu(b, x, (lower + upper) / 2)


@word("rrelu_with_noise")
def rrelu_with_noise(b: Builder, x: View, noise: Any, *rest: Any, **options: Any) -> View:
    return rrelu(b, x, *rest, **options)


@word("abs", "absolute")
def absolute(b: Builder, x: View) -> View:
    return prelu(b, x, torch.tensor([-1.0]))


@word("clamp", "clip")
def clamp(b: Builder, x: View, min: Any = None, max: Any = None) -> View:
    if any(isinstance(v, View) or (isinstance(v, Tensor) and v.numel() != 1) for v in (min, max)):
        x = x if min is None else maximum(b, x, min)
        return x if max is None else minimum(b, x, max)
    low = -math.inf if min is None else number(min)
    high = math.inf if max is None else number(max)
    low = -math.inf if low <= -_LARGEST else low
    high = math.inf if high >= _LARGEST else high
    if high == -low == math.inf:
        return x
    if low > high:
        b.refuse(f"its lower bound, {low:g}, is above its upper, {high:g}", "swap them")
    if low == math.inf or high == -math.inf:
        b.refuse(f"nothing but {low if low > 0 else high:g} is within its bounds", "give it bounds that are numbers")
    return b.add(ir.Clamp(name=b.name("clamp"), inputs=(b.feature(x),), low=low, high=high))


@word("clamp_min")
def clamp_min(b: Builder, x: View, min: Any) -> View:
    return clamp(b, x, min)


@word("clamp_max")
def clamp_max(b: Builder, x: View, max: Any) -> View:
    return clamp(b, x, None, max)


@word("hardtanh")
def hardtanh(b: Builder, x: View, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> View:
    return clamp(b, x, min_val, max_val)


@word("relu6")
def relu6(b: Builder, x: View, inplace: bool = False) -> View:
    return clamp(b, x, 0.0, 6.0)


@word("hardsigmoid")
def hardsigmoid(b: Builder, x: View, inplace: bool = False) -> View:
    return clamp(b, b.affine(x, 1 / 6, 0.5), 0.0, 1.0)


@word("threshold", "_threshold")
def threshold(b: Builder, x: View, threshold: float, value: float, inplace: bool = False) -> View:
    if threshold != value:
        b.refuse("it jumps, and a plain network is continuous", "use threshold = value")
    return clamp(b, x, threshold)


@word("softshrink")
def softshrink(b: Builder, x: View, lambd: float = 0.5) -> View:
    """The part of x that is further from 0 than so much."""
    rest: View = linear(b, x, 1.0, clamp(b, x, -number(lambd), number(lambd)), -1.0)
    return rest


@word("maximum", "fmax")
def maximum(b: Builder, x: Any, y: Any) -> View:
    x, y = _constant_last(b, x, y)
    if isinstance(y, View):
        names = match_channels(b, [b.feature(x), b.feature(y)])
        return b.add(ir.Maximum(name=b.name("maximum"), inputs=names))
    if torch.as_tensor(y).numel() == 1:
        return clamp(b, x, y)
    bounds = _bounds(b, x, y)  # max(x, c) = relu(x - c) + c
    return b.affine(relu(b, b.affine(x, 1.0, -bounds)), 1.0, bounds)


@word("minimum", "fmin")
def minimum(b: Builder, x: Any, y: Any) -> View:
    x, y = _constant_last(b, x, y)
    if isinstance(y, View):
        return neg(b, maximum(b, neg(b, x), neg(b, y)))
    if torch.as_tensor(y).numel() == 1:
        return clamp(b, x, None, y)
    bounds = _bounds(b, x, y)  # min(x, c) = c - relu(c - x)
    return b.affine(relu(b, b.affine(x, -1.0, bounds)), -1.0, bounds)


def _constant_last(b: Builder, x: Any, y: Any) -> tuple[Any, Any]:
    """A feature map and another or a constant, such as `zeros_like` makes."""
    constants = [find_constant(b, v) if isinstance(v, View) else v for v in (x, y)]
    if isinstance(x, View) and isinstance(y, View) and constants[1] is None:
        return (x, y) if constants[0] is None else (y, constants[0])
    return (x, constants[1]) if isinstance(x, View) else (y, x)


def _bounds(b: Builder, x: View, constant: Any) -> Tensor:
    """A constant bound, one finite number for each channel."""
    bounds = b.per_channel(constant, x)
    if bounds is None:
        shape = tuple(torch.as_tensor(constant).shape)
        b.give_up(
            f"a bound of shape {shape} is not one number for each of {b.channels(x)} channels; give it as (1, C, 1, 1)"
        )
    if not bool(torch.isfinite(bounds).all()):
        b.give_up("a bound is infinite or NaN for some channels; give each channel a finite one")
    return bounds


@dataclass(frozen=True)
class Places:
    """The channels in which values are the largest, or the smallest, which no plain network tells."""

    kind: str


class Extreme(NamedTuple):
    """Results of torch.max and min over an axis."""

    values: View
    indices: Places


@word("max")
def max_or_over(
    b: Builder, x: Any, *over: Any, y: Any = None, dim: Any = None, keepdim: bool = False
) -> View | Extreme:
    return _extreme(b, maximum, "maximum", x, over, y, dim, keepdim)


@word("min")
def min_or_over(
    b: Builder, x: Any, *over: Any, y: Any = None, dim: Any = None, keepdim: bool = False
) -> View | Extreme:
    return _extreme(b, minimum, "minimum", x, over, y, dim, keepdim)


@word("amax")
def amax(b: Builder, x: View, dim: Any = None, keepdim: bool = False) -> View:
    return _over_axes(b, maximum, "maximum", x, dim, keepdim)


@word("amin")
def amin(b: Builder, x: View, dim: Any = None, keepdim: bool = False) -> View:
    return _over_axes(b, minimum, "minimum", x, dim, keepdim)


def _extreme(
    b: Builder, both: Word, kind: str, x: Any, over: Sequence[Any], y: Any, dim: Any, keepdim: bool
) -> View | Extreme:
    """torch.max and min: of two tensors, or of one over a dim (a whole number)."""
    second = over[0] if over else y
    if isinstance(second, (View, Tensor)):
        result: View = both(b, x, second)
        return result
    dim, keepdim = (dim if second is None else second), (over[1] if len(over) > 1 else keepdim)
    return Extreme(_over_axes(b, both, kind, x, dim, keepdim), Places(kind))


def _over_axes(b: Builder, both: Word, kind: str, x: View, dim: Any, keepdim: bool) -> View:
    """The largest or the smallest of channels: of the first half and of the second, again and again."""
    dims = [d % len(x.axes) for d in (dim if isinstance(dim, Sequence) else [dim])] if dim is not None else []
    if not dims or any(f.axis in "hw" for d in dims for f in x.axes[d]):
        b.refuse(f"it takes the {kind} over pixels: {GLOBAL}", POOLING[1])
    if not all(is_of_channels(x, d) for d in dims):
        b.refuse(f"it takes the {kind} over images", "a plain network treats each image alone; do without")
    for d in dims:
        while (count := count_on(x, d)) > 1:
            half = -(-count // 2)
            parts = [take(b, x, d, range(first, first + half)) for first in (0, count - half)]
            tables = [number_channels(b, part) for part in parts]
            flat = [rearrange(b, part, table) for part, table in zip(parts, tables, strict=True)]
            made: View = both(b, *(View.of(v.op, b.types[v.op].channels, b.types[v.op].scale) for v in flat))
            x = lay_out(parts[0], made.op, tables[0].shape)
    for d in () if keepdim else sorted(dims, reverse=True):
        x = squeeze(b, x, d)
    return x
