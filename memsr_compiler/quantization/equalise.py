"""Channels of an ONNX network brought to one range, without changing what it computes, before it is quantised.

Nagel et al. 2019, arXiv 1906.04721.  ReLU is homogeneous: a channel's row divided by t and its column in the next
layer times t give the same network.  All channels of a layer share the steps of 8 bits: where one holds the image, and
reaches ten times as far as others, these have a tenth of the steps.  Columns that differ cost as much in the weights,
whose rows have a step each, but these are rounded so that they make up for what is lost; so that channels go most of
the way to one range: Xiao et al. 2023, arXiv 2211.10438.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from memsr_compiler.quantization.constants import read_constant, write_constant
from memsr_compiler.quantization.inner_values import InnerValues
from memsr_compiler.quantization.round_convolutions import list_convolutions

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_SHARE = 0.75
"""Of the way from equal columns to equal ranges, in logarithms: on the photographs that ship x2-small loses 0.061 dB by
8 bits, with 0.5 0.078, with 1 0.073."""
_LEAST = 1e-3  # of the largest range: channels that hardly hold anything are not made as large as that


def equalise_channels(model: ModelProto, images: Sequence[NDArray[Any]]) -> None:
    """Scale every channel that a convolution gives to a ReLU and that to one other convolution, to reach equally far.

    The model is changed: weights and biases of both.  Where several nodes share these, nothing is.
    """
    values = InnerValues(model, images)
    peaks = []
    pairs = list(_list_pairs(model))
    for _, relu, _ in pairs:  # all before anything is changed: scaled channels lie in other layers' values
        peaks.append(torch.stack([torch.from_numpy(x).amax((0, 2, 3)) for x in values.of(relu.output[0])]).amax(0))
    for (above, _, below), peak in zip(pairs, peaks, strict=True):
        column = read_constant(model, below.input[1]).transpose(0, 1).flatten(1).abs().amax(1)
        _scale(model, above, below, _choose_scales(peak.double(), column.double()))


def _choose_scales(peak: Tensor, column: Tensor) -> Tensor:
    """By what channels are divided, whose geometric mean is 1; 1 for all where there is nothing.

    peak    (C,) how far they reach;   column   (C,) the largest weight by which they are read
    """
    if not (bool(peak.max() > 0) and bool(column.max() > 0)):
        return torch.ones_like(peak)
    reach, read = (x.clamp_min(float(x.max()) * _LEAST).log() for x in (peak, column))
    logarithms = _SHARE * reach - (1 - _SHARE) * read
    return (logarithms - logarithms.mean()).exp()


def _list_pairs(model: ModelProto) -> Iterator[tuple[NodeProto, NodeProto, NodeProto]]:
    """Convolution, ReLU, convolution, where the second reads nothing else and nothing else reads the first."""
    inner = list(list_convolutions(model))
    uses = Counter(name for node in model.graph.node for name in node.input)
    alone = {node.name for node in inner if all(uses[name] == 1 for name in node.input[1:])}
    relus = {node.input[0]: node for node in model.graph.node if node.op_type == "Relu"}
    readers = {node.input[0]: node for node in inner}
    results = {value.name for value in model.graph.output}
    for above in inner:
        relu = relus.get(above.output[0])
        below = readers.get(relu.output[0]) if relu is not None else None
        if relu is None or below is None or not {above.name, below.name} <= alone:
            continue
        values = (above.output[0], relu.output[0])
        if all(uses[name] == 1 and name not in results for name in values) and _groups(below) == 1:
            yield above, relu, below


def _groups(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _scale(model: ModelProto, above: NodeProto, below: NodeProto, scales: Tensor) -> None:
    """Divide a convolution's rows, and multiply the columns of the one that reads them."""
    for name, factor in (
        (above.input[1], 1 / scales[:, None, None, None]),
        (above.input[2], 1 / scales),
        (below.input[1], scales[:, None, None]),
    ):
        value = read_constant(model, name)
        write_constant(model, name, (value.double() * factor).to(value.dtype))
