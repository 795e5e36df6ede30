"""Ranges of values inside an 8-bit network, narrowed where finer steps are worth more than what is cut off.

ONNX Runtime's calibration lets a range reach from the least value to the largest that it has seen.  Few values come
near these, at sharp edges, and all pay for them with wider steps.  Of some narrower ranges that one is taken whose
rounded values are nearest to the values, in the mean square: Banner, Nahshan, Soudry 2019, arXiv 1810.05723; Nagel et
al. 2021, arXiv 2106.08295.  None is taken that cuts off what areas of one colour come to: white paper is rare
in photographs, and where a network holds the image itself it would be grey.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from memsr_compiler.quantization.constants import read_constant, write_constant
from memsr_compiler.quantization.inner_values import InnerValues, Values
from memsr_compiler.quantization.steps import LEVELS, Steps

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_SHARES = [1 - i / 25 for i in range(13)]  # of the range that was measured, down to half


def narrow_ranges(
    model: ModelProto, integer_model: ModelProto, images: Sequence[NDArray[Any]], input_range: tuple[float, float]
) -> None:
    """Give what convolutions read, but for the image itself, steps that are as near to it as they can be.

    model    of which the other is the one in 8 bits
    images   (N, C, h, w) float32, on which values are measured, of levels in input_range

    The zero stays the same integer.  Integers of biases are changed with the steps, which they have in common.
    """
    inner = list(_list_inner(integer_model))
    flat = _measure_flat(model, [rounding.input[0] for rounding, _ in inner], images[0].shape, input_range)
    values = InnerValues(model, images)
    for rounding, biases in inner:
        scale, zero = (read_constant(integer_model, name) for name in rounding.input[1:])
        steps = Steps(float(scale), int(zero))
        least = _share_of(steps, *flat[rounding.input[0]])
        share = _choose_share(steps, least, values.of(rounding.input[0]))
        write_constant(integer_model, rounding.input[1], scale * share)
        for integers, products in biases:
            limits = torch.iinfo(torch.int32)
            finer = (read_constant(integer_model, integers).double() / share).round().clamp(limits.min, limits.max)
            write_constant(integer_model, integers, finer.to(torch.int32))
            write_constant(integer_model, products, read_constant(integer_model, products) * share)


def _measure_flat(
    model: ModelProto, names: Sequence[str], shape: tuple[int, ...], input_range: tuple[float, float]
) -> dict[str, tuple[float, float]]:
    """The least and the largest of each value in the middle of images of one colour, far from their borders.

    shape   (N, C, h, w) of the batches that are run, one after the other: large ones take much memory
    """
    found: dict[str, list[float]] = {name: [] for name in names}
    for batch in _draw_flat(shape, input_range):
        values = InnerValues(model, [batch])
        for name, ends in found.items():
            (x,) = values.of(name)
            middle = x[..., _third(x.shape[2]), _third(x.shape[3])]
            ends += float(middle.min()), float(middle.max())
    return {name: (float(np.min(ends)), float(np.max(ends))) for name, ends in found.items()}


def _draw_flat(shape: tuple[int, ...], input_range: tuple[float, float]) -> Iterator[NDArray[np.float32]]:
    """Batches (N, C, h, w) of images of one colour: every one whose channels are at either end of the range."""
    number, channels = shape[:2]
    colours = np.array(list(product(input_range, repeat=channels)), np.float32)
    for first in range(0, len(colours), number):
        batch = np.resize(colours[first : first + number], (number, channels))  # the last ones again, to fill it
        yield np.broadcast_to(batch[:, :, None, None], shape).copy()


def _share_of(steps: Steps, least: float, most: float) -> float:
    """The part of a range that holds these values."""
    low, high = -steps.zero * steps.scale, (LEVELS - steps.zero) * steps.scale
    return max(least / low if low < 0 else 0, most / high if high > 0 else 0)


def _third(side: int) -> slice:
    return slice(side // 3, side - side // 3)


def _choose_share(steps: Steps, least: float, values: Values) -> float:
    """The part of a range, not less than that, whose steps are nearest to the values; 1 where it needs all."""

    tensors = [torch.from_numpy(x) for x in values]

    def lose(share: float) -> float:
        narrow = Steps(steps.scale * share, steps.zero)
        return sum(float(narrow.round(x).sub_(x).square_().sum(dtype=torch.float64)) for x in tensors)

    return min((share for share in _SHARES if share >= least), key=lose, default=1.0)


def _list_inner(model: ModelProto) -> Iterator[tuple[NodeProto, list[tuple[str, str]]]]:
    """Nodes that round what only convolutions read, and for each of these the integers and the steps of its biases.

    Where constants are shared with other nodes, they stay as they are.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    uses = Counter({name: len(nodes) for name, nodes in readers.items()})
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    for rounding in model.graph.node:
        if rounding.op_type != "QuantizeLinear" or rounding.input[0] in ends:
            continue
        back = readers.get(rounding.output[0], [])
        convolutions = [node for each in back for node in readers.get(each.output[0], [])]
        alone = uses[rounding.input[1]] == 1 + len(back)  # its steps, read by itself and those that take them back
        if not alone or not convolutions or any(node.op_type != "Conv" for node in convolutions):
            continue
        stored = [makers[name] for node in convolutions for name in node.input[2:] if name in makers]
        biases = [tuple(node.input[:2]) for node in stored if node.op_type == "DequantizeLinear"]
        if len(biases) == len(convolutions) and all(uses[name] == 1 for pair in biases for name in pair):
            yield rounding, biases
