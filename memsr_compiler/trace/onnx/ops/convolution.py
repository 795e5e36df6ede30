"""Words for convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.trace.builder import MAX_KERNEL, MAX_SCALE, Padded
from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.ops.registry import Context, Value, onnx_word
from memsr_compiler.trace.torch_ops import convolution as torch_convolution
from memsr_compiler.trace.torch_ops.unsupported import IMPOSSIBLE
from memsr_compiler.trace.views import View


def _kernel(c: Context, node: Node, value: Value | None) -> Tensor:
    weight = c.tensor(value, "kernel")
    if weight.dim() != 4 or not weight.numel():
        c.builder.refuse(f"its kernel has the shape {tuple(weight.shape)}", "use 2-d convolutions")
    if node.integers("kernel_shape", list(weight.shape[2:])) != list(weight.shape[2:]):
        raise InvalidInput(f"{node.name}: kernel_shape is not the shape of its kernel {tuple(weight.shape)}.")
    dilations = node.integers("dilations", [1, 1])
    if min(*dilations, *node.integers("strides", [1, 1]), node.integer("group", 1)) < 1:
        raise InvalidInput(f"{node.name}: strides, dilations and group are at least 1.")
    for n, d in zip(weight.shape[2:], dilations, strict=True):
        c.builder.room((n - 1) * d + 1, MAX_KERNEL, "a kernel")
    return weight


def _pads(c: Context, node: Node, totals: Sequence[int]) -> list[int]:
    """Padding (top, left, bottom, right); `totals` for height and width are what SAME asks for."""
    kind = node.text("auto_pad", "NOTSET")
    if kind == "VALID":
        return [0, 0, 0, 0]
    if kind in ("SAME_UPPER", "SAME_LOWER"):
        if min(totals) < 0:
            c.builder.refuse(f"auto_pad {kind} with a kernel smaller than the stride", "write the padding out")
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        return [*small, *large] if kind == "SAME_UPPER" else [*large, *small]
    if kind != "NOTSET":
        c.builder.give_up(f"auto_pad {kind} is not read; write the padding out")
    pads = node.integers("pads", [0, 0, 0, 0])
    if len(pads) != 4 or min(pads) < 0:
        raise InvalidInput(f"{node.name}: pads {pads} are not four sizes.")
    return pads


@onnx_word("Conv")
def conv(c: Context, node: Node, x: View, weight: Value, bias: Value | None = None) -> Any:
    kernel = _kernel(c, node, weight)
    dilations = node.integers("dilations", [1, 1])
    top, left, bottom, right = _pads(c, node, [(n - 1) * d for n, d in zip(kernel.shape[2:], dilations, strict=True)])
    if (top, left) != (bottom, right) and kernel.shape[2] % 2 and kernel.shape[3] % 2:
        c.builder.refuse(f"padding {[top, left, bottom, right]} is not the same on both sides", "pad by (k - 1) / 2")
    offset = None if bias is None else c.tensor(bias, "bias")
    steps, group = node.integers("strides", [1, 1]), node.integer("group", 1)
    return torch_convolution.conv2d(c.builder, x, kernel, offset, steps, (top, left), dilations, group)


@onnx_word("AveragePool")
def average_pool(c: Context, node: Node, x: View | Padded) -> Any:
    """Means of neighbours at every pixel: a convolution of equal weights.  At steps of 1 ceil_mode changes nothing."""
    size, steps = node.integers("kernel_shape", []), node.integers("strides", [1, 1])
    if len(size) != 2 or len(steps) != 2 or min(*size, *steps) < 1:
        raise InvalidInput(f"{node.name}: kernel_shape {size} and strides {steps} are not two sizes each.")
    c.builder.room(max(size), MAX_KERNEL, "a kernel")
    if max(steps) > 1 or set(node.integers("dilations", [1])) != {1}:
        c.builder.refuse(*IMPOSSIBLE["avg_pool2d"])
    top, left, bottom, right = _pads(c, node, [n - 1 for n in size])
    if any((top, left, bottom, right)) and not node.integer("count_include_pad", 0):
        c.builder.refuse("at the border it divides by fewer pixels", "use count_include_pad=True and retrain")
    if (top, left) != (bottom, right):
        c.builder.refuse(f"padding {[top, left, bottom, right]} is not the same on both sides", "pad by (k - 1) / 2")
    width = c.builder.channels(x.inner if isinstance(x, Padded) else x)
    kernel = torch.full((width, 1, *size), 1.0 / (size[0] * size[1]), dtype=torch.float64)
    return torch_convolution.conv2d(c.builder, x, kernel, None, 1, (top, left), 1, width)


@onnx_word("ConvTranspose")
def conv_transpose(c: Context, node: Node, x: View, weight: Value, bias: Value | None = None) -> Any:
    kernel = _kernel(c, node, weight)
    dilations, extra = node.integers("dilations", [1, 1]), node.integers("output_padding", [0, 0])
    spread = torch_convolution.dilate(kernel, (dilations[0], dilations[1]))
    steps, group = node.integers("strides", [1, 1]), node.integer("group", 1)
    if steps[0] != steps[1]:
        c.builder.refuse(f"stride {tuple(steps)} differs in height and width", "use square kernels")
    c.builder.room(max(steps), MAX_SCALE, "an enlargement")
    totals = [n - s + e for n, s, e in zip(spread.shape[2:], steps, extra, strict=True)]
    if "output_shape" in node.attributes:
        node = _sized_by_output(c, node, x, steps)
    top, left, bottom, right = _pads(c, node, totals)
    offset = None if bias is None else c.tensor(bias, "bias")
    more = extra[0], extra[1]
    return torch_convolution.transpose_conv(
        c.builder, x, spread, offset, steps[0], (top, left), (bottom, right), more, group
    )


def _sized_by_output(c: Context, node: Node, x: View, steps: list[int]) -> Node:
    """output_shape overrides the padding; it is the same as SAME where it is stride times the input."""
    size = [n * s for n, s in zip(c.frame.shape(x)[2:], steps, strict=True)]
    said = node.integers("output_shape", [])
    if said[-2:] != size:
        wanted = " x ".join(map(str, size))
        c.builder.refuse(f"output_shape {said} is not {wanted}", "leave it out and give pads and output_padding")
    kind = node.text("auto_pad", "NOTSET")
    kind = kind if kind == "SAME_UPPER" else "SAME_LOWER"
    return replace(node, attributes={**node.attributes, "auto_pad": kind})
