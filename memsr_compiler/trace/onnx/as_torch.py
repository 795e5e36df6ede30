"""ONNX files as modules of torch: networks that have no graph here, so that they run and can be approximated.

The exact reader (`reader.py`) is for all that has a plain form.  This is for what is beyond it, gates and smooth
activations: every node is run as torch runs it, and torch.fx sees what that is.
"""

from __future__ import annotations

import functools
import logging
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.fx.bounded import Bounded, TooMany
from memsr_compiler.trace.onnx.constants import fold
from memsr_compiler.trace.onnx.file import Network, Node, is_in_training, read_network
from memsr_compiler.trace.onnx.folds.registry import FOLDS
from memsr_compiler.trace.onnx.folds.types import HOLD_SIZES
from memsr_compiler.trace.onnx.reader import count_channels, tell_rounded
from memsr_compiler.trace.trace import RefusedModule
from memsr_compiler.trace.views import Unreadable

log = logging.getLogger(__name__)

Operand = Any
"""A tensor; a list, where the file computes with sizes or holds whole numbers; a number of the file; None: left out."""

_MANY = 2**31 - 1  # an end that is none
_SMALL = (32, 32)  # an image for the ranks of tensors
_DEEPEST = 32  # modules inside one another: a name with thousands of slashes is no path


def load_onnx_module(path: Path, refusal: UnsupportedModel) -> OnnxModule:
    """The network in an ONNX file as a module of torch.

    Raises `refusal` where an operator is not known here, where it makes gigabytes of a small image, or several images
    of one; another where a Resize is of channels.
    """
    network = read_network(path)
    if not all(_is_known(node, network.opset) for node in network.nodes):
        raise refusal
    module = OnnxModule(network, refusal).float().eval()
    try:
        with torch.no_grad(), Bounded():
            result = module(torch.zeros(1, network.shape[1] or count_channels(network), *_SMALL))
        if isinstance(result, Tensor) and result.shape[:1] != (1,):
            raise refusal
    except TooMany:
        raise refusal from None
    except UnsupportedModel:
        raise
    except Exception as error:  # whatever torch raises: who needs a rank will miss it
        log.info("it does not run on an image of %dx%d: %s", *_SMALL, error)
    tell_rounded(network)
    return module


def _is_known(node: Node, opset: int) -> bool:
    """Whether an operator is run here; Softmax was that of all axes from one on, before opset 13."""
    named = node.op in OPERATORS or node.op in ("Constant", "Shape")
    return named and node.domain in ("", "ai.onnx") and (node.op != "Softmax" or opset >= 13)


class OnnxModule(RefusedModule):
    """A network from an ONNX file, (N, C, H, W) -> (N, C', s H, s W); its modules are the file's nodes."""

    def __init__(self, network: Network, refusal: UnsupportedModel) -> None:
        super().__init__(refusal)
        self.channels = network.shape[1]
        self.ends = network.input, network.output
        self.steps: list[_Step] = []
        known = dict(network.constants)
        for node in network.nodes:
            if all(name in known for name in node.inputs if name) and node.op in FOLDS:
                known.update(zip(node.outputs, _fold(node, known), strict=False))
                continue
            step = _Step(node, {i: known[name] for i, name in enumerate(node.inputs) if name in known})
            _add_module(self, _path(node.name), step)
            self.steps.append(step)

    def forward(self, x: Tensor) -> Tensor:
        """Run node by node."""
        values: dict[str, Operand] = {self.ends[0]: x}
        for step in self.steps:
            result = step(*(values.get(name) for name in step.node.inputs))
            results = result if isinstance(result, tuple) else (result,)
            values.update(zip(step.node.outputs, results, strict=False))
        output: Tensor = values[self.ends[1]]
        return output


def _fold(node: Node, known: Mapping[str, Any]) -> tuple[Any, ...]:
    """Results of a node that are the same for every image, as the exact reader computes them: in the file's own types.

    Raises UnsupportedModel.
    """
    try:
        return fold(node, [known.get(name) for name in node.inputs])
    except Unreadable as error:
        raise UnsupportedModel(f"{_locate(node)}: {error}; simplify the file (onnxsim)") from None


def _locate(node: Node) -> str:
    """The node as messages name it."""
    return f"{node.name.strip('/').replace('/', '.')}: {node.op}"


class _Step(nn.Module):
    """A node, with the operands that the file holds: tensors are its weights."""

    def __init__(self, node: Node, constants: Mapping[int, Any]) -> None:
        super().__init__()
        self.node = node
        self.numbers: dict[int, Operand] = {}
        self.rank: int | None = None
        self.missing = 0
        self.ranks = [array.ndim for array in constants.values() if node.op in _BROADCASTS]
        for i, array in constants.items():
            if array.dtype.kind != "f":
                if array.ndim > 1 and array.size > 1:
                    raise UnsupportedModel(
                        f"{_locate(node)}: a table of whole numbers is not read beside a gate; simplify it (onnxsim)"
                    )
                self.numbers[i] = array.reshape(-1).tolist()
            elif array.size == 1 and node.op not in _KEPT:
                self.numbers[i] = float(array.reshape(()))
            else:
                self.register_buffer(f"operand{i}", torch.from_numpy(array.astype(np.float64)))

    def forward(self, *operands: Operand) -> Operand:
        """Run the node; what the file holds of its operands is left out."""
        held = [getattr(self, f"operand{i}", self.numbers.get(i, value)) for i, value in enumerate(operands)]
        if self.node.op == "Shape":
            return self._shape(held[0])
        if self.node.op in SIZES and held and all(isinstance(v, list) for v in held if v is not None):
            return SIZES[self.node.op](self.node, *held)
        single = (_only(v) if isinstance(v, list) and self.node.op in _ARITHMETIC else v for v in held)
        return self._widen(OPERATORS[self.node.op](self.node, *single))

    def _widen(self, result: Operand) -> Operand:
        """A single number of several axes (1, 1, 1, 1) gives its result as many; without them it is no tensor here."""
        if isinstance(result, Tensor):  # of torch.fx it has the rank that it had in the run before
            self.missing = max([0, *(rank - result.dim() for rank in self.ranks)])
        for _ in range(self.missing):
            result = result.unsqueeze(0)
        return result

    def _shape(self, x: Tensor) -> list[Any]:
        """Sizes of all axes; how many there are torch.fx does not see: as many as in the run before it."""
        if isinstance(x, Tensor):
            self.rank = x.dim()
        if self.rank is None:
            raise ValueError("the shape of what was never computed")
        return [x.size(i) for i in range(self.rank)][self.node.integer("start", 0) : self.node.attributes.get("end")]


def _add_module(root: nn.Module, path: Sequence[str], step: nn.Module) -> None:
    """Put a module where its node's name says, or beside that where it is taken."""
    for name in path[:-1]:
        while name not in root._modules and hasattr(root, name):
            name += "_"
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    name = path[-1]
    while hasattr(root, name):
        name += "_"
    root.add_module(name, step)


def _path(name: str) -> list[str]:
    """'/body/conv1/Conv' -> body, conv1, Conv; none of them a name that a module has itself."""
    parts = [re.sub(r"\W", "_", part) for part in re.split(r"[/.]", name) if part][-_DEEPEST:]
    return [f"{part}_" if hasattr(OnnxModule, part) or part in _OWN else part for part in parts] or ["node"]


_OWN = ("channels", "ends", "steps", "node", "numbers", "rank", "ranks", "missing", "refusal", "training")


# -- sizes: lists, also where ONNX has a single number -----------------------------------------------------------------


class _Reals(list[Any]):
    """Numbers computed of sizes that are no whole numbers any more."""


def _only(values: list[Any]) -> Any:
    """The number in a list.  Raises ValueError where it has more."""
    (value,) = values
    return value


def _pair(function: Callable[[Any, Any], Any], of_reals: Callable[[Any, Any], Any]) -> Callable[..., list[Any]]:
    def each(node: Node, a: list[Any], b: list[Any]) -> list[Any]:
        reals = isinstance(a, _Reals) or isinstance(b, _Reals)
        length = max(len(a), len(b))
        wide = (list(v) * length if len(v) == 1 else v for v in (a, b))
        result = [(of_reals if reals else function)(u, v) for u, v in zip(*wide, strict=True)]
        return _Reals(result) if reals else result

    return each


def _cast_list(node: Node, values: list[Any]) -> list[Any]:
    to = node.attributes["to"]
    if to not in HOLD_SIZES:
        raise ValueError("sizes are cast to a type that does not hold all of them")
    if to in FLOATS:
        if any(isinstance(value, int) and abs(value) > 2 ** FLOATS[to] for value in values):
            raise ValueError("whole numbers are rounded")
        return _Reals(values)
    if isinstance(values, _Reals):
        raise ValueError("real numbers are rounded")
    return values


def _divide(a: Any, b: Any) -> Any:
    """Sizes divided, of which ONNX cuts the fraction off, and Python takes the whole number below."""
    if (isinstance(b, int) and b <= 0) or (isinstance(a, int) and a < 0):
        raise ValueError("negative sizes are divided")
    return a // b


def _gather_list(node: Node, data: list[Any], index: list[int]) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError("parts of a tensor are gathered")
    return [data[i] for i in index]


def _multiply_list(node: Node, data: list[Any], *_: Operand) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError("the numbers of a tensor are multiplied")
    return [functools.reduce(operator.mul, data)]


def _slice_list(node: Node, data: list[Any], *bounds: list[Any]) -> list[Any]:
    starts, ends, _, steps = _read_bounds(node, bounds)
    return data[starts[0] : ends[0] : steps[0]]


def _read_bounds(node: Node, bounds: Sequence[list[int] | None]) -> tuple[list[int], ...]:
    """Starts, ends, axes and steps of Slice, which are attributes in old files."""
    names = ("starts", "ends", "axes", "steps")
    given = [*bounds, None, None, None, None] if bounds else [node.attributes.get(name) for name in names]
    starts, ends, axes, steps = given[:4]
    assert starts is not None and ends is not None, "the checker wants them"
    return starts, ends, axes or list(range(len(starts))), steps or [1] * len(starts)


SIZES: dict[str, Callable[..., list[Any]]] = {
    **dict.fromkeys(("Unsqueeze", "Squeeze", "Identity"), lambda node, x, *_: x),
    "Cast": _cast_list,
    "ReduceProd": _multiply_list,
    "Gather": _gather_list,
    "Slice": _slice_list,
    "Concat": lambda node, *parts: [entry for part in parts for entry in part],
    "Add": _pair(operator.add, operator.add),
    "Sub": _pair(operator.sub, operator.sub),
    "Mul": _pair(operator.mul, operator.mul),
    "Div": _pair(_divide, operator.truediv),
}
_KEPT = (
    "Conv", "ConvTranspose", "PRelu", "Gemm", "MatMul",
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
)  # fmt: skip
"""Operators of which a constant stays a tensor, also of a single number."""
_BROADCASTS = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")
_ARITHMETIC = (*_BROADCASTS, "Clip")
FLOATS = {1: 24, 10: 11, 11: 53}  # types of numbers, as Cast has them, and their digits: float, half, double


# -- tensors -----------------------------------------------------------------------------------------------------------


def _pads(node: Node, axes: int = 2, totals: Sequence[int] = ()) -> list[int]:
    """Padding before each axis, which is that behind it.  Raises ValueError where it is not.

    totals   of both sides of each axis, that SAME asks for where every pixel is taken
    """
    if totals and node.text("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        if any(total % 2 for total in totals) or set(node.integers("strides", [1])) != {1}:
            raise ValueError("padding that is not the same on both sides")
        return [total // 2 for total in totals]
    pads = node.integers("pads", [0, 0] * axes)
    before, behind = pads[:axes], pads[axes:]
    if node.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or before != behind:
        raise ValueError("padding that is not the same on both sides")
    return before


def _conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    axes = weight.dim() - 2
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[axes]  # of one axis: ECA, along the channels
    stride, dilation = node.integers("strides", [1] * axes), node.integers("dilations", [1] * axes)
    totals = [(n - 1) * d for n, d in zip(weight.shape[2:], dilation, strict=True)]
    return convolve(x, weight, bias, stride, _pads(node, axes, totals), dilation, node.integer("group", 1))


def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    stride, dilation = node.integers("strides", [1, 1]), node.integers("dilations", [1, 1])
    if "output_shape" in node.attributes:
        raise ValueError("padding that follows from a size")
    more, groups = node.integers("output_padding", [0, 0]), node.integer("group", 1)
    return F.conv_transpose2d(x, weight, bias, stride, _pads(node), more, groups, dilation)


def _pool(node: Node, x: Tensor) -> Tensor:
    size, stride, ceil = (
        node.integers("kernel_shape", []),
        node.integers("strides", [1, 1]),
        node.integer("ceil_mode", 0),
    )
    if set(node.integers("dilations", [1])) != {1}:
        raise ValueError("pixels apart are pooled")
    if node.op == "MaxPool":
        return F.max_pool2d(x, size, stride, _pads(node), ceil_mode=bool(ceil))
    return F.avg_pool2d(x, size, stride, _pads(node), bool(ceil), bool(node.integer("count_include_pad", 0)))


def _reduce(name: str) -> Callable[..., Tensor]:
    def reduce(node: Node, x: Tensor, axes: list[int] | None = None) -> Tensor:
        over = node.integers("axes", []) if axes is None else axes
        if not over and node.integer("noop_with_empty_axes", 0):
            return x
        result: Tensor = getattr(x, name)(tuple(over or range(4)), keepdim=bool(node.integer("keepdims", 1)))
        return result

    return reduce


def _clip(node: Node, x: Tensor, low: Operand = None, high: Operand = None) -> Tensor:
    low = node.attributes.get("min") if low is None else low
    high = node.attributes.get("max") if high is None else high
    return x if low is None and high is None else torch.clamp(x, low, high)


def _slice(node: Node, x: Tensor, *bounds: list[int]) -> Tensor:
    for start, end, axis, step in zip(*_read_bounds(node, bounds), strict=True):
        if step < 0:  # torch has none: place i is then -1 - i, from the other end
            x, start, end, step = x.flip(axis), -1 - start, -1 - end, -step
        last = None if isinstance(end, int) and end >= _MANY else end
        part, others = slice(start, last, step), [slice(None)] * (axis if axis >= 0 else -axis - 1)
        index: tuple[Any, ...] = (*others, part) if axis >= 0 else (..., part, *others)
        x = x[index]
    return x


def _split(node: Node, x: Tensor, sizes: list[int] | None = None) -> tuple[Tensor, ...]:
    axis, sizes = node.integer("axis", 0), node.attributes.get("split") if sizes is None else sizes
    pieces = torch.chunk(x, len(node.outputs), axis) if sizes is None else torch.split(x, sizes, axis)
    return tuple(pieces[i] for i in range(len(node.outputs)))


def _reshape(node: Node, x: Tensor, shape: list[Any]) -> Tensor:
    if node.integer("allowzero", 0) and 0 in [n for n in shape if isinstance(n, int)]:
        raise ValueError("a size of zero")
    return x.reshape([x.size(i) if isinstance(n, int) and n == 0 else n for i, n in enumerate(shape)])


def _squeeze(node: Node, x: Tensor, axes: list[int] | None = None) -> Tensor:
    for axis in reversed(_inwards(axes or node.integers("axes", []))):
        x = x.squeeze(axis)
    return x


def _unsqueeze(node: Node, x: Tensor, axes: list[int] | None = None) -> Tensor:
    for axis in _inwards(axes or node.integers("axes", [])):
        x = x.unsqueeze(axis)
    return x


def _inwards(axes: Sequence[int]) -> list[int]:
    """Axes from the end on that they are counted from.  Raises ValueError for those of both ends, and for none."""
    if not axes or min(axes) < 0 <= max(axes):
        raise ValueError("axes counted from both ends, or none")
    return sorted(axes, key=lambda axis: axis if axis >= 0 else -axis)


def _resize(node: Node, x: Tensor, _: Operand = None, scales: Operand = None, sizes: list[Any] | None = None) -> Tensor:
    mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}[node.text("mode", "nearest")]
    where = node.text("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        fits = where == "asymmetric" and node.text("nearest_mode", "round_prefer_floor") == "floor"
    else:
        fits = where in ("half_pixel", "pytorch_half_pixel", "align_corners")
    others = ("antialias", "exclude_outside", "axes", "keep_aspect_ratio_policy")
    if not fits or any(name in node.attributes and node.attributes[name] not in (0, "stretch") for name in others):
        raise ValueError("an enlargement that torch has not")
    if mode == "bicubic" and node.number("cubic_coeff_a", -0.75) != -0.75:
        raise ValueError("another bicubic enlargement than that of torch")
    how = {} if mode == "nearest" else {"align_corners": where == "align_corners"}
    same: Any = 1 if sizes is None else x.size(1)  # of torch.fx it is no number
    _, channels, *given = scales.tolist() if sizes is None else sizes
    if isinstance(same, int) and channels != same:
        raise UnsupportedModel(
            f"{_locate(node)}: it resizes the channels too, {'by' if sizes is None else 'to'} {channels:g}, as if they "
            "were rows of an image; resize height and width only, and make other channels by a convolution"
        )
    if where == "pytorch_half_pixel":  # which torch's own is not where one pixel is left of a side: that is the first
        for i, axis in enumerate((2, 3)):
            side = given[i] * x.size(axis) if sizes is None else given[i]
            if isinstance(side, (int, float)) and side < 2:
                x, given[i] = x.narrow(axis, 0, 1), 1
    size, factors = (None, given) if sizes is None else (given, None)
    return F.interpolate(x, size, factors, mode, **how)


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    factor = node.integer("blocksize", 1)
    if node.text("mode", "DCR") == "DCR":  # torch has the channels of the result first, not the places in a block
        x = x.reshape(x.size(0), factor**2, -1, x.size(2), x.size(3)).transpose(1, 2).flatten(1, 2)
    return F.pixel_shuffle(x, factor)


def _extreme(name: str) -> Callable[..., Tensor]:
    """The largest, or the smallest, of feature maps and numbers."""
    function: Callable[[Any, Any], Tensor] = getattr(torch, name)

    def extreme(node: Node, *operands: Any) -> Tensor:
        numbers = [value for value in operands if isinstance(value, (int, float))]  # of torch.fx maps are no tensors
        result: Tensor = functools.reduce(function, [v for v in operands if not isinstance(v, (int, float))])
        for number in numbers:
            result = torch.clamp(result, number) if name == "maximum" else torch.clamp(result, None, number)
        return result

    return extreme


def _gemm(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if node.integer("transA", 0) or (node.number("alpha", 1.0), node.number("beta", 1.0)) != (1.0, 1.0):
        raise ValueError("a product that no linear layer makes")
    return F.linear(x, weight if node.integer("transB", 0) else weight.T, bias)


def _batch_norm(node: Node, x: Tensor, gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if is_in_training(node):
        raise ValueError("the mean of the image itself is taken off")
    return F.batch_norm(x, mean, variance, gain, bias, eps=node.number("epsilon", 1e-5))


def _instance_norm(node: Node, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    flat = x.flatten(2)
    return _standardise(node, flat, (2,), gain[:, None], bias[:, None]).view_as(x)


def _group_norm(node: Node, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """That of opset 21: the older one, with gains of groups, is no valid ONNX any more."""
    flat = torch.unflatten(x, 1, (node.integer("num_groups", 0), -1)).flatten(2)
    standard = _standardise(node, flat, (2,), gain.new_ones(1), 0.0).view_as(x)
    return standard * gain[:, None, None] + bias[:, None, None]


def _layer_norm(node: Node, x: Tensor, gain: Tensor, bias: Operand = None) -> Tensor:
    axis = node.integer("axis", -1)
    if axis >= 0:
        raise ValueError("axes counted from the first on")  # torch.fx does not see how many there are
    return _standardise(node, x, tuple(range(axis, 0)), gain, 0.0 if bias is None else bias)


def _standardise(node: Node, x: Tensor, axes: tuple[int, ...], gain: Tensor, bias: Operand) -> Tensor:
    """Mean and variance over axes taken off; written out, as torch's own functions ask for sizes."""
    centred = x - x.mean(axes, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=True)
    result: Tensor = centred / (variance + node.number("epsilon", 1e-5)).sqrt() * gain + bias
    return result


def _prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """Slopes are broadcast from the last axis on; torch's are always the channels'."""
    if slope.numel() == 1 or (slope.dim() in (3, 4) and slope.size(-3) == slope.numel()):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x >= 0, x, slope * x)


def _selu(node: Node, x: Tensor) -> Tensor:
    if {"alpha", "gamma"} & set(node.attributes):
        raise ValueError("another SELU than that of torch")
    return F.selu(x)


def _flatten(node: Node, x: Tensor) -> Tensor:
    if node.integer("axis", 1) != 1:
        raise ValueError("images are flattened together")
    return x.flatten(1)


def _cast(node: Node, x: Tensor) -> Tensor:
    if node.attributes["to"] not in FLOATS:
        raise ValueError("values are rounded")
    return x


def _dropout(node: Node, x: Tensor, _: Operand = None, training: list[bool] | None = None) -> Tensor:
    if training not in (None, [False]):
        raise ValueError("values are dropped at random")
    return x


def _each(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda node, *operands: function(*operands)


OPERATORS: dict[str, Callable[..., Operand]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    "GlobalAveragePool": _each(lambda x: x.mean((2, 3), keepdim=True)),
    "GlobalMaxPool": _each(lambda x: x.amax((2, 3), keepdim=True)),
    **{f"Reduce{name.title()}": _reduce(name) for name in ("mean", "sum")},
    **{f"Reduce{name.title()}": _reduce(f"a{name}") for name in ("max", "min")},
    "Gemm": _gemm,
    "MatMul": _each(torch.matmul),
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    **{name: _each(getattr(F, name.lower())) for name in ("Relu", "Sigmoid", "Tanh", "Softplus", "Mish")},
    "Selu": _selu,
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.number("alpha", 0.01)),
    "PRelu": _prelu,
    "Elu": lambda node, x: F.elu(x, node.number("alpha", 1.0)),
    "Gelu": lambda node, x: F.gelu(x, approximate=node.text("approximate", "none")),
    "HardSwish": _each(F.hardswish),
    "HardSigmoid": lambda node, x: (x * node.number("alpha", 0.2) + node.number("beta", 0.5)).clamp(0.0, 1.0),
    "Clip": _clip,
    "Softmax": lambda node, x: torch.softmax(x, node.integer("axis", -1)),
    "Erf": _each(torch.erf),
    "Exp": _each(torch.exp),
    "Sqrt": _each(torch.sqrt),
    "Neg": _each(torch.neg),
    "Abs": _each(torch.abs),
    "Reciprocal": _each(lambda x: 1 / x),
    "Pow": _each(lambda x, power: x**power),
    "Add": _each(lambda a, b: a + b),
    "Sub": _each(lambda a, b: a - b),
    "Mul": _each(lambda a, b: a * b),
    "Div": _each(lambda a, b: a / b),
    "Max": _extreme("maximum"),
    "Min": _extreme("minimum"),
    "Identity": _each(lambda x: x),
    "Dropout": _dropout,
    "Cast": _cast,
    "Concat": lambda node, *parts: torch.cat(parts, node.integer("axis", 1)),
    "Split": _split,
    "Slice": _slice,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": lambda node, x: x.permute(node.integers("perm", [])),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": lambda node, x, shape: x.expand([-1 if isinstance(n, int) and n == 1 else n for n in shape]),
    "Gather": _gather_list,
    "ReduceProd": _multiply_list,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
}
