"""One word for each TFLite operator that is read, in terms of the words for torch.

A word is a function (context, options, operands) -> value.  An operand is a `View`, whose axes are (N, C, H, W), a
NumPy array in TFLite's order, channels last, or None if it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from memsr_compiler.trace.builder import MAX_CHANNELS, MAX_KERNEL, MAX_SCALE, Builder, Padded
from memsr_compiler.trace.torch_ops import activation, convolution, pointwise, shape
from memsr_compiler.trace.views import View

Options: TypeAlias = Mapping[str, Any]
Word: TypeAlias = Callable[..., Any]
TFLITE_WORDS: dict[str, Word] = {}

_SAME, _VALID = 0, 1  # the schema's Padding
_NONE, _RELU, _RELU_N1_TO_1, _RELU6 = range(4)  # the schema's ActivationFunctionType


@dataclass(frozen=True)
class Context:
    """Place of a word: the graph that grows, and the size of the image as the file has it, None where it is free."""

    builder: Builder
    height: int | None
    width: int | None

    def require_view(self, value: object) -> View:
        if not isinstance(value, View):
            self.builder.refuse("it computes with constants alone", "fold them first (export the network again)")
        return value

    def require_padded(self, value: object) -> View | Padded:
        return value if isinstance(value, Padded) else self.require_view(value)

    def require_constant(self, value: object, what: str) -> Tensor:
        if not isinstance(value, np.ndarray):
            self.builder.refuse(f"its {what} depends on the image, or is left out", "make it a constant")
        return torch.from_numpy(value.astype(np.float64, copy=False))

    def activate(self, x: View, options: Options) -> View:
        """The result of an operator after the activation that is part of it."""
        kind = options.get("FusedActivationFunction", _NONE)
        self.builder.leaf = False
        if kind == _NONE:
            return x
        if kind == _RELU:
            return activation.relu(self.builder, x)
        if kind == _RELU6:
            return activation.relu6(self.builder, x)
        if kind == _RELU_N1_TO_1:
            return activation.clamp(self.builder, x, -1.0, 1.0)
        self.builder.refuse(f"activation {kind} is not read", "use ReLU and retrain")


def tflite_word(name: str) -> Callable[[Word], Word]:
    def attach(function: Word) -> Word:
        TFLITE_WORDS[name] = function
        return function

    return attach


# -- convolutions ----------------------------------------------------------------------------------------------


@tflite_word("CONV_2D")
def conv_2d(c: Context, options: Options, x: Any, kernel: Any, bias: Any = None) -> View:
    """Kernels are (O, h, w, I); of fewer input channels than there are, it is a convolution in groups."""
    view, weight = c.require_padded(x), c.require_constant(kernel, "kernel")
    if weight.dim() != 4 or not weight.numel():
        c.builder.refuse(f"its kernel has the shape {tuple(weight.shape)}", "use 2-d convolutions")
    channels = c.builder.channels(view.inner if isinstance(view, Padded) else view)
    groups = channels // weight.shape[3] if channels % weight.shape[3] == 0 else 1
    return _convolve(c, options, view, weight.permute(0, 3, 1, 2), bias, groups)


@tflite_word("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(c: Context, options: Options, x: Any, kernel: Any, bias: Any = None) -> View:
    """Kernels are (1, h, w, channels of the result)."""
    view, weight = c.require_padded(x), c.require_constant(kernel, "kernel")
    if weight.dim() != 4 or len(weight) != 1 or not weight.numel():
        c.builder.refuse(f"its kernel has the shape {tuple(weight.shape)}", "use 2-d convolutions")
    channels = c.builder.channels(view.inner if isinstance(view, Padded) else view)
    return _convolve(c, options, view, weight.permute(3, 0, 1, 2), bias, channels)


def _convolve(c: Context, options: Options, x: View | Padded, weight: Tensor, bias: Any, groups: int) -> View:
    dilations = (options.get("DilationHFactor", 1), options.get("DilationWFactor", 1))
    strides = (options.get("StrideH", 1), options.get("StrideW", 1))
    if min(*dilations, *strides) < 1:
        c.builder.refuse(f"strides {strides}, dilations {dilations}", "export or download it again")
    extents = [(n - 1) * d + 1 for n, d in zip(weight.shape[2:], dilations, strict=True)]
    c.builder.room(max(extents), MAX_KERNEL, "a kernel")
    if options.get("Padding", _SAME) not in (_SAME, _VALID):
        c.builder.refuse(f"padding {options['Padding']} is not read", "export or download it again")
    padding = "valid" if options.get("Padding", _SAME) == _VALID else "same"
    offset = None if bias is None else c.require_constant(bias, "bias").reshape(-1)
    y = convolution.conv2d(c.builder, x, weight, offset, strides, padding, dilations, groups)
    return c.activate(y, options)


# -- one pixel -------------------------------------------------------------------------------------------------


def _pair(c: Context, x: Any, y: Any) -> tuple[Any, Any]:
    """Two operands, the constant among them as (..., C, 1, 1); one channel is repeated for each of a constant's."""
    if not any(isinstance(v, View) for v in (x, y)):
        c.require_view(None)
    pair = [_channels_first(c, v) for v in (x, y)]
    views = [v for v in pair if isinstance(v, View)]
    constants = [v for v in pair if isinstance(v, Tensor) and v.numel() > 1]
    if len(constants) == 1 and c.builder.channels(views[0]) == 1 and constants[0].dim() == 3:
        width = len(constants[0])
        c.builder.room(width, MAX_CHANNELS, "a number of channels")
        pair = [shape.select(c.builder, v, [0] * width) if isinstance(v, View) else v for v in pair]
    return pair[0], pair[1]


def _channels_first(c: Context, value: Any) -> Any:
    """A constant (C,), (1, C), ... as (C, 1, 1); one that differs from pixel to pixel in torch's order."""
    if isinstance(value, View):
        return value
    constant = c.require_constant(value, "operand")
    if constant.dim() > 4:
        c.builder.refuse(
            f"a constant of {constant.dim()} axes makes as many of the 4 of a feature map", "give it the shape (C,)"
        )
    if constant.dim() == 4:
        c.builder.require_one_image(len(constant))
    if constant.numel() == 1:
        return constant.reshape(1)
    if constant.dim() and constant.numel() == constant.shape[-1]:
        return constant.reshape(-1, 1, 1)
    return constant.movedim(-1, -3) if constant.dim() >= 3 else constant


@tflite_word("ADD")
def add(c: Context, options: Options, x: Any, y: Any) -> View:
    x, y = _pair(c, x, y)
    return c.activate(pointwise.add(c.builder, x, y), options)


@tflite_word("SUB")
def sub(c: Context, options: Options, x: Any, y: Any) -> View:
    x, y = _pair(c, x, y)
    return c.activate(pointwise.sub(c.builder, x, y), options)


@tflite_word("MUL")
def mul(c: Context, options: Options, x: Any, y: Any) -> View:
    x, y = _pair(c, x, y)
    return c.activate(pointwise.mul(c.builder, x, y), options)


@tflite_word("DIV")
def div(c: Context, options: Options, x: Any, y: Any) -> View:
    x, y = _pair(c, x, y)
    if isinstance(y, Tensor) and not bool(y.all()):
        c.builder.refuse("it divides by zero", "export or download it again")
    return c.activate(pointwise.div(c.builder, x, y), options)


@tflite_word("NEG")
def neg(c: Context, options: Options, x: Any) -> View:
    return pointwise.neg(c.builder, c.require_view(x))


@tflite_word("RELU")
def relu(c: Context, options: Options, x: Any) -> View:
    return activation.relu(c.builder, c.require_view(x))


@tflite_word("RELU6")
def relu6(c: Context, options: Options, x: Any) -> View:
    return activation.relu6(c.builder, c.require_view(x))


@tflite_word("RELU_N1_TO_1")
def relu_n1_to_1(c: Context, options: Options, x: Any) -> View:
    return activation.clamp(c.builder, c.require_view(x), -1.0, 1.0)


@tflite_word("ABS")
def absolute(c: Context, options: Options, x: Any) -> View:
    return activation.absolute(c.builder, c.require_view(x))


@tflite_word("LEAKY_RELU")
def leaky_relu(c: Context, options: Options, x: Any) -> View:
    slope = float(options.get("Alpha", 0.0))
    if not math.isfinite(slope):
        c.builder.refuse(f"its slope is {slope}", "export or download it again")
    return activation.leaky_relu(c.builder, c.require_view(x), slope)


@tflite_word("PRELU")
def prelu(c: Context, options: Options, x: Any, slope: Any) -> View:
    view = c.require_view(x)
    slopes = c.builder.per_channel(_channels_first(c, slope), view)
    if slopes is None:
        c.builder.refuse("its slope differs from pixel to pixel", "use one slope for each channel")
    return activation.prelu(c.builder, view, slopes)


@tflite_word("MAXIMUM")
def maximum(c: Context, options: Options, x: Any, y: Any) -> View:
    return activation.maximum(c.builder, *_pair(c, x, y))


@tflite_word("MINIMUM")
def minimum(c: Context, options: Options, x: Any, y: Any) -> View:
    return activation.minimum(c.builder, *_pair(c, x, y))


# -- channels and resolution -----------------------------------------------------------------------------------


@tflite_word("CONCATENATION")
def concatenation(c: Context, options: Options, *parts: Any) -> View:
    views = [c.require_view(part) for part in parts]
    if options.get("Axis", 0) not in (3, -1) or not views:
        c.builder.refuse(f"it concatenates along axis {options.get('Axis', 0)}", "concatenate channels (axis 3)")
    if options.get("FusedActivationFunction", _NONE) != _NONE:  # LiteRT: one kernel applies it, another passes it over
        c.builder.refuse("an activation is part of it", "let the activation be an operator of its own")
    return shape.cat(c.builder, views, 1)


def _read_block(c: Context, options: Options) -> int:
    factor = int(options.get("BlockSize", 0))
    if factor < 1:
        c.builder.refuse(f"its blocks are of {factor} pixels", "export or download it again")
    c.builder.room(factor, MAX_SCALE, "an enlargement")
    return factor


@tflite_word("DEPTH_TO_SPACE")
def depth_to_space(c: Context, options: Options, x: Any) -> View:
    """The channel comes after the place in the block; in torch's pixel shuffle it comes first."""
    view, factor = c.require_view(x), _read_block(c, options)
    if c.builder.channels(view) % factor**2 == 0:
        share = c.builder.channels(view) // factor**2
        index = [place * share + i for i in range(share) for place in range(factor**2)]
        view = shape.select(c.builder, view, index)
    return c.builder.pixel_shuffle(view, factor)


@tflite_word("SPACE_TO_DEPTH")
def space_to_depth(c: Context, options: Options, x: Any) -> View:
    view, factor = c.require_view(x), _read_block(c, options)
    share = c.builder.channels(view)
    y = c.builder.pixel_unshuffle(view, factor)
    return shape.select(c.builder, y, [i * factor**2 + place for place in range(factor**2) for i in range(share)])


@tflite_word("RESIZE_NEAREST_NEIGHBOR")
def resize_nearest(c: Context, options: Options, x: Any, size: Any) -> View:
    """By a whole factor every pixel is repeated, with half_pixel_centers or without."""
    view, sizes = c.require_view(x), c.require_constant(size, "size").reshape(-1).tolist()
    if c.height is None or c.width is None or len(sizes) != 2:
        c.builder.refuse("it resizes to a fixed size", "export the network at a fixed size of the image")
    scale = c.builder.scale(view)
    factors = [n / (side * scale) for n, side in zip(sizes, (c.height, c.width), strict=True)]
    if options.get("AlignCorners") or factors[0] != factors[1] or factors[0] != int(factors[0]) or factors[0] < 1:
        c.builder.refuse(f"it resizes by {factors}", "use one whole factor for height and width, no align_corners")
    c.builder.room(int(factors[0]), MAX_SCALE, "an enlargement")
    return c.builder.enlarge(view, int(factors[0]))


@tflite_word("PAD")
def pad(c: Context, options: Options, x: Any, sizes: Any) -> Any:
    """Zeros around the image; sizes are (before, behind) for each axis."""
    view, pairs = c.require_view(x), c.require_constant(sizes, "padding")
    if pairs.shape != (4, 2):
        c.builder.refuse(f"its padding has the shape {tuple(pairs.shape)}", "export or download it again")
    both = pairs.long().tolist()
    return shape.pad(c.builder, view, [*both[2], *both[1], *both[3], *both[0]])


@tflite_word("DEQUANTIZE")
def dequantize(c: Context, options: Options, x: Any) -> Any:
    """Weights in float16, widened; integers have been refused."""
    return x
