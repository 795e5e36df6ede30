"""The convolutions of an 8-bit network, their integers chosen anew, one after the other.

ONNX Runtime rounds each weight to the nearest.  A student feels that: it carries the image through all of its layers,
in channels that lie far above zero, so that the errors are as large as the values themselves.  Here the weights of
each layer, from the first to the last, are rounded again (`rounding`), so that the layer gives on images what it gives
in float32, from the inputs that it has in 8 bits.  The biases take back what is lost on average.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from memsr_compiler.quantization.constants import read_constant, write_constant
from memsr_compiler.quantization.conv_window import Window
from memsr_compiler.quantization.inner_values import InnerValues
from memsr_compiler.quantization.rounding import round_weights

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

WEIGHT_LIMIT = 64  # of the integers, as `reduce_range` has it


def round_convolutions(model: ModelProto, integer_model: ModelProto, images: Sequence[NDArray[Any]]) -> int:
    """Choose the integers of all convolutions that are in 8 bits, and return how many that are.

    Weights or biases that several convolutions share stay as ONNX Runtime has rounded them; so does what repeats
    channels, of which rounding loses nothing.
    """
    exact, integer = InnerValues(model, images), InnerValues(integer_model, images)
    twins = {node.name: node for node in integer_model.graph.node}
    makers = {node.output[0]: node for node in integer_model.graph.node if node.op_type == "DequantizeLinear"}
    inner = [node for node in list_convolutions(model) if twins[node.name].input[1] in makers]
    uses = Counter(name for node in list_convolutions(model) for name in node.input[1:])
    for node in inner:
        if any(uses[name] > 1 for name in node.input[1:]) or repeats_channels(model, node):
            continue
        twin = twins[node.name]
        pairs = zip(integer.of(twin.input[0]), exact.of(node.output[0]), strict=True)
        weight, bias = (makers[name].input for name in twin.input[1:])
        _choose(
            node, model, integer_model, weight, bias, [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in pairs]
        )
    return len(inner)


def _choose(
    node: NodeProto,
    model: ModelProto,
    integer_model: ModelProto,
    weight: Sequence[str],
    bias: Sequence[str],
    pairs: Sequence[tuple[Tensor, Tensor]],
) -> None:
    """Choose the integers of one convolution.

    weight, bias   names of their integers and of their steps
    pairs          for each image what it reads in 8 bits, and what it gives in float32
    """
    exact = read_constant(model, node.input[1]).double()
    steps = read_constant(integer_model, weight[1]).double().reshape(-1).expand(len(exact))
    wanted = read_constant(model, node.input[2]).double()
    window = Window.of(node, exact.shape[2:])
    groups = len(pairs[0][0][0]) // exact.shape[1]
    integers, offsets = [], []
    for i, (rows, offset) in enumerate(zip(exact.flatten(1).chunk(groups), wanted.chunk(groups), strict=True)):
        lost = window.measure_loss(rows, offset, [(x.chunk(groups, 1)[i], y.chunk(groups, 1)[i]) for x, y in pairs])
        chosen, shift = round_weights(rows, steps.chunk(groups)[i], WEIGHT_LIMIT, lost)
        integers.append(chosen)
        offsets.append(offset + shift)
    limits = torch.iinfo(torch.int32)
    scaled = (torch.cat(offsets) / read_constant(integer_model, bias[1]).double()).round().clamp(limits.min, limits.max)
    write_constant(integer_model, weight[0], torch.cat(integers).reshape(exact.shape).to(torch.int8))
    write_constant(integer_model, bias[0], scaled.to(torch.int32))


def list_convolutions(model: ModelProto) -> Iterator[NodeProto]:
    """The convolutions with weights in the file."""
    stored = {tensor.name for tensor in model.graph.initializer}
    yield from (node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in stored)


def repeats_channels(model: ModelProto, node: NodeProto) -> bool:
    """Whether all that a convolution gives are channels that it reads, as of an image that is kept outside."""
    kernel = read_constant(model, node.input[1])
    offset = read_constant(model, node.input[2])
    rows = kernel.flatten(1)
    alone = bool(((rows == 0) | (rows == 1)).all()) and bool((rows.sum(1) == 1).all())
    return kernel.shape[2:] == (1, 1) and alone and not offset.any()
