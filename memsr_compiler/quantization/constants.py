"""Constants of an ONNX model, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from onnx import ModelProto


def read_constant(model: ModelProto, name: str) -> Tensor:
    """The constant of that name."""
    from onnx import numpy_helper

    return torch.from_numpy(numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy())


def write_constant(model: ModelProto, name: str, value: Tensor) -> None:
    """Give the constant of that name another value."""
    from onnx import numpy_helper

    place = next(t for t in model.graph.initializer if t.name == name)
    place.CopyFrom(numpy_helper.from_array(value.numpy(), name))
