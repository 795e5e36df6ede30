"""Constants of an ONNX model, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


def store_constants(model: ModelProto) -> None:
    """Make an initializer, which is no input, of each constant that is a node, an Identity of another, or an input too.

    torch's exporter stores equal biases once, others write all constants as nodes, and before IR version 4 each was an
    input, at times before the image.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for entry in [entry for entry in model.graph.input if entry.name in stored]:
        model.graph.input.remove(entry)
    model.ir_version = max(model.ir_version, 4)
    results = {output.name for output in model.graph.output}
    for node in list(model.graph.node):
        tensor = _find_constant(node, stored)
        if tensor is not None and node.output[0] not in results:
            stored[node.output[0]] = model.graph.initializer.add()
            stored[node.output[0]].CopyFrom(tensor)
            stored[node.output[0]].name = node.output[0]
            model.graph.node.remove(node)


def _find_constant(node: NodeProto, stored: Mapping[str, TensorProto]) -> TensorProto | None:
    """The tensor that a node is, of which nothing is computed; None for other nodes."""
    if node.op_type == "Identity":
        return stored.get(node.input[0])
    values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
    return values[0] if node.op_type == "Constant" and values else None


def read_constant(model: ModelProto, name: str) -> Tensor:
    """The constant of that name."""
    from onnx import numpy_helper

    return torch.from_numpy(numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy())


def write_constant(model: ModelProto, name: str, value: Tensor) -> None:
    """Give the constant of that name another value."""
    from onnx import numpy_helper

    place = next(t for t in model.graph.initializer if t.name == name)
    place.CopyFrom(numpy_helper.from_array(value.numpy(), name))
