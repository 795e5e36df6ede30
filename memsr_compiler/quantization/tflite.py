"""A plain network in 8 bits, from its ONNX file to TFLite: the same integers, steps and zeros.

ONNX has activations in 0 to 255 here and TFLite in -128 to 127: every zero is 128 less.  Nothing is rounded anew, so
both engines give the same but for how they round products.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import ExportError, InvalidInput, first_line
from memsr_compiler.files import DIGEST_KEY, atomic_write
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.seal import UNSEALED, is_unsealed
from memsr_compiler.plain.tflite_model import EVERY_SIZE, Size, enlarge_size, order_channels
from memsr_compiler.quantization.inner_values import InnerValues
from memsr_compiler.quantization.quantize import load_model, takes_of
from memsr_compiler.quantization.run_tflite import run_tflite
from memsr_compiler.tflite.metadata import ENTRY, write_facts
from memsr_compiler.tflite.model import LEAST_STEP, Model, Steps, Tensor
from memsr_compiler.tflite.write import RELU, SAME, to_bytes
from memsr_compiler.version import VERSION

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Ends = Literal["int8", "float32"]
_log = logging.getLogger(__name__)
_MOST_STEPS = 16  # of the result's integers: as many more than engines differ by, which round products at .5 otherwise
_PROBE = (16, 19)  # height and width of the image that both networks are compared on
_SAME_STEP = 1e-3  # of a product of steps, which float32 rounds
_MIDDLE = 128  # between ONNX's unsigned and TFLite's signed activations
_MAKE_ONE = "give a file that memsrc quantize made of a plain network"


def export_integers(
    source: str | Path,
    path: str | Path,
    *,
    ends: Ends = "int8",
    size: Size | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Write a TFLite file of a plain network in 8 bits, as `quantize` writes them.

    ends   of the image and of the output: their integers, or float32
    size   height and width of the image; None: any
    warn   hears of a file in which damage cannot be noticed; None: the log does

    The file appears whole or not at all.  Raises InvalidInput for another file, and for one with other operators, or
    with these where they are not written: each node is either written or refused by its name.  Raises ExportError where
    the TFLite network would give another image than ONNX Runtime, if that is installed, gives for noise.
    """
    model = load_model(Path(source))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    if is_unsealed(facts):
        (warn or _log.warning)(f"{source}: {UNSEALED}")
    facts.pop(DIGEST_KEY, None)
    takes = takes_of(facts)
    if takes is None:
        raise InvalidInput(f"{source}: is no network in 8 bits of ours; {_MAKE_ONE}")
    network = _Transcription(model, str(source), takes, size or EVERY_SIZE).write(ends)
    _require_same(model, network, takes, str(source))
    network.metadata = {ENTRY: write_facts(facts)}
    content = to_bytes(network, _describe(takes))
    with atomic_write(path) as file:
        file.write(content)


def _describe(takes: Takes) -> str:
    low, high = takes.input_range
    return f"memsr_compiler {VERSION}; NHWC, values {low:g} to {high:g}, enlarges {takes.scale} times"


def _require_same(model: ModelProto, network: Model, takes: Takes, source: str) -> None:
    """Raise ExportError where the networks give other images: against mistakes of what is written, not of rounding."""
    low, high = takes.input_range
    noise = np.random.default_rng(0).random((1, takes.channels, *_PROBE))
    image = (low + (high - low) * noise).astype(np.float32)
    try:
        (wanted,) = InnerValues(model, [image]).of(model.graph.output[0].name)
    except ImportError:  # nothing that is written needs ONNX Runtime
        return
    except Exception as error:  # ONNX Runtime's, which have no class in common
        raise InvalidInput(f"{source}: ONNX Runtime cannot run it ({first_line(error)}); {_MAKE_ONE}") from error
    found = run_tflite(network, image)
    steps = next(tensor.steps for tensor in reversed(network.tensors) if tensor.steps is not None)  # the result's
    most = np.abs(found - wanted).max() / steps.step[0] if found.shape == wanted.shape else np.inf
    if not most <= _MOST_STEPS:
        raise ExportError(
            f"{source}: is not written. As TFLite it would give another image than as ONNX, by {most:.3g} of 255 "
            "steps; please report it, with the network"
        )


class _Transcription:
    """An ONNX model on its way to TFLite.

    numbers   tensors of the new model by the names that ONNX has for them, integers or what they stand for
    scales    how many times they are as high and wide as the image
    blocks    of those whose channels are in DEPTH_TO_SPACE's order, the side of its blocks; 1 for those in ONNX's order
    rounded   names of floating-point values that are what integers stand for; others are read by what rounds them
    wanted    sides of the blocks that pixel shuffles behind a value make of its channels
    """

    def __init__(self, model: ModelProto, source: str, takes: Takes, size: Size) -> None:
        from onnx import numpy_helper

        self.source, self.takes, self.size = source, takes, size
        self.graph = model.graph
        self.stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.makers = {node.output[0]: node for node in model.graph.node}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.numbers: dict[str, int] = {}
        self.scales: dict[str, int] = {}
        self.blocks: dict[str, int] = {}
        self.rounded: set[str] = set()
        self.wanted = _find_shuffles(model)
        self.model = Model()

    def write(self, ends: Ends) -> Model:
        """The TFLite network."""
        words = {"Conv": self._convolve, "Add": self._add, "DepthToSpace": self._shuffle, "Relu": self._cut_off}
        images = [value.name for value in self.graph.input if value.name not in self.stored]
        if len(images) != 1 or len(self.graph.output) != 1:
            self._deny(f"takes {len(images)} images and gives {len(self.graph.output)}, not one of each")
        self._start(images[0], ends)
        for node in self.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                self._pass_on(node)
            elif node.op_type in words:
                words[node.op_type](node)
            else:
                *most, last = words
                self._refuse(node, f"is not among {', '.join(most)} and {last}")
        result = self.graph.output[0].name
        value = self._read(result, "the output")
        if self.scales[result] != self.takes.scale or self.model.tensors[value].shape[3] != self.takes.channels:
            self._deny("enlarges by another factor than its metadata say, or gives other channels")
        self._end(value, ends)
        return self.model

    def _start(self, image: str, ends: Ends) -> None:
        steps = self._steps_after(image)
        first = next((self._integers(node, 1)[0] for node in self.graph.node if node.op_type == "Conv"), None)
        if first is None or first.shape[1] != self.takes.channels:
            self._deny("takes other channels than its metadata say")
        shape = (1, *self.size, self.takes.channels)
        if ends == "float32":
            start = self.model.add(Tensor("image", "float32", shape))
            value = self.model.compute("QUANTIZE", [start], Tensor("image.integers", "int8", shape, steps=steps))
        else:
            start = value = self.model.add(Tensor("image", "int8", shape, steps=steps))
        self.model.image = start
        self.numbers[image], self.scales[image], self.blocks[image] = value, 1, 1

    def _end(self, value: int, ends: Ends) -> None:
        last = self.model.tensors[value]
        if ends == "float32":
            value = self.model.compute("DEQUANTIZE", [value], Tensor("upscaled", "float32", last.shape))
        self.model.upscaled = value

    def _pass_on(self, node: NodeProto) -> None:
        """Give what is only looked at otherwise the tensor that it comes from."""
        if node.input[0] in self.numbers:
            if self._read_steps(node) != self.model.tensors[self.numbers[node.input[0]]].steps:
                self._refuse(node, "has other steps than the integers that it reads")
            self._alias(node)
            if node.op_type == "DequantizeLinear":
                self.rounded.add(node.output[0])

    def _cut_off(self, node: NodeProto) -> None:
        """Pass over a ReLU that is written with what is right before it, or that does nothing to integers."""
        name = node.input[0]
        number = self._number(name)
        maker, steps = self.makers.get(name), self.model.tensors[number].steps
        if maker is not None and maker.op_type in ("Conv", "Add") and self._relu_of(name) is node:
            self._alias(node)
        elif name in self.rounded and steps is not None and steps.zero[0] == -_MIDDLE:  # none stands for less than 0
            self._alias(node)
            self.rounded.add(node.output[0])
        else:
            self._refuse(node, "is written only right behind a Conv or an Add that nothing else reads")

    def _alias(self, node: NodeProto) -> None:
        """Let what a node makes be the tensor that it reads."""
        for known in (self.numbers, self.scales, self.blocks):
            known[node.output[0]] = known[node.input[0]]

    def _convolve(self, node: NodeProto) -> None:
        image = self._read(node.input[0], f"{_say(node)}: Conv")
        options = _attributes(node)
        weight, step = self._integers(node, 1)
        bias, bias_step = self._integers(node, 2)
        side = weight.shape[-1]
        same = list(options.get("pads", [0] * 4)) == [side // 2] * 4 and options.get("auto_pad", b"NOTSET") == b"NOTSET"
        if not same or weight.shape[2] != side or side % 2 == 0:
            self._refuse(node, "does not pad an odd square kernel by (k - 1) / 2")
        if (
            any(n != 1 for key in ("strides", "dilations") for n in options.get(key, [1]))
            or options.get("group", 1) != 1
        ):
            self._refuse(node, "has strides, dilations or groups")
        result = node.output[0]
        steps, relu = self._behind(result)
        shuffle = _order(max(self.wanted.get(result, {1})), len(weight))
        if len(weight) % shuffle**2:
            self._refuse(node, f"gives {len(weight)} channels, of which no shuffle makes blocks of {shuffle}")
        kernel, offset = order_channels(weight, bias, shuffle)
        _, bias_step = order_channels(weight, bias_step, shuffle)
        _, step = order_channels(weight, step, shuffle)
        read = self.model.tensors[image].steps
        assert read is not None, "what a convolution reads has steps"
        scale = self.scales[node.input[0]]
        products, none = step * np.float32(read.step[0]), [0] * len(step)
        if not np.allclose(bias_step, products, rtol=_SAME_STEP, atol=0):  # TFLite's reads no other ones
            self._refuse(node, "has biases whose step is not that of its image times that of its weights")
        value = self.model.compute(
            "CONV_2D",
            [
                image,
                self.model.store(node.input[1], kernel, Steps(step.tolist(), none)),
                self.model.store(
                    node.input[2],
                    offset,
                    Steps(products.tolist(), none),
                ),
            ],
            Tensor(result, "int8", (1, *enlarge_size(self.size, scale), len(weight)), steps=steps),
            padding=SAME,
            stride_w=1,
            stride_h=1,
            dilation_w=1,
            dilation_h=1,
            activation=RELU * relu,
        )
        self.numbers[result], self.scales[result], self.blocks[result] = value, scale, shuffle

    def _add(self, node: NodeProto) -> None:
        order = self.blocks.get(node.input[0], 1)
        first, second = (self._read(name, f"{_say(node)}: Add", order) for name in node.input)
        result = node.output[0]
        shape = self.model.tensors[first].shape
        scales = {self.scales[name] for name in node.input}
        if shape != self.model.tensors[second].shape or len(scales) > 1:
            self._refuse(node, "adds values of different sizes")
        steps, relu = self._behind(result)
        value = self.model.compute(
            "ADD", [first, second], Tensor(result, "int8", shape, steps=steps), activation=RELU * relu
        )
        self.numbers[result], self.scales[result], self.blocks[result] = value, self.scales[node.input[0]], order

    def _shuffle(self, node: NodeProto) -> None:
        value, factor = self._number(node.input[0]), _attributes(node).get("blocksize", 1)
        if _attributes(node).get("mode", b"DCR") != b"CRD":
            self._refuse(node, "is no pixel shuffle, whose mode is CRD")
        before = self.model.tensors[value]
        self._read(node.input[0], f"{_say(node)}: DepthToSpace", _order(factor, before.shape[-1]))
        result = node.output[0]
        scale = self.scales[node.input[0]] * factor
        shape = (1, *enlarge_size(self.size, scale), before.shape[-1] // factor**2)
        self.numbers[result] = self.model.compute(
            "DEPTH_TO_SPACE", [value], Tensor(result, "int8", shape, steps=before.steps), block_size=factor
        )
        self.scales[result], self.blocks[result] = scale, 1
        self.rounded.add(result)

    # -- looking around in the ONNX graph ----------------------------------------------------------------------

    def _number(self, name: str) -> int:
        if name not in self.numbers:
            self._deny(f"'{name}' is not computed in 8 bits from the image")
        return self.numbers[name]

    def _read(self, name: str, reader: str, block: int = 1) -> int:
        """The tensor of a value that is read as what its integers stand for, its channels in an order.

        Raises InvalidInput for one that is read in floating point before it is rounded, and for another order.
        """
        number = self._number(name)
        if name not in self.rounded:
            self._deny(f"{reader} reads '{name}', which is not rounded to 8 bits there")
        if self.blocks[name] != block:
            self._deny(
                f"{reader} reads '{name}', whose channels a DepthToSpace of TFLite wants in another order than what "
                "else reads or makes them, and the file has one order"
            )
        return number

    def _behind(self, name: str) -> tuple[Steps, bool]:
        """The steps that a result is rounded to, and whether a ReLU is behind it."""
        relu = self._relu_of(name)
        steps = self._steps_after(relu.output[0] if relu else name)
        made_by_end = steps.zero[0] == -_MIDDLE  # of the integers, for which ONNX Runtime leaves out a ReLU
        return steps, made_by_end or relu is not None

    def _relu_of(self, name: str) -> NodeProto | None:
        """The ReLU that a result is written with: its only reader."""
        readers = self.readers.get(name, [])
        alone = len(readers) == 1 and readers[0].op_type == "Relu" and name != self.graph.output[0].name
        return readers[0] if alone else None

    def _integers(self, node: NodeProto, place: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Stored integers that a node reads, and their steps."""
        maker = self.makers.get(node.input[place]) if len(node.input) > place else None
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in self.stored:
            self._refuse(node, "has weights or biases that are not in 8 bits")
        integers, step, *zero = (self.stored[name] for name in maker.input)
        if integers.dtype != (np.int8, np.int32)[place - 1] or any(entry.any() for entry in zero):
            self._refuse(node, "has weights that are not symmetric")
        along = _attributes(maker).get("axis", 1) % integers.ndim  # ONNX's axis, if it is left out, is 1
        if step.size != 1 and (along != 0 or step.size != len(integers)):
            self._refuse(node, "has weights whose steps are not one for each channel that it gives")
        return integers, np.broadcast_to(self._require_steps(step.reshape(-1), node.input[place]), len(integers))

    def _steps_after(self, name: str) -> Steps:
        """Steps of a value's integers."""
        node = next((node for node in self.readers.get(name, []) if node.op_type == "QuantizeLinear"), None)
        if node is None:
            self._deny(f"'{name}' is not in 8 bits")
        return self._read_steps(node)

    def _read_steps(self, node: NodeProto) -> Steps:
        """Steps to or from which a node rounds."""
        name = node.input[0]
        step, zero = [self.stored.get(entry) for entry in (*node.input, "")][1:3]
        if step is None or zero is None or zero.dtype != np.uint8 or step.size != 1 or zero.size != 1:
            self._deny(f"'{name}' is not in unsigned 8 bits with one step")
        return Steps([self._require_steps(step.reshape(-1), name).item()], [zero.item() - _MIDDLE])

    def _require_steps(self, steps: NDArray[Any], name: str) -> NDArray[np.float32]:
        """The steps.  Raises InvalidInput unless they are numbers above 0."""
        wrong = steps[~((steps >= LEAST_STEP) & np.isfinite(steps))]
        if wrong.size:
            self._deny(f"a step of '{name}' is {wrong[0]:g}")
        return steps.astype(np.float32)

    def _deny(self, reason: str) -> NoReturn:
        raise InvalidInput(f"{self.source}: {reason}; {_MAKE_ONE}")

    def _refuse(self, node: NodeProto, reason: str) -> NoReturn:
        self._deny(f"{_say(node)}: {node.op_type} {reason}")


def _find_shuffles(model: ModelProto) -> dict[str, set[int]]:
    """The sides of blocks that pixel shuffles make of each value's channels, through sums; 1 where others read it."""
    wanted: dict[str, set[int]] = {value.name: {1} for value in model.graph.output}
    for node in reversed(model.graph.node):
        if node.op_type == "DepthToSpace":
            sides = {int(_attributes(node).get("blocksize", 1))}
        elif node.op_type in ("Relu", "QuantizeLinear", "DequantizeLinear", "Add"):
            sides = wanted.get(node.output[0], {1})
        else:
            sides = {1}
        for name in node.input:
            wanted.setdefault(name, set()).update(sides)
    return wanted


def _order(side: int, channels: int) -> int:
    """The side of blocks, or 1 where both orders of the channels are one: a shuffle to one channel."""
    return 1 if channels == side**2 else side


def _say(node: NodeProto) -> str:
    return str(node.name or node.output[0])


def _attributes(node: NodeProto) -> Mapping[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
