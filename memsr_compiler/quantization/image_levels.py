"""The 255 levels of images as the steps of what an 8-bit network takes, adds and gives.

ONNX Runtime's calibration measures ranges.  A result that overshoots those of images, as sharp edges do, gets larger
steps than images have, and is rounded to these before it is rounded to levels.  In the image's own steps it is rounded
once, and what is beyond them is cut off, as in every picture.  So is what is added to an image that is kept outside: in
any other steps it is rounded before the sum is, in these the sum is exact.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from memsr_compiler.plain.info import Takes
from memsr_compiler.quantization.constants import read_constant, write_constant
from memsr_compiler.quantization.round_convolutions import list_convolutions, repeats_channels
from memsr_compiler.quantization.steps import LEVELS, Steps

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OVERSHOOT = 0.25
"""Parts of the images' range by which a result may leave it; one that leaves it further is no image."""


def image_steps(takes: Takes) -> Steps:
    """Steps of images: their 255 levels, and a 0 for convolutions to pad with."""
    low, high = takes.input_range
    return Steps.of(min(low, 0.0), max(high, 0.0))


def override_image(model: ModelProto, takes: Takes) -> dict[str, list[dict[str, Any]]]:
    """The image's steps, for ONNX Runtime's option TensorQuantOverrides."""
    steps = image_steps(takes)
    name = model.graph.input[0].name
    return {name: [{"scale": np.array(steps.scale, np.float32), "zero_point": np.array(steps.zero, np.uint8)}]}


def use_image_levels(model: ModelProto, integer_model: ModelProto, takes: Takes) -> None:
    """Give the result of an 8-bit network the steps of images, and what is added to an image outside as well.

    Where the measured range of the one is not about that of images, or of the other is of more than 255 levels, they
    stay.
    """
    steps = image_steps(takes)
    graph = integer_model.graph
    makers = {name: node for node in graph.node for name in node.output}
    reads = Counter(name for node in graph.node for name in node.input)
    result = _find_rounding(graph.output[0].name, makers, reads)
    if result is None or not _is_image(_range_of(integer_model, result), steps):
        return
    _set_steps(integer_model, result, steps)
    total = makers.get(result.input[0])
    if total is None or total.op_type != "Add":
        return
    repeating = {node.name for node in list_convolutions(model) if repeats_channels(model, node)}
    image = model.graph.input[0].name
    for name, other in (total.input, total.input[::-1]):
        image_rounding, rounding = (_find_rounding(value, makers, reads) for value in (name, other))
        if image_rounding is None or rounding is None:
            return
        repeat = makers.get(image_rounding.input[0])
        repeats = repeat is None or (repeat.name in repeating and _find_source(repeat.input[0], makers) == image)
        if repeats:  # an image that is not enlarged is the graph's input itself, which no node makes
            _set_steps(integer_model, image_rounding, steps)
            low, high = (value / steps.scale for value in _range_of(integer_model, rounding))
            room = LEVELS - (high - low)
            if room >= 0:
                _set_steps(integer_model, rounding, Steps(steps.scale, round(room / 2 - low)))


def _find_rounding(name: str, makers: dict[str, NodeProto], reads: Counter[str]) -> NodeProto | None:
    """The node that quantises a value, before a pixel shuffle; None where others read its integers too."""
    while name in makers and makers[name].op_type in ("DequantizeLinear", "DepthToSpace"):
        name = makers[name].input[0]
        if reads[name] > 1:
            return None
    node = makers.get(name)
    return node if node is not None and node.op_type == "QuantizeLinear" else None


def _find_source(name: str, makers: dict[str, NodeProto]) -> str:
    """The value of which this is the rounded one."""
    while name in makers and makers[name].op_type in ("DequantizeLinear", "QuantizeLinear"):
        name = makers[name].input[0]
    return name


def _range_of(model: ModelProto, rounding: NodeProto) -> tuple[float, float]:
    """The least and most that the integers of a QuantizeLinear node stand for."""
    scale, zero = (float(read_constant(model, name)) for name in rounding.input[1:])
    return -zero * scale, (LEVELS - zero) * scale


def _is_image(measured: tuple[float, float], steps: Steps) -> bool:
    """Whether a range leaves that of images by no more than an overshoot."""
    low, high = -steps.zero * steps.scale, (LEVELS - steps.zero) * steps.scale
    room = OVERSHOOT * (high - low)
    return low - room <= measured[0] and measured[1] <= high + room


def _set_steps(model: ModelProto, rounding: NodeProto, steps: Steps) -> None:
    """Give a QuantizeLinear node other steps; DequantizeLinear behind it reads the same constants."""
    write_constant(model, rounding.input[1], torch.tensor(steps.scale))
    write_constant(model, rounding.input[2], torch.tensor(steps.zero, dtype=torch.uint8))
