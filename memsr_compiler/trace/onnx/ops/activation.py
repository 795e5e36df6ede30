"""Words for what is piecewise linear."""

from __future__ import annotations

import math
from functools import partial, reduce
from typing import Any

import numpy as np

from memsr_compiler.errors import InvalidInput
from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.ops.registry import Context, Value, onnx_word
from memsr_compiler.trace.torch_ops import activation as torch_activation
from memsr_compiler.trace.torch_ops.unsupported import JUMPS
from memsr_compiler.trace.views import View


@onnx_word("Relu")
def relu(c: Context, node: Node, x: View) -> Any:
    return torch_activation.relu(c.builder, x)


@onnx_word("LeakyRelu")
def leaky_relu(c: Context, node: Node, x: View) -> Any:
    return torch_activation.leaky_relu(c.builder, x, node.number("alpha", 0.01))


@onnx_word("PRelu")
def prelu(c: Context, node: Node, x: View, slope: Value) -> Any:
    slopes = c.builder.per_channel(c.tensor(slope, "slope"), x)
    if slopes is None:
        c.builder.refuse("its slope differs from pixel to pixel", "use one slope for each channel")
    return torch_activation.prelu(c.builder, x, slopes)


@onnx_word("Abs")
def absolute(c: Context, node: Node, x: View) -> Any:
    return torch_activation.absolute(c.builder, x)


def _bound(c: Context, value: Value | None, missing: float) -> float:
    if value is None:
        return missing
    if not isinstance(value, np.ndarray) or value.dtype == object or value.size != 1:
        c.builder.refuse("a bound is not one constant number", "use one number for all channels")
    number = float(value.reshape(-1)[0])
    if math.isnan(number):
        raise InvalidInput(f"{c.builder.where}: {c.builder.last}: a bound is NaN. Export or download it again.")
    return number


@onnx_word("Clip")
def clip(c: Context, node: Node, x: View, low: Value | None = None, high: Value | None = None) -> Any:
    return torch_activation.clamp(c.builder, x, _bound(c, low, -math.inf), _bound(c, high, math.inf))


@onnx_word("HardSigmoid")
def hard_sigmoid(c: Context, node: Node, x: View) -> Any:
    line = c.builder.affine(x, node.number("alpha", 0.2), node.number("beta", 0.5))
    return torch_activation.clamp(c.builder, line, 0.0, 1.0)


@onnx_word("ThresholdedRelu")
def thresholded_relu(c: Context, node: Node, x: View) -> Any:
    """Nothing up to a threshold, and x above it: with that at 0 a ReLU."""
    if node.number("alpha", 1.0) != 0:
        c.builder.refuse(*JUMPS)
    return torch_activation.relu(c.builder, x)


@onnx_word("Shrink")
def shrink(c: Context, node: Node, x: View) -> Any:
    """Nothing between two thresholds, and x beyond them, lowered towards 0 by the bias."""
    threshold = node.number("lambd", 0.5)
    if threshold < 0 or node.number("bias", 0.0) != threshold:
        c.builder.refuse(*JUMPS)
    return torch_activation.softshrink(c.builder, x, threshold)


@onnx_word("Max", "Min")
def extreme(c: Context, node: Node, *operands: Value) -> Any:
    """Feature maps first: a constant bounds what they come to."""
    function = torch_activation.maximum if node.op == "Max" else torch_activation.minimum
    views = [v for v in operands if isinstance(v, View)]
    bounds = [_bound(c, v, math.nan) for v in operands if not isinstance(v, View)]
    most = max(v.ndim if isinstance(v, np.ndarray) else 0 for v in operands)
    if most > len(views[0].axes):
        c.builder.refuse(f"a bound of {most} axes makes as many of a feature map's", "use one number without axes")
    return reduce(partial(function, c.builder), [*views, *bounds])
