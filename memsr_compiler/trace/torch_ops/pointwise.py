"""Words for what is linear in each pixel: batch norm, sums, scales, means of channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.trace.builder import Builder, Resized
from memsr_compiler.trace.torch_ops.registry import word
from memsr_compiler.trace.torch_ops.shape import is_image, is_of_channels, lay_out, number_channels, select, squeeze
from memsr_compiler.trace.torch_ops.unsupported import IMPOSSIBLE, POOLING
from memsr_compiler.trace.views import View


@word("batch_norm")
def batch_norm(
    b: Builder,
    x: View,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *cudnn: bool,
) -> View:
    """As of torch.nn.functional.  torch's own operator, which takes one more, has the weights first."""
    mean, var, gain, offset = running_mean, running_var, weight, bias
    if cudnn:
        mean, var, gain, offset = gain, offset, mean, var
    if training or mean is None or var is None:
        b.refuse(
            "batch norm uses the statistics of the image at hand",
            "call model.eval() first, and train with track_running_stats=True",
        )
    scale = (1.0 if gain is None else gain.double()) / torch.sqrt(var.double() + eps)
    return b.affine(x, scale, (0.0 if offset is None else offset.double()) - mean.double() * scale)


@word("instance_norm")
def instance_norm(
    b: Builder,
    x: View,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *cudnn: bool,
) -> View:
    """Batch norm, where statistics are kept."""
    mean, var, gain, offset = running_mean, running_var, weight, bias
    if cudnn:
        mean, var, gain, offset = gain, offset, mean, var
    if use_input_stats or mean is None or var is None:
        b.refuse(*IMPOSSIBLE["instance_norm"])
    return batch_norm(b, x, mean, var, gain, offset, False, momentum, eps)


@word("native_batch_norm", "_batch_norm_with_update")
def native_batch_norm(
    b: Builder,
    x: View,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[View]:
    return (batch_norm(b, x, mean, var, weight, bias, training, momentum, eps),)


@word("_native_batch_norm_legit_no_training")
def batch_norm_inference(
    b: Builder,
    x: View,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[View]:
    return (batch_norm(b, x, mean, var, weight, bias, False, momentum, eps),)


@word("add")
def add(b: Builder, x: Any, y: Any, alpha: float = 1) -> Any:
    return linear(b, x, 1.0, y, alpha)


@word("sub", "subtract")
def sub(b: Builder, x: Any, y: Any, alpha: float = 1) -> Any:
    return linear(b, x, 1.0, y, -alpha)


@word("rsub")
def rsub(b: Builder, x: Any, y: Any, alpha: float = 1) -> Any:
    return linear(b, x, -alpha, y, 1.0)


def linear(b: Builder, x: Any, p: float, y: Any, q: float) -> Any:
    """p * x + q * y, either of which may be a constant."""
    if isinstance(x, Resized) or isinstance(y, Resized):
        resized, body = (x, y) if isinstance(x, Resized) else (y, x)
        if not isinstance(body, View) or resized.body is not None or (p, q) != (1.0, 1.0):
            b.refuse("the enlarged image is used for something else than one sum at the end", "add it last, unscaled")
        return Resized(resized.mode, resized.factor, body)
    if not isinstance(x, View):
        return linear(b, y, q, x, p)
    if isinstance(y, View):
        names = [b.feature(v) if s == 1 else b.feature(b.affine(v, s, 0.0)) for v, s in ((x, p), (y, q))]
        return b.add(ir.Sum(name=b.name("add"), inputs=match_channels(b, names)))
    x = _spread(b, x, y)
    shift = b.per_channel(y, x)
    if shift is None:
        b.refuse("a constant that differs from pixel to pixel is added", "use one constant for each channel")
    return b.affine(x, p, q * shift)


def match_channels(b: Builder, names: list[str]) -> tuple[str, ...]:
    """Two operands; one of a single channel is repeated for each channel of the other."""
    left, right = b.types[names[0]], b.types[names[1]]
    if left.scale == right.scale and 1 in (left.channels, right.channels):
        width = max(left.channels, right.channels)
        views = [View.of(n, b.types[n].channels, b.types[n].scale) for n in names]
        names = [b.feature(select(b, v, [0] * width)) if b.channels(v) == 1 else v.op for v in views]
    return tuple(names)


def _spread(b: Builder, x: View, constant: object) -> View:
    """A feature map; one of a single channel repeated for each channel of a constant (1, C, 1, 1)."""
    if not isinstance(constant, Tensor) or constant.dim() not in (3, 4) or constant.shape[-2:] != (1, 1):
        return x
    width = constant.shape[-3]
    return select(b, x, [0] * width) if width > 1 and b.channels(x) == 1 else x


@word("lerp")
def lerp(b: Builder, x: Any, end: Any, weight: Any) -> Any:
    """x + weight * (end - x)."""
    if not isinstance(weight, View) and torch.as_tensor(weight).numel() == 1:
        return linear(b, x, 1.0 - float(weight), end, float(weight))
    step = sub(b, end, x) if isinstance(x, View) or isinstance(end, View) else end - x
    return add(b, x, mul(b, step, weight))


@word("addcmul")
def addcmul(b: Builder, x: Any, tensor1: Any, tensor2: Any, value: float = 1.0) -> Any:
    return linear(b, x, 1.0, mul(b, tensor1, tensor2), value)


@word("neg", "negative")
def neg(b: Builder, x: View) -> View:
    return b.affine(x, -1.0, 0.0)


@word("mul", "multiply")
def mul(b: Builder, x: Any, y: Any) -> View:
    if isinstance(x, View) and isinstance(y, View):
        b.refuse(
            "two feature maps are multiplied (attention?)",
            "remove the gate and retrain; a plain network is piecewise linear",
        )
    if isinstance(x, Resized) or isinstance(y, Resized):
        b.refuse("the enlarged image is scaled", "add it last, unscaled")
    x, y = (x, y) if isinstance(x, View) else (y, x)
    x = _spread(b, x, y)
    scale = b.per_channel(y, x)
    if scale is None:
        b.refuse("a constant that differs from pixel to pixel is multiplied in", "use one constant for each channel")
    return b.affine(x, scale, 0.0)


@word("div", "truediv", "divide", "true_divide")
def div(b: Builder, x: Any, y: Any, rounding_mode: str | None = None) -> View:
    if not isinstance(x, View) or isinstance(y, View) or rounding_mode:
        b.refuse("it divides by a feature map, or rounds", "divide by constants only")
    return mul(b, x, 1.0 / torch.as_tensor(y, dtype=torch.float64))


@word("sum")
def sum_channels(b: Builder, x: View, dim: Any = None, keepdim: bool = False) -> View:
    return _over_channels(b, x, "sum", dim, keepdim)


@word("mean")
def mean_channels(b: Builder, x: View, dim: Any = None, keepdim: bool = False) -> View:
    return _over_channels(b, x, "mean", dim, keepdim)


def _over_channels(b: Builder, x: View, kind: str, dim: Any, keepdim: bool) -> View:
    """Sum or mean over the channels; over pixels there is none."""
    if dim is None or dim == () or dim == []:
        b.refuse(*POOLING)
    dims = {d % len(x.axes) for d in (dim if isinstance(dim, Sequence) else [dim])}
    if any(f.axis in "hw" for d in dims for f in x.axes[d]):
        b.refuse(*POOLING)
    if not all(is_of_channels(x, d) for d in dims):
        b.refuse(f"it takes the {kind} over images", "a plain network treats each image alone; do without")
    x = View.of(b.feature(x), b.channels(x), b.scale(x)) if is_image(x) else x
    numbers = number_channels(b, x)
    lengths = [1 if d in dims else n for d, n in enumerate(numbers.shape)]
    made = torch.arange(prod(lengths)).view(lengths).expand(numbers.shape)
    weight = torch.zeros(prod(lengths), b.types[x.op].channels, 1, 1, dtype=torch.float64)
    share = prod(lengths) / numbers.numel() if kind == "mean" else 1.0
    weight.index_put_(
        (made.flatten(), numbers.flatten()), torch.tensor([[share]], dtype=torch.float64), accumulate=True
    )
    bias = torch.zeros(len(weight), dtype=torch.float64)
    op = b.add(ir.Conv2d(name=b.name(kind), inputs=(x.op,), weight=weight, bias=bias)).op
    result = lay_out(x, op, lengths)
    for d in () if keepdim else sorted(dims, reverse=True):
        result = squeeze(b, result, d)
    return result
