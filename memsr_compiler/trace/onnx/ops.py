"""One word for each ONNX operator, in terms of the words of `vocabulary` where the two agree.

A word is a function (context, node, operands) -> value or values. An operand is a `View`, a `Resized`, a
NumPy array if it is known, or None if it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import InvalidInput
from memsr_compiler.trace import torch_ops as torch_words
from memsr_compiler.trace.builder import Builder, Resized
from memsr_compiler.trace.onnx.constants import listed, parted
from memsr_compiler.trace.onnx.file import Array, Node
from memsr_compiler.trace.onnx.frame import Frame
from memsr_compiler.trace.views import Axes, Size, Unreadable, View

Value = View | Resized | Array
Word = Callable[..., Any]
ONNX_WORDS: dict[str, Word] = {}

MAX_SCALE = 64
"""The largest enlargement that is read."""
MAX_KERNEL = 255
"""The largest kernel, dilation included, that is read."""
MAX_CHANNELS = 2**16
"""The most channels of a feature map, at the input's resolution, that are read."""

VIEWS = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Shape", "Identity", "Cast", "Dropout")
"""Operators that take a tensor as it lies, whatever its axes are."""

COMPOUND = (
    "Sub", "Sum", "Mean", "Max", "Min", "HardSigmoid", "DepthToSpace", "SpaceToDepth", "Resize", "Split",
    *VIEWS,
)  # fmt: skip
"""Operators that become several ops, none of which deserves the node's name alone."""


# -- what cannot be plain --------------------------------------------------------------------------

_QUANTISED = ("the network is quantised", "convert the floating-point network, and quantise the plain one")
_JUMPS = ("it jumps, and a plain network is continuous", "replace it by a piecewise linear one and retrain")
_DECIDES = (
    "it decides by the values of pixels, and a plain network does the same for every image",
    "remove the decision and retrain",
)
_CURVED, _GLOBAL = torch_words.IMPOSSIBLE["gelu"], torch_words.IMPOSSIBLE["mean"]
_TORCH_NAMES = {
    "Sigmoid": "sigmoid", "Softmax": "softmax", "LogSoftmax": "log_softmax", "HardSwish": "hardswish",
    "GlobalAveragePool": "adaptive_avg_pool2d", "GlobalMaxPool": "adaptive_max_pool2d", "Einsum": "einsum",
    "LayerNormalization": "layer_norm", "GroupNormalization": "group_norm",
    "InstanceNormalization": "instance_norm", "LpNormalization": "normalize",
    "MeanVarianceNormalization": "normalize", "MatMul": "matmul", "Gemm": "matmul",
    "MaxPool": "max_pool2d", "AveragePool": "avg_pool2d", "LpPool": "avg_pool2d", "GridSample": "grid_sample",
    "DeformConv": "deform_conv2d",
}  # fmt: skip
REFUSED: dict[str, tuple[str, str]] = {
    **{name: torch_words.IMPOSSIBLE[word] for name, word in _TORCH_NAMES.items()},
    **dict.fromkeys(
        ("Gelu", "Tanh", "Softplus", "Softsign", "Mish", "Elu", "Selu", "Celu", "Exp", "Log"),
        _CURVED,
    ),
    **dict.fromkeys(("Sqrt", "Sin", "Cos", "Erf", "Pow", "Reciprocal", "LRN"), _CURVED),
    **dict.fromkeys(("Sign", "Round", "Floor", "Ceil", "ThresholdedRelu", "Shrink", "Mod"), _JUMPS),
    **dict.fromkeys(
        ("Where", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not", "And"),
        _DECIDES,
    ),
    **dict.fromkeys(
        ("ArgMax", "ArgMin", "TopK", "NonZero", "GatherND", "GatherElements", "ScatterND"),
        _DECIDES,
    ),
    **dict.fromkeys(
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd"),
        _GLOBAL,
    ),
    **dict.fromkeys(("ReduceSumSquare", "ReduceLogSumExp", "CumSum"), _GLOBAL),
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"),
        _QUANTISED,
    ),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "QLinearMatMul"), _QUANTISED),
}  # fmt: skip


# -- operands --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Context:
    builder: Builder
    frame: Frame
    opset: int

    def tensor(self, value: Value | None, what: str) -> Tensor:
        """A known operand in float64.  Refused if it depends on the image."""
        if not isinstance(value, np.ndarray):
            self.builder.refuse(f"its {what} depends on the image", "make it a constant")
        if value.dtype == object:
            self.builder.refuse(f"its {what} depends on the size of the image", "make it a constant")
        if not bool(np.isfinite(value).all()):
            raise InvalidInput(
                f"{self.builder.where}: {self.builder.last}: its {what} has NaN or infinite values; "
                "the file is damaged or training diverged."
            )
        return torch.from_numpy(value.astype(np.float64))

    def integers(self, value: Value | None, what: str) -> list[int]:
        return [int(n) for n in self.tensor(value, what).reshape(-1).tolist()]

    def axis(self, x: View, axis: int) -> int:
        rank = len(x.axes)
        if not -rank <= axis < rank:
            self.builder.refuse(f"axis {axis} of a tensor with {rank}", "export it again")
        return axis % rank

    def channels(self, x: View, axis: int, verb: str) -> None:
        """Refuse to work along any axis but the channels."""
        if self.axis(x, axis) != 1 or len(x.axes) != 4:
            self.builder.refuse(f"it {verb} axis {axis} of {len(x.axes)}", "use the channels, axis 1 of 4")

    def room(self, count: int, limit: int, what: str) -> None:
        if count > limit:
            self.builder.refuse(
                f"{what} of {count} is more than {limit}", "this limit guards memory against damaged files"
            )


def onnx_word(*names: str) -> Callable[[Word], Word]:
    def attach(function: Word) -> Word:
        ONNX_WORDS.update(dict.fromkeys(names, function))
        return function

    return attach


def _operand(c: Context, value: Value | None) -> Any:
    return value if isinstance(value, (View, Resized)) else c.tensor(value, "constant")


# -- convolutions ----------------------------------------------------------------------------------


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
        c.room((n - 1) * d + 1, MAX_KERNEL, "a kernel")
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
        c.builder.unknown(f"auto_pad {kind} is not read; write the padding out")
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
    return torch_words.conv2d(c.builder, x, kernel, offset, steps, (top, left), dilations, group)


@onnx_word("ConvTranspose")
def conv_transpose(c: Context, node: Node, x: View, weight: Value, bias: Value | None = None) -> Any:
    """Zero taps are put before or after the kernel so that torch's symmetric padding says the same."""
    kernel = _kernel(c, node, weight)
    dilations, extra = node.integers("dilations", [1, 1]), node.integers("output_padding", [0, 0])
    height, width = kernel.shape[2:]
    spread = kernel.new_zeros(*kernel.shape[:2], (height - 1) * dilations[0] + 1, (width - 1) * dilations[1] + 1)
    spread[:, :, :: dilations[0], :: dilations[1]] = kernel
    steps, group = node.integers("strides", [1, 1]), node.integer("group", 1)
    c.room(max(steps), MAX_SCALE, "an enlargement")
    totals = [n - s + e for n, s, e in zip(spread.shape[2:], steps, extra, strict=True)]
    if "output_shape" in node.attributes:
        node = _sized_by_output(c, node, x, steps)
    pads = _pads(c, node, totals)
    inner: list[int] = []
    outer: list[int] = []
    borders: list[int] = []
    for n, step, first, last, added in zip(spread.shape[2:], steps, pads[:2], pads[2:], extra, strict=True):
        if n - first - last + added != step:
            c.builder.refuse(
                f"kernel {n}, stride {step}, padding {first} and {last}, output_padding {added} "
                f"do not enlarge by exactly {step}",
                "choose them so that kernel - padding + output_padding = stride",
            )
        before = max(0, n - step - 2 * first)
        inner.append(before)
        borders.append(first + before)
        outer.append(max(0, 2 * borders[-1] + 1 - n - before))
    c.room(max(n + i + o for n, i, o in zip(spread.shape[2:], inner, outer, strict=True)), MAX_KERNEL, "a kernel")
    spread = torch.nn.functional.pad(spread, (inner[1], outer[1], inner[0], outer[0]))
    more = [s + 2 * p - n for n, s, p in zip(spread.shape[2:], steps, borders, strict=True)]
    offset = None if bias is None else c.tensor(bias, "bias")
    return torch_words.conv_transpose2d(c.builder, x, spread, offset, steps, borders, more, group)


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


# -- channel-wise linear ---------------------------------------------------------------------------


@onnx_word("BatchNormalization")
def batch_norm(c: Context, node: Node, x: View, scale: Value, shift: Value, mean: Value, var: Value) -> Any:
    parts = [c.tensor(v, what) for v, what in ((mean, "mean"), (var, "variance"), (scale, "scale"), (shift, "shift"))]
    eps, training = node.number("epsilon", 1e-5), bool(node.integer("training_mode", 0))
    if bool((parts[1] + eps <= 0).any()):
        raise InvalidInput(f"{node.name}: {node.op}: its variance is negative. Export or download it again.")
    mean_, var_, gain, bias = parts
    return torch_words.batch_norm(c.builder, x, mean_, var_, gain, bias, training, 0.0, eps)


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
    return torch_words.linear(c.builder, _broadcast(c, x, y), 1.0, _broadcast(c, y, x), q)


def _broadcast(c: Context, x: Any, y: Any) -> Any:
    if isinstance(x, View) and isinstance(y, Tensor) and 3 <= y.dim() <= 4 and c.builder.channels(x) == 1:
        width = y.shape[-3]
        if width > 1 and y.numel() == width:
            return torch_words.select(c.builder, x, [0] * width)
    return x


@onnx_word("Add", "Sum")
def add(c: Context, node: Node, *operands: Value) -> Any:
    return reduce(partial(_plus, c, 1.0), [_operand(c, v) for v in operands])


@onnx_word("Sub")
def sub(c: Context, node: Node, x: Value, y: Value) -> Any:
    return _plus(c, -1.0, _operand(c, x), _operand(c, y))


@onnx_word("Mean")
def mean(c: Context, node: Node, *operands: Value) -> Any:
    return torch_words.mul(c.builder, add(c, node, *operands), 1.0 / len(operands))


@onnx_word("Mul")
def mul(c: Context, node: Node, x: Value, y: Value) -> Any:
    left, right = _operand(c, x), _operand(c, y)
    return torch_words.mul(c.builder, _broadcast(c, left, right), _broadcast(c, right, left))


@onnx_word("Div")
def div(c: Context, node: Node, x: Value, y: Value) -> Any:
    left, right = _operand(c, x), _operand(c, y)
    if isinstance(right, Tensor) and not bool(right.all()):
        c.builder.refuse("it divides by zero", "export or download it again")
    return torch_words.div(c.builder, _broadcast(c, left, right), right)


@onnx_word("Neg")
def neg(c: Context, node: Node, x: View) -> Any:
    return torch_words.neg(c.builder, x)


@onnx_word("Concat")
def concat(c: Context, node: Node, *parts: Value) -> Any:
    views = [p for p in parts if isinstance(p, View)]
    if len(views) < len(parts):
        c.builder.refuse("a constant is concatenated to a feature map", "add its effect to the next layer's bias")
    c.channels(views[0], node.integer("axis", 1), "concatenates along")
    return torch_words.cat(c.builder, views, 1)


# -- selections and views --------------------------------------------------------------------------


@onnx_word("Split")
def split(c: Context, node: Node, x: View, sizes: Value | None = None) -> Any:
    c.channels(x, node.integer("axis", 0), "splits")
    if sizes is not None:
        sizes = np.array(c.integers(sizes, "sizes"))
    parts = parted(node, c.builder.channels(x), sizes)
    return torch_words.split(c.builder, x, parts, 1)


@onnx_word("Slice")
def take_slice(
    c: Context,
    node: Node,
    x: View,
    starts: Value,
    ends: Value,
    axes: Value | None = None,
    steps: Value | None = None,
) -> View:
    firsts, lasts = _numbers(starts), _numbers(ends)
    where = list(range(len(firsts))) if axes is None else c.integers(axes, "axes")
    pace = [1] * len(firsts) if steps is None else c.integers(steps, "steps")
    shape = c.frame.shape(x)
    channels = slice(None)
    for axis, first, last, step in zip([c.axis(x, a) for a in where], firsts, lasts, pace, strict=True):
        size = shape[axis]
        to_end = last == size or (isinstance(last, int) and last >= (size if isinstance(size, int) else 2**31 - 1))
        if first == 0 and to_end and step == 1:
            continue
        if axis != 1 or len(x.axes) != 4:
            c.builder.refuse(
                f"it takes part of axis {axis} of {len(x.axes)}",
                "a plain network keeps every pixel; crop outside the network",
            )
        channels = slice(first, last, step)
    if channels == slice(None):
        return x
    return torch_words.select(c.builder, x, range(c.builder.channels(x))[channels])


def _numbers(value: Value) -> list[Any]:
    if not isinstance(value, np.ndarray):
        raise Unreadable("a slice at a place that depends on the image")
    return listed(value)


@onnx_word("Gather")
def gather(c: Context, node: Node, x: View, index: Value) -> View:
    c.channels(x, node.integer("axis", 0), "selects along")
    numbers, width = c.integers(index, "index"), c.builder.channels(x)
    if any(not -width <= i < width for i in numbers):
        raise InvalidInput(f"{node.name}: {node.op}: an index is outside {width} channels.")
    chosen = torch_words.select(c.builder, x, [i % width for i in numbers])
    assert isinstance(index, np.ndarray), "c.integers saw to it"
    if index.ndim == 0:  # the channel axis is dropped
        return c.frame.moved(chosen, lambda axes: (axes[0], *axes[2:]))
    if index.ndim > 1:
        c.builder.refuse("its index has several axes", "select channels with a list")
    return chosen


@onnx_word("Reshape")
def reshape(c: Context, node: Node, x: View, shape: Value) -> View:
    target: list[int | Size] = _numbers(shape)
    if not node.integer("allowzero", 0):
        own = c.frame.shape(x) if 0 in target else []
        target = [own[i] if n == 0 else n for i, n in enumerate(target)]
    try:
        return c.frame.reshaped(x, target)
    except Unreadable as error:
        fixed = "at the size that the file fixes; export it with dynamic height and width"
        c.builder.refuse(str(error), "use a pixel shuffle" if c.frame.height is None else fixed)


@onnx_word("Flatten")
def flatten(c: Context, node: Node, x: View) -> View:
    at, rank = node.integer("axis", 1), len(x.axes)
    at += rank if at < 0 else 0

    def merged(axes: Axes) -> Axes:
        return (tuple(f for axis in axes[:at] for f in axis), tuple(f for axis in axes[at:] for f in axis))

    return c.frame.moved(x, merged)


@onnx_word("Transpose")
def transpose(c: Context, node: Node, x: View) -> View:
    order = node.integers("perm", list(range(len(x.axes)))[::-1])
    if sorted(order) != list(range(len(x.axes))):
        raise InvalidInput(f"{node.name}: perm {order} is no order of {len(x.axes)} axes.")
    return c.frame.moved(x, lambda axes: tuple(axes[i] for i in order))


@onnx_word("Unsqueeze")
def unsqueeze(c: Context, node: Node, x: View, axes: Value | None = None) -> View:
    where = node.integers("axes", []) if axes is None else c.integers(axes, "axes")
    rank = len(x.axes) + len(where)
    new = {a % rank for a in where}

    def widened(old: Axes) -> Axes:
        left = list(old)
        return tuple(() if i in new else left.pop(0) for i in range(rank))

    return c.frame.moved(x, widened)


@onnx_word("Squeeze")
def squeeze(c: Context, node: Node, x: View, axes: Value | None = None) -> View:
    given = node.integers("axes", []) if axes is None else c.integers(axes, "axes")
    shape = c.frame.shape(x)
    gone = {c.axis(x, a) for a in given} or {i for i, n in enumerate(shape) if n == 1}
    if any(shape[i] != 1 for i in gone):
        c.builder.refuse(f"it drops axes {sorted(gone)} of {'x'.join(map(str, shape))}", "drop axes of size 1 only")
    return c.frame.moved(x, lambda old: tuple(axis for i, axis in enumerate(old) if i not in gone))


@onnx_word("Shape")
def shape(c: Context, node: Node, x: View) -> Array:
    sizes = c.frame.shape(x)[node.integer("start", 0) : node.attributes.get("end")]
    array = np.empty(len(sizes), dtype=object)
    array[:] = sizes
    return array


@onnx_word("Expand")
def expand(c: Context, node: Node, x: View, target: Value) -> View:
    wanted, own = _numbers(target), c.frame.shape(x)
    wanted = [1] * (len(own) - len(wanted)) + wanted
    wide = [i for i, (n, size) in enumerate(zip(wanted, own, strict=True)) if n not in (1, size)]
    if not wide:
        return x
    if wide != [1] or own[1] != 1 or len(own) != 4:
        c.builder.refuse("it repeats the image itself", "repeat channels only")
    c.room(wanted[1], MAX_CHANNELS, "a number of channels")
    return torch_words.select(c.builder, x, [0] * wanted[1])


@onnx_word("Tile")
def tile(c: Context, node: Node, x: View, times: Value) -> Any:
    numbers = c.integers(times, "repeats")
    if len(numbers) == 4:
        c.room(numbers[1] * c.builder.channels(x), MAX_CHANNELS, "a number of channels")
    return torch_words.repeat(c.builder, x, numbers)


@onnx_word("Identity")
def identity(c: Context, node: Node, x: Value) -> Value:
    return x


@onnx_word("Cast")
def cast(c: Context, node: Node, x: Value) -> Value:
    if node.integer("to", 1) not in (1, 10, 11, 16):  # float32, float16, float64, bfloat16
        c.builder.refuse("it rounds feature maps to integers", "export the network in floating point to its end")
    return x


@onnx_word("Dropout")
def dropout(c: Context, node: Node, x: Value, ratio: Value | None = None, training: Value | None = None) -> Value:
    if training is not None and any(_numbers(training)):
        c.builder.refuse("dropout is active", "call model.eval() before exporting")
    return x


@onnx_word("Pad")
def pad(c: Context, node: Node, x: View, pads: Value, value: Value | None = None, axes: Value | None = None) -> Any:
    mode = node.text("mode", "constant")
    if mode != "constant" and any(_numbers(pads)):
        c.builder.refuse(*torch_words.IMPOSSIBLE["reflection_pad2d"])
    return torch_words.pad(c.builder, x, _numbers(pads), mode)


# -- piecewise linear ------------------------------------------------------------------------------


@onnx_word("Relu")
def relu(c: Context, node: Node, x: View) -> Any:
    return torch_words.relu(c.builder, x)


@onnx_word("LeakyRelu")
def leaky_relu(c: Context, node: Node, x: View) -> Any:
    return torch_words.leaky_relu(c.builder, x, node.number("alpha", 0.01))


@onnx_word("PRelu")
def prelu(c: Context, node: Node, x: View, slope: Value) -> Any:
    slopes = c.builder.per_channel(c.tensor(slope, "slope"), x)
    if slopes is None:
        c.builder.refuse("its slope differs from pixel to pixel", "use one slope for each channel")
    return torch_words.prelu(c.builder, x, slopes)


@onnx_word("Abs")
def absolute(c: Context, node: Node, x: View) -> Any:
    return torch_words.absolute(c.builder, x)


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
    return torch_words.clamp(c.builder, x, _bound(c, low, -math.inf), _bound(c, high, math.inf))


@onnx_word("HardSigmoid")
def hard_sigmoid(c: Context, node: Node, x: View) -> Any:
    line = c.builder.affine(x, node.number("alpha", 0.2), node.number("beta", 0.5))
    return torch_words.clamp(c.builder, line, 0.0, 1.0)


@onnx_word("Max", "Min")
def extreme(c: Context, node: Node, *operands: Value) -> Any:
    """Feature maps first: a constant bounds what they come to."""
    function = torch_words.maximum if node.op == "Max" else torch_words.minimum
    views = [v for v in operands if isinstance(v, View)]
    bounds = [_bound(c, v, math.nan) for v in operands if not isinstance(v, View)]
    return reduce(partial(function, c.builder), [*views, *bounds])


# -- resolution ------------------------------------------------------------------------------------


def _block(c: Context, node: Node) -> int:
    factor = node.integer("blocksize", 0)
    if factor < 1:
        raise InvalidInput(f"{node.name}: blocksize {factor} is not positive.")
    c.room(factor, MAX_SCALE, "an enlargement")
    return factor


@onnx_word("DepthToSpace")
def depth_to_space(c: Context, node: Node, x: View) -> View:
    """CRD is torch's pixel shuffle; DCR has the channel after the place in the block, not before."""
    factor = _block(c, node)
    if node.text("mode", "DCR") == "DCR" and not c.builder.channels(x) % factor**2:
        share = c.builder.channels(x) // factor**2
        x = torch_words.select(c.builder, x, [place * share + i for i in range(share) for place in range(factor**2)])
    return c.builder.pixel_shuffle(x, factor)


@onnx_word("SpaceToDepth")
def space_to_depth(c: Context, node: Node, x: View) -> View:
    """The channel comes after the place in the block."""
    factor, share = _block(c, node), c.builder.channels(x)
    y = c.builder.pixel_unshuffle(x, factor)
    return torch_words.select(c.builder, y, [i * factor**2 + place for place in range(factor**2) for i in range(share)])


def repeats(factor: int, coordinates: str, rounding: str) -> bool:
    """Whether ONNX's nearest-neighbour enlargement by a whole factor repeats every pixel `factor` times.

    Pixel factor * q + r of the result should come from pixel q.  `places` are the coordinates that ONNX
    computes for it, minus q; they do not depend on q, nor on the size of the image, in the modes known here.
    """
    middles = [Fraction(2 * r + 1, 2 * factor) for r in range(factor)]
    centred = [m - Fraction(1, 2) for m in middles]  # pytorch's variant differs for results of one pixel only
    places = {
        "asymmetric": [Fraction(r, factor) for r in range(factor)],
        "tf_half_pixel_for_nn": middles,
        **dict.fromkeys(("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"), centred),
    }
    half = Fraction(1, 2)
    rounded: dict[str, Callable[[Fraction], int]] = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda place: math.ceil(place - half),
        "round_prefer_ceil": lambda place: math.floor(place + half),
    }
    if coordinates not in places or rounding not in rounded:
        return False
    return all(rounded[rounding](place) == 0 for place in places[coordinates])


@onnx_word("Resize")
def resize(
    c: Context,
    node: Node,
    x: View,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
) -> Any:
    factor, b = _enlargement(c, node, x, scales, sizes), c.builder
    mode, coordinates = (
        node.text("mode", "nearest"),
        node.text("coordinate_transformation_mode", "half_pixel"),
    )
    if mode == "nearest":
        rounding = node.text("nearest_mode", "round_prefer_floor")
        if not repeats(factor, coordinates, rounding):
            b.refuse(
                f"nearest enlargement by {factor} with {coordinates} and {rounding} does not repeat pixels evenly",
                "use asymmetric with floor, or half_pixel with round_prefer_floor",
            )
        return b.enlarge(x, factor)
    if mode not in ("linear", "cubic"):
        b.unknown(f"mode {mode} is not read; use nearest")
    if coordinates not in ("half_pixel", "pytorch_half_pixel"):
        b.refuse(f"{mode} enlargement with {coordinates} is not kept", "use half_pixel (align_corners=False)")
    if mode == "cubic" and abs(node.number("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        b.refuse(
            f"cubic_coeff_a {node.number('cubic_coeff_a', -0.75):.4g} is not kept",
            "use -0.75, as PyTorch does",
        )
    if node.integer("exclude_outside", 0) or node.integer("antialias", 0):
        b.refuse("exclude_outside and antialias are not kept", "leave them out, or add the enlarged image outside")
    if factor == 1:
        return x
    return torch_words.interpolate(b, x, None, factor, "bilinear" if mode == "linear" else "bicubic")


def _enlargement(c: Context, node: Node, x: View, scales: Value | None, sizes: Value | None) -> int:
    own = c.frame.shape(x)
    axes = [c.axis(x, a) for a in node.integers("axes", list(range(len(own))))]
    factors: list[Any] = [1] * len(own)
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        c.builder.unknown("keep_aspect_ratio_policy is not read; use stretch")
    if isinstance(sizes, np.ndarray) and sizes.size:
        for axis, new in zip(axes, listed(sizes), strict=True):
            factors[axis] = _ratio(new, own[axis])
    elif sizes is None or isinstance(sizes, np.ndarray):
        for axis, new in zip(axes, c.tensor(scales, "scale").tolist(), strict=True):
            factors[axis] = new
    else:
        c.builder.refuse("its size depends on the image", "give it a whole scale")
    if None in factors:
        c.builder.refuse("it resizes to a fixed size", "give it a scale, or export the network at a fixed size")
    first, second, height, width = factors
    if first != 1 or second != 1 or height != width or height != int(height) or height < 1:
        c.builder.refuse(
            f"it resizes by {[float(f) for f in factors]}",
            "use one whole factor for height and width, and 1 for the others",
        )
    c.room(int(height), MAX_SCALE, "an enlargement")
    return int(height)


def _ratio(new: int | Size, old: int | Size) -> Fraction | None:
    """new / old, if that does not depend on the size of the image."""
    if isinstance(new, Size) and isinstance(old, Size):
        return new.factor / old.factor if new.symbol == old.symbol else None
    if isinstance(new, Size) or isinstance(old, Size):
        return None
    return Fraction(new, old)
