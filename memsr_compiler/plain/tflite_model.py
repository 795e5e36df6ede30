"""A plain network as a TFLite network: CONV_2D with its ReLU, PRELU, ADD for a repeated image, DEPTH_TO_SPACE.

TFLite has channels last, and its DEPTH_TO_SPACE takes the place in the block before the channel, where a pixel shuffle
takes the channel first: the channels of the convolution before it are put into that order.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.analysis.cost import cost_of_layers
from memsr_compiler.errors import ExportError
from memsr_compiler.files import atomic_write
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.manifest import REPEATED
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.stored import named_tensors, round_to
from memsr_compiler.plain.write import Judge, fit
from memsr_compiler.tflite.metadata import ENTRY, TFLITE_KEY, write_facts
from memsr_compiler.tflite.model import FREE, Model, Tensor
from memsr_compiler.tflite.write import RELU, SAME, to_bytes

Floats = Literal["float32", "float16"]
Size = tuple[int, int]  # height, width
EVERY_SIZE = (FREE, FREE)
_CONVOLUTION = {"padding": SAME, "stride_w": 1, "stride_h": 1, "dilation_w": 1, "dilation_h": 1}


def export_tflite(
    net: PlainNet,
    path: str | Path,
    *,
    dtype: Floats = "float32",
    size: Size | None = None,
    judge: Judge | None = None,
) -> None:
    """Write a TFLite file of a plain network: image (1, H, W, C) in, (1, s H, s W, C') out, both float32.

    dtype   in which weights are stored; interpreters compute float16 ones in float32, or on a GPU in float16
    size    height and width of the image; None: any, by `resize_tensor_input`
    judge   may refuse the network before it is written: see `Judge`

    The file appears whole or not at all.  Raises ExportError for an image skip that interpolates and for weights and
    values that the dtype cannot hold, MemsrError where the packages that write TFLite are not installed.
    """
    path = Path(path)
    require_writable(net.info, str(path))
    net, peaks = fit(net, dtype)
    content = to_bytes(build_model(net, dtype, size or EVERY_SIZE), describe_network(net.info))
    if judge is not None:
        judge(None, net, peaks)
    with atomic_write(path) as file:
        file.write(content)


def require_writable(info: PlainInfo, name: str) -> None:
    """Raise ExportError for an image skip that TFLite's operators here cannot say."""
    if info.image_skip not in ("", REPEATED):
        raise ExportError(
            f"{name}: is not written. The network adds its image enlarged by {info.image_skip} interpolation, which "
            "TFLite computes otherwise at borders; write .onnx, or derive a student with --image-skip nearest"
        )


def describe_network(info: PlainInfo) -> str:
    """Words for a TFLite file's description."""
    low, high = info.input_range
    return f"{info.tool}; NHWC, values {low:g} to {high:g}, enlarges {info.scale} times, not clipped to the range"


def describe_facts(net: PlainNet) -> dict[str, str]:
    """Facts that the file states: the network's info, and its cost as a plain network."""
    cost = cost_of_layers([(layer.weight.shape, layer.shuffle) for layer in net])
    numbers = {name: str(value) for name, value in asdict(cost).items()}
    return {TFLITE_KEY: "1", **net.info.to_strings(), **numbers}


def build_model(net: PlainNet, dtype: Floats, size: Size) -> Model:
    """The TFLite network of a plain one.  Its image skip repeats pixels, or there is none."""
    model = Model(metadata={ENTRY: write_facts(describe_facts(net))})
    height, width = size
    numbers = {name: round_to(name, tensor, dtype).numpy() for name, tensor in named_tensors(net)}
    scale = 1
    value = model.image = model.add(Tensor("image", "float32", (1, height, width, net.info.channels)))
    for i, layer in enumerate(net):
        name, last = f"layers.{i}", i == len(net.layers) - 1
        weight, bias = order_channels(numbers[f"{name}.weight"], numbers[f"{name}.bias"], layer.shuffle)
        sizes = (1, *enlarge_size(size, scale))
        value = model.compute(
            "CONV_2D",
            [value, _store(model, f"{name}.weight", weight), _store(model, f"{name}.bias", bias)],
            Tensor(f"{name}.conv", "float32", (*sizes, layer.out_channels)),
            activation=RELU * layer.relu,
            **_CONVOLUTION,
        )
        if layer.slope is not None:
            slope = numbers[f"{name}.slope"].reshape(1, 1, -1)[..., block_first(layer.out_channels, layer.shuffle)]
            bent = Tensor(f"{name}.prelu", "float32", (*sizes, layer.out_channels))
            value = model.compute("PRELU", [value, _store(model, f"{name}.slope", slope)], bent)
        if last and net.info.image_skip == REPEATED:
            value = _add_image(model, value, net.info.channels, layer.shuffle, weight.dtype)
        if layer.shuffle > 1:
            scale *= layer.shuffle
            shape = (1, *enlarge_size(size, scale), layer.out_channels // layer.shuffle**2)
            value = model.compute(
                "DEPTH_TO_SPACE", [value], Tensor(f"{name}.shuffle", "float32", shape), block_size=layer.shuffle
            )
    model.upscaled = value
    return model


def order_channels(weight: NDArray[Any], bias: NDArray[Any], shuffle: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Kernel (C_out, C_in, k, k) and bias as TFLite has them, (C_out, k, k, C_in), in DEPTH_TO_SPACE's order."""
    order = block_first(len(weight), shuffle)
    return weight[order].transpose(0, 2, 3, 1), bias[order]


def block_first(channels: int, shuffle: int) -> NDArray[Any]:
    """Channels of a pixel shuffle in DEPTH_TO_SPACE's order: by place in the block, then by resulting channel."""
    order: NDArray[Any] = np.arange(channels).reshape(-1, shuffle**2).T.flatten()
    return order


def repeat_kernel(channels: int, scale: int) -> NDArray[Any]:
    """The 1x1 kernel (C * s * s, C, 1, 1) that makes of each pixel a block of pixels, for a pixel shuffle."""
    return np.repeat(np.eye(channels), scale**2, axis=0)[..., None, None]


def enlarge_size(size: Size, scale: int) -> Size:
    """Height and width of an enlarged image; free where the image's are."""
    height, width = (FREE if n == FREE else n * scale for n in size)
    return height, width


def _add_image(model: Model, value: int, channels: int, scale: int, dtype: np.dtype[Any]) -> int:
    kernel = repeat_kernel(channels, scale).astype(dtype)
    weight, bias = order_channels(kernel, np.zeros(len(kernel), dtype), scale)
    shape = model.tensors[value].shape
    repeated = model.compute(
        "CONV_2D",
        [model.image, _store(model, "image_skip.weight", weight), _store(model, "image_skip.bias", bias)],
        Tensor("image_skip.repeated", "float32", shape),
        activation=0,
        **_CONVOLUTION,
    )
    return model.compute("ADD", [value, repeated], Tensor("image_skip.sum", "float32", shape), activation=0)


def _store(model: Model, name: str, numbers: NDArray[Any]) -> int:
    """Add a constant; one in float16 is read through a DEQUANTIZE, which every interpreter knows."""
    number = model.store(name, numbers)
    if numbers.dtype == np.float32:
        return number
    return model.compute("DEQUANTIZE", [number], Tensor(f"{name}.float32", "float32", numbers.shape))
