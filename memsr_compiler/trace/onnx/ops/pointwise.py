"""Words for what is linear in each pixel: batch norm, sums, scales, means."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import numpy as np
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import InvalidInput
from memsr_compiler.trace.builder import Resized
from memsr_compiler.trace.onnx.file import Node, is_in_training
from memsr_compiler.trace.onnx.ops.registry import Context, Value, onnx_word, read_operand
from memsr_compiler.trace.onnx.ops.shape import stack
from memsr_compiler.trace.onnx.ops.unsupported import DECIDES
from memsr_compiler.trace.torch_ops import pointwise as torch_pointwise
from memsr_compiler.trace.torch_ops import shape as torch_shape
from memsr_compiler.trace.views import View


@onnx_word("BatchNormalization")
def batch_norm(c: Context, node: Node, x: View, scale: Value, shift: Value, mean: Value, var: Value) -> Any:
    parts = [c.tensor(v, what) for v, what in ((mean, "mean"), (var, "variance"), (scale, "scale"), (shift, "shift"))]
    eps, training = node.number("epsilon", 1e-5), is_in_training(node)
    if bool((parts[1] + eps <= 0).any()):
        raise InvalidInput(f"{node.name}: {node.op}: its variance is negative. Export or download it again.")
    mean_, var_, gain, bias = parts
    return torch_pointwise.batch_norm(c.builder, x, mean_, var_, gain, bias, training, 0.0, eps)


def _plus(c: Context, q: float, x: Any, y: Any) -> Any:
    """x + q * y; a single channel is added to all of a constant's channels."""
    if isinstance(x, Resized) or isinstance(y, Resized):
        resized, body = (x, y) if isinstance(x, Resized) else (y, x)
        if isinstance(body, View):
            have, want = (
                c.builder.types[c.builder.feature(body)],
                c.builder.types[c.builder.input.op].channels,
            )
            if have != ir.FeatureMap(want, resized.factor):
                c.builder.refuse(
                    f"the enlarged image, {want} channels at x{resized.factor}, "
                    f"is added to {have.channels} at x{have.scale}",
                    "add it last, to an image of its size",
                )
    return torch_pointwise.linear(c.builder, _broadcast(c, x, y), 1.0, _broadcast(c, y, x), q)


def _broadcast(c: Context, x: Any, y: Any) -> Any:
    if isinstance(x, View) and isinstance(y, Tensor) and y.dim() > len(x.axes):
        c.builder.refuse(
            f"a constant of {y.dim()} axes makes as many of the {len(x.axes)} of a feature map",
            "reshape it to one number for each channel, (1, C, 1, 1)",
        )
    if isinstance(x, View) and isinstance(y, Tensor) and 3 <= y.dim() <= 4 and c.builder.channels(x) == 1:
        width = y.shape[-3]
        if width > 1 and y.numel() == width:
            return torch_shape.select(c.builder, x, [0] * width)
    return x


@onnx_word("Add", "Sum")
def add(c: Context, node: Node, *operands: Value) -> Any:
    """Feature maps first: two constants make none."""
    ordered = sorted(operands, key=lambda v: isinstance(v, np.ndarray))
    return reduce(partial(_plus, c, 1.0), [read_operand(c, v) for v in ordered])


@onnx_word("Sub")
def sub(c: Context, node: Node, x: Value, y: Value) -> Any:
    return _plus(c, -1.0, read_operand(c, x), read_operand(c, y))


@onnx_word("Mean")
def mean(c: Context, node: Node, *operands: Value) -> Any:
    return torch_pointwise.mul(c.builder, add(c, node, *operands), 1.0 / len(operands))


@onnx_word("Mul")
def mul(c: Context, node: Node, x: Value, y: Value) -> Any:
    left, right = read_operand(c, x), read_operand(c, y)
    return torch_pointwise.mul(c.builder, _broadcast(c, left, right), _broadcast(c, right, left))


@onnx_word("Div")
def div(c: Context, node: Node, x: Value, y: Value) -> Any:
    left, right = read_operand(c, x), read_operand(c, y)
    if isinstance(right, Tensor) and not bool(right.all()):
        c.builder.refuse("it divides by zero", "export or download it again")
    return torch_pointwise.div(c.builder, _broadcast(c, left, right), right)


@onnx_word("Neg")
def neg(c: Context, node: Node, x: View) -> Any:
    return torch_pointwise.neg(c.builder, x)


@onnx_word("Where")
def where(c: Context, node: Node, decision: Value, x: Value, y: Value) -> Value:
    """One of two feature maps, by a constant, as torch's lerp is exported."""
    if isinstance(decision, np.ndarray) and decision.size == 1 and isinstance(x, View) and isinstance(y, View):
        chosen = x if decision.item() else y
        if decision.ndim <= 4 == len(x.axes) == len(y.axes) and c.builder.channels(x) == c.builder.channels(y):
            return chosen
    c.builder.refuse(*DECIDES)


@onnx_word("Concat")
def concat(c: Context, node: Node, *parts: Value) -> Any:
    views = [p for p in parts if isinstance(p, View)]
    if len(views) < len(parts):
        c.builder.refuse("a constant is concatenated to a feature map", "add its effect to the next layer's bias")
    at = c.axis(views[0], node.integer("axis", 1))
    if len(views[0].axes) != 4 and (stacked := stack(c, views, at)) is not None:
        return stacked
    c.channels(views[0], at, "concatenates along")
    return torch_shape.cat(c.builder, views, 1)
