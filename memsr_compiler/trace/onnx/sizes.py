"""Sizes that an ONNX file fixes: whether anything in it needs them, and the same file without them.

torch's exporter writes the batch and the size of its example into the file.  A network of convolutions, pixel shuffles
and pointwise operators is the same network at any size; one with a Reshape to given sizes is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from memsr_compiler.errors import MemsrError
from memsr_compiler.trace.onnx.constants import fold
from memsr_compiler.trace.onnx.file import Network, Node, read_network
from memsr_compiler.trace.onnx.tensors import Array

if TYPE_CHECKING:
    from onnx import ModelProto

Operands: TypeAlias = "Sequence[Array | None]"
"""Values of a node's operands; None for one that depends on the image, or is left out."""

_AXES = ("N", None, "H", "W")  # names of the input's sizes that are made free
_POINTWISE = (
    "Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Cos", "DequantizeLinear", "Div",
    "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Less", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "Not", "PRelu", "Pow", "QuantizeLinear",
    "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh",
    "ThresholdedRelu", "Where",
)  # fmt: skip
_PER_CHANNEL = (
    "BatchNormalization",
    "QuantizeLinear",
    "DequantizeLinear",
)  # their vectors go along an axis of channels
_WHOLE_IMAGE = ("GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization", "GroupNormalization", "DepthToSpace")


def fixed_sizes(model: ModelProto) -> tuple[int | None, int | None, int | None]:
    """Batch, height and width that the first input of a file has to have; None where they are free."""
    constants = {tensor.name for tensor in model.graph.initializer}
    image = next((value for value in model.graph.input if value.name not in constants), None)
    dims = [] if image is None else image.type.tensor_type.shape.dim
    if len(dims) != 4:
        return None, None, None
    n, _, h, w = (dim.dim_value if dim.dim_value > 0 else None for dim in dims)
    return n, h, w


def free_sizes(model: ModelProto) -> None:
    """Make batch, height and width free in the file's declarations."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in constants:
            for dim, name in zip(value.type.tensor_type.shape.dim, _AXES, strict=True):
                if name is not None:
                    dim.dim_param = name
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    del model.graph.value_info[:]


def what_needs_sizes(path: Path) -> str:
    """The first node that is another function at another size, "r: Reshape"; "" if there is none.

    Where the file is not read, the reason: nobody knows then.
    """
    try:
        network = read_network(path)
    except MemsrError as error:
        return str(error)
    return find_fixed_node(network)


def find_fixed_node(network: Network) -> str:
    """The first node of a network that is another function at another size; "" if there is none."""
    constants: dict[str, Array] = dict(network.constants)
    for node in network.nodes:
        operands = [constants.get(name) for name in node.inputs]
        named = [value for name, value in zip(node.inputs, operands, strict=True) if name]
        if all(value is not None for value in named):
            try:
                constants.update(zip(node.outputs, fold(node, operands), strict=False))
            except MemsrError:
                return f"{node.name}: {node.op}"
        elif node.domain not in ("", "ai.onnx") or not _is_free(node, operands):
            return f"{node.name}: {node.op}"
    return ""


def _is_free(node: Node, operands: Operands) -> bool:
    if node.op in _WHOLE_IMAGE:
        return True
    if node.op in _PER_CHANNEL:
        return node.integer("axis", 1) == 1 and operands[0] is None
    if node.op in _POINTWISE:
        return all(value is None or _is_even(value) for value in operands)
    return node.op in _CHECKS and _CHECKS[node.op](node, operands)


def _is_even(value: Array) -> bool:
    """Whether a constant is the same for all images and pixels that it is combined with."""
    return value.ndim <= 4 and set(value.shape[-2:]) <= {1} and (value.ndim < 4 or value.shape[0] == 1)


def _is_free_convolution(node: Node, operands: Operands) -> bool:
    return operands[1] is not None and set(node.integers("strides", [1])) <= {1} and _pads_by_number(node)


def _is_free_transposed(node: Node, operands: Operands) -> bool:
    return operands[1] is not None and "output_shape" not in node.attributes and _pads_by_number(node)


def _is_free_pool(node: Node, operands: Operands) -> bool:
    return set(node.integers("strides", [1])) <= {1} and _pads_by_number(node)


def _pads_by_number(node: Node) -> bool:
    return node.text("auto_pad", "NOTSET") in ("NOTSET", "VALID")


def _is_free_concat(node: Node, operands: Operands) -> bool:
    return node.integer("axis", 0) in (1, -3) and all(value is None for value in operands)


def _is_free_split(node: Node, operands: Operands) -> bool:
    return node.integer("axis", 0) in (1, -3) and operands[0] is None


def _is_free_softmax(node: Node, operands: Operands) -> bool:
    return node.integer("axis", -1) in (1, -3)


def _is_free_slice(node: Node, operands: Operands) -> bool:
    axes = operands[3] if len(operands) > 3 else None
    return axes is not None and operands[0] is None and set(axes.flatten().tolist()) <= {1, -3}


def _is_free_resize(node: Node, operands: Operands) -> bool:
    scales = operands[2] if len(operands) > 2 else None
    by_sizes = len(node.inputs) > 3 and bool(node.inputs[3])
    return scales is not None and not by_sizes and scales.size == 4 and bool(np.all(scales.flatten()[:2] == 1))


def _is_free_pad(node: Node, operands: Operands) -> bool:
    pads = operands[1] if len(operands) > 1 else None
    return pads is not None and pads.size == 8 and not pads[[0, 1, 4, 5]].any() and len(operands) <= 3


def _is_free_mean(node: Node, operands: Operands) -> bool:
    given = operands[1] if len(operands) > 1 else np.array(node.integers("axes", []))
    axes = set() if given is None else {axis % 4 for axis in given.flatten().tolist()}
    return axes in ({1}, {2, 3}) and node.integer("keepdims", 1) == 1


_CHECKS: dict[str, Callable[[Node, Operands], bool]] = {
    "Conv": _is_free_convolution,
    "ConvTranspose": _is_free_transposed,
    "AveragePool": _is_free_pool,
    "MaxPool": _is_free_pool,
    "Concat": _is_free_concat,
    "Split": _is_free_split,
    "Slice": _is_free_slice,
    "Softmax": _is_free_softmax,
    "Resize": _is_free_resize,
    "Pad": _is_free_pad,
    "ReduceMean": _is_free_mean,
    "ReduceMax": _is_free_mean,
}
