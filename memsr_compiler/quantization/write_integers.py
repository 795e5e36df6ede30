"""A network trained for 8 bits as an ONNX file: quantised and dequantised (QDQ), with the steps of its training.

ONNX Runtime makes integer operators of such a graph.  ReLU needs no node: behind it values start at 0, and quantising
them cuts off what is below.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.analysis.cost import cost_of_layers
from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import atomic_write
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.seal import seal
from memsr_compiler.quantization.quantize import describe_integers
from memsr_compiler.quantization.shuffle_integers import shuffle_integers
from memsr_compiler.quantization.simulate import IntegerNet
from memsr_compiler.quantization.steps import Steps

if TYPE_CHECKING:
    from onnx import ModelProto

_OPSET = 17


def write_integers(network: IntegerNet, out: Path, source: Path) -> None:
    """Write a network as it was trained for 8 bits; float32 images go in and come out, as of `quantize`'s files.

    source   the file in floating point that it was made of, whose hash the metadata keep

    The file appears whole or not at all.  Raises InvalidInput for another extension, ExportError where it cannot be
    written.
    """
    if out.suffix != ".onnx":
        raise InvalidInput(f"{out}: an ONNX model needs the extension .onnx; give it")
    plain, info = network.plain, network.plain.info
    model = _Writer(network).build()
    shuffle_integers(model)
    cost = cost_of_layers([(layer.weight.shape, layer.shuffle) for layer in plain])
    takes = Takes(info.scale, info.channels, info.input_range)
    describe_integers(model, takes, cost, info.assumed, source)
    with atomic_write(out) as file:
        file.write(seal(model.SerializeToString(deterministic=True)))


class _Writer:
    """Nodes and constants of the model, as they come."""

    def __init__(self, network: IntegerNet) -> None:
        self._network = network
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def build(self) -> ModelProto:
        from onnx import TensorProto, helper

        plain, info = self._network.plain, self._network.plain.info
        image, last = self._network.image_steps, len(plain.layers) - 1
        pixels = value = self._round("image", image, "pixels")
        for i in range(last + 1):
            name = f"layers.{i}"
            weight, bias, steps, products = (part.numpy() for part in self._network.layer_integers(i))
            value = self._convolve(name, value, weight, bias, steps, products)
            if i < last or info.image_skip:
                value = self._round(value, self._network.steps(i), name)
        shuffle = plain[last].shuffle
        if info.image_skip:
            repeat = np.repeat(np.eye(info.channels), shuffle**2, axis=0)[..., None, None]
            none, ones = np.zeros(len(repeat)), np.ones(len(repeat))
            repeated = self._convolve("image_skip", pixels, repeat, none, ones, ones * image.scale)
            repeated = self._round(repeated, image, "image_skip.repeated")
            self._node("Add", [repeated, value], "image_skip.sum")
            value = "image_skip.sum"
        value = self._round(value, image, "result")
        if shuffle > 1:
            self._node("DepthToSpace", [value], "shuffled", blocksize=shuffle, mode="CRD")
        self._nodes[-1].output[0] = "upscaled"
        size: list[str | int | None] = ["batch", info.channels, "height", "width"]
        made = len(plain[last].bias) // shuffle**2
        large: list[str | int | None] = ["batch", made, f"height*{info.scale}", f"width*{info.scale}"]
        graph = helper.make_graph(
            self._nodes,
            "integers",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, size)],
            [helper.make_tensor_value_info("upscaled", TensorProto.FLOAT, large)],
            self._constants,
        )
        model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
        return model

    def _convolve(
        self,
        name: str,
        value: str,
        weight: NDArray[Any],
        bias: NDArray[Any],
        steps: NDArray[Any],
        products: NDArray[Any],
    ) -> str:
        """A convolution with these integers; weights and biases have steps for each output channel."""
        inputs = [
            value,
            self._dequantize(f"{name}.weight", weight.astype(np.int8), steps, axis=0),
            self._dequantize(f"{name}.bias", bias.astype(np.int32), products, axis=0),
        ]
        k = weight.shape[-1]
        self._node("Conv", inputs, f"{name}.conv", kernel_shape=[k, k], pads=[k // 2] * 4)
        return f"{name}.conv"

    def _dequantize(self, name: str, integers: NDArray[Any], steps: NDArray[Any], *, axis: int) -> str:
        inputs = [
            self._constant(f"{name}.integers", integers),
            self._constant(f"{name}.scale", steps.astype(np.float32)),
            self._constant(f"{name}.zero", np.zeros(len(steps), integers.dtype)),
        ]
        self._node("DequantizeLinear", inputs, name, axis=axis)
        return name

    def _round(self, value: str, steps: Steps, name: str) -> str:
        """Quantise a value and take it back."""
        inputs = [
            self._constant(f"{name}.scale", np.float32(steps.scale)),
            self._constant(f"{name}.zero", np.uint8(steps.zero)),
        ]
        self._node("QuantizeLinear", [value, *inputs], f"{name}.quantized")
        self._node("DequantizeLinear", [f"{name}.quantized", *inputs], f"{name}.rounded")
        return f"{name}.rounded"

    def _node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if all(constant.name != name for constant in self._constants):
            self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
