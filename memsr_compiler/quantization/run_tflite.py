"""A TFLite network in 8 bits, computed as TFLite's specification has it: to be compared with what it was made of.

Only the operators that `quantization.tflite` writes.  Products are rounded as real numbers are, not as any one engine
rounds them, so that a value may be off by a step, and those behind it too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memsr_compiler.tflite.model import Model, Operator, Tensor
from memsr_compiler.tflite.write import RELU

_LEAST, _MOST = -128, 127

Numbers = NDArray[Any]  # of float64


def run_tflite(model: Model, image: NDArray[Any]) -> Numbers:
    """Real numbers (N, C', s H, s W) that the network gives for an image (N, C, H, W), of any size."""
    pixels = image.astype(np.float64).transpose(0, 2, 3, 1)
    values = {model.image: _round(pixels, model.tensors[model.image])}
    for i, tensor in enumerate(model.tensors):
        if tensor.data is not None:
            values[i] = _scale(tensor.data.astype(np.float64), tensor)
    for op in model.operators:
        result = _compute(op, [values[number] for number in op.inputs])
        values[op.output] = _round(result, model.tensors[op.output])
    upscaled: Numbers = values[model.upscaled].transpose(0, 3, 1, 2)
    return upscaled


def _compute(op: Operator, operands: list[Numbers]) -> Numbers:
    """The real numbers that an operator gives, not rounded yet."""
    if op.op == "ADD":
        return _activate(op, operands[0] + operands[1])
    if op.op == "DEPTH_TO_SPACE":
        side = op.options["block_size"]
        n, height, width, channels = operands[0].shape
        blocks = operands[0].reshape(n, height, width, side, side, channels // side**2)
        shuffled: Numbers = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, height * side, width * side, -1)
        return shuffled
    if op.op == "CONV_2D":
        image, weight, bias = map(torch.from_numpy, operands)
        weight = weight.permute(0, 3, 1, 2)
        result = torch.nn.functional.conv2d(image.permute(0, 3, 1, 2), weight, bias, padding=weight.shape[-1] // 2)
        return _activate(op, result.permute(0, 2, 3, 1).numpy())
    assert op.op in ("QUANTIZE", "DEQUANTIZE"), op.op
    return operands[0]


def _activate(op: Operator, result: Numbers) -> Numbers:
    return np.maximum(result, 0.0) if op.options["activation"] == RELU else result


def _round(numbers: Numbers, tensor: Tensor) -> Numbers:
    """The numbers as a tensor holds them."""
    if tensor.steps is None:
        return numbers
    (step,), (zero,) = tensor.steps.step, tensor.steps.zero
    return _scale(np.clip(np.rint(numbers / step) + zero, _LEAST, _MOST), tensor)


def _scale(integers: Numbers, tensor: Tensor) -> Numbers:
    """The numbers that integers stand for: steps are those of the first axis."""
    if tensor.steps is None:
        return integers
    step, zero = (np.array(entry, np.float64) for entry in (tensor.steps.step, tensor.steps.zero))
    along = (-1, *[1] * (integers.ndim - 1))
    return (integers - zero.reshape(along)) * step.reshape(along)
