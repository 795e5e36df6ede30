"""The start of a training for 8 bits: the integers that `quantize` chooses.

Training does not start from these whole numbers themselves: each would have to go half a step until it is rounded
otherwise, and the steps of the optimizer are small.  Nor from the points next to the exact values that are rounded to
them: most of what was chosen so that it makes up for other weights would be at the very edge, and the first steps would
undo it.  Every weight starts as near to its exact value as half the way to the edge lets it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.quantization.constants import read_constant
from memsr_compiler.quantization.quantize import choose_integers, read_float
from memsr_compiler.quantization.round_convolutions import list_convolutions, repeats_channels
from memsr_compiler.quantization.simulate import IntegerNet, require_integers
from memsr_compiler.quantization.steps import Steps

if TYPE_CHECKING:
    from onnx import ModelProto

_HALF_WAY = 0.25  # of a step, from the integer: its edge is at 0.5


def start_integers(plain: PlainNet, images: Sequence[Tensor]) -> IntegerNet:
    """The network in the 8-bit integers that `quantize` chooses on images (N, C, H, W); its weights change in place.

    Raises InvalidInput as IntegerNet, MemsrError without ONNX Runtime.
    """
    require_integers(plain)
    info = plain.info
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float32.onnx"
        export_onnx(plain, source)
        model = read_float(source)
        arrays = [image.float().numpy() for image in images]
        takes = Takes(info.scale, info.channels, info.input_range)
        integer_model, _ = choose_integers(model, Path(folder) / "int8.onnx", arrays, source, takes)
    return _take_integers(plain, model, integer_model)


def _take_integers(plain: PlainNet, model: ModelProto, integer_model: ModelProto) -> IntegerNet:
    makers = {node.output[0]: node for node in integer_model.graph.node}
    readers = {name: node for node in integer_model.graph.node for name in node.input}
    twins = {node.name: node for node in integer_model.graph.node}
    layers = [node for node in list_convolutions(model) if not repeats_channels(model, node)]
    kernels, values = [], []
    for layer, node in zip(plain, layers, strict=True):
        twin = twins[node.name]
        integers, steps = (read_constant(integer_model, name) for name in makers[twin.input[1]].input[:2])
        offsets, products = (read_constant(integer_model, name) for name in makers[twin.input[2]].input[:2])
        with torch.no_grad():
            exact = read_constant(model, node.input[1]) / steps[:, None, None, None]
            inside = exact.clamp(integers - _HALF_WAY, integers + _HALF_WAY)
            layer.weight.copy_(inside * steps[:, None, None, None])
            layer.bias.copy_(offsets * products)
        kernels.append(steps)
        rounding = readers[twin.output[0]]
        while rounding.op_type != "QuantizeLinear":
            rounding = readers[rounding.output[0]]
        scale, zero = (read_constant(integer_model, name) for name in rounding.input[1:])
        values.append(Steps(float(scale), int(zero)))
    return IntegerNet(plain, kernels, values)
