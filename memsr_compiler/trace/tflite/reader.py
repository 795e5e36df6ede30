"""TFLite files -> IR: the reader for networks as phones have them, in floating point."""

from __future__ import annotations

import math
import re
from typing import TypeAlias

from memsr_compiler.errors import MemsrError, UnsupportedModel
from memsr_compiler.tflite.metadata import read_facts
from memsr_compiler.trace.builder import Builder, Padded
from memsr_compiler.trace.tflite.file import QUANTISED, Array, Network, Operator, read_network
from memsr_compiler.trace.tflite.words import TFLITE_WORDS, Context
from memsr_compiler.trace.trace import GraphModule
from memsr_compiler.trace.views import View, tell_sizes

Value: TypeAlias = View | Padded | Array

_FLOATS = ("FLOAT32", "FLOAT16")
_COMPOUND = ("SUB", "DEPTH_TO_SPACE", "MINIMUM", "MAXIMUM", "RESIZE_NEAREST_NEIGHBOR")
_INTEGERS = ("INT8", "UINT8", "INT16", "INT4")


def load_tflite(data: bytes) -> tuple[GraphModule, tuple[float, float] | None]:
    """The super-resolution network in a TFLite file, as a module (N, C, H, W) -> (N, C', s H, s W); its input range.

    Weights become float64.  A file made for one size of image is read as the network for all sizes that it is at this
    size.  The range is None where the file does not say it, which those of `memsrc export` do.

    Raises InvalidInput for a file that is damaged or hostile, and for weights that are NaN or infinite;
    UnsupportedModel naming the place, the operator, why it cannot be plain and what to do; MemsrError where the package
    that knows the format is not installed.
    """
    network = read_network(data)
    return _Reader(network).read(), _read_range(network)


class _Reader:
    def __init__(self, network: Network) -> None:
        image = network.values[network.input]
        if image.type in _INTEGERS:
            raise UnsupportedModel(f"{image.name}: {QUANTISED[0]}; {QUANTISED[1]}")
        if image.type not in _FLOATS:
            raise UnsupportedModel(f"{image.name}: the input is {image.type}, not floating point; export it in float32")
        if len(image.shape) != 4 or not image.shape[3]:
            raise UnsupportedModel(
                f"{image.name}: the input has the shape {_show(image.shape)}, not (1, height, width, channels); "
                "export it with four axes and a number of channels"
            )
        sides = [side or math.inf for side in image.shape[1:3]]
        self.assumed = tell_sizes(sides, fixed=math.inf not in sides)
        self.network = network
        self.builder = Builder(image.shape[3], float("-inf"), float("inf"))
        self.context = Context(self.builder, image.shape[1], image.shape[2])
        constants = {i: v.content for i, v in enumerate(network.values) if v.content is not None}
        self.values: dict[int, Value] = {**constants, network.input: self.builder.input}

    def read(self) -> GraphModule:
        for op in _list_needed(self.network):
            self._locate(op)
            self._store(op, self._result(op))
        self.builder.where, self.builder.last = self.network.values[self.network.output].name, "output"
        result = self.values.get(self.network.output)
        self.builder.require_settled([result])
        if not isinstance(result, View):
            self.builder.refuse(
                "the network returns nothing that it computes from the image", "export or download it again"
            )
        return GraphModule(self.builder.graph(result), reader="tflite", assumed=self.assumed)

    def _locate(self, op: Operator) -> None:
        self.builder.where = re.sub(r"[^\w.:-]", "-", op.name.strip("/").replace("/", "."))
        self.builder.last = op.code
        self.builder.leaf = op.code not in _COMPOUND

    def _result(self, op: Operator) -> Value:
        for number in op.inputs:
            if number >= 0 and self.network.values[number].type in _INTEGERS:
                self.builder.refuse(*QUANTISED)
        self._require_one_width(op)
        operands = [self._operand(number) for number in op.inputs]
        if op.code not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            self.builder.require_settled(operands)
        word = TFLITE_WORDS.get(op.code)
        if word is None:
            known = ", ".join(sorted(TFLITE_WORDS))
            self.builder.refuse(f"this operator is not read, only {known}", "export the network without it, or as ONNX")
        try:
            result: Value = word(self.context, op.options, *operands)
            return result
        except MemsrError:
            raise
        except (TypeError, ValueError, IndexError, KeyError, RuntimeError, AttributeError):
            self.builder.refuse("it has operands that it cannot take", "export or download it again")

    def _require_one_width(self, op: Operator) -> None:
        """Refuse float16 beside float32: LiteRT's kernels take all for numbers of one type, and read past the end."""
        values = [self.network.values[number] for number in op.inputs if number >= 0]
        if {v.type for v in values} >= set(_FLOATS):
            name = next(v.name for v in values if v.type == "FLOAT16")
            self.builder.refuse(
                f"'{name}' is float16 beside float32, which no interpreter computes with",
                "widen it by DEQUANTIZE, as TensorFlow's converter does",
            )

    def _operand(self, number: int) -> Value | None:
        if number < 0:
            return None
        if number not in self.values:
            name = self.network.values[number].name
            self.builder.refuse(f"it uses '{name}', a result that is not read", "export the network without it")
        return self.values[number]

    def _store(self, op: Operator, result: Value) -> None:
        if len(op.outputs) != 1:
            self.builder.refuse(f"it gives {len(op.outputs)} results, not one", "export the network without it")
        self.values[op.outputs[0]] = result


def _list_needed(network: Network) -> list[Operator]:
    """The operators that the output needs, in order: what a network computes besides is not read, nor refused."""
    wanted, needed = {network.output}, list[Operator]()
    for op in reversed(network.operators):
        if not wanted.isdisjoint(op.outputs):
            wanted.update(op.inputs)
            needed.append(op)
    return needed[::-1]


def _read_range(network: Network) -> tuple[float, float] | None:
    """The input range in a file of ours; None for others, and where it is not two numbers in their order."""
    try:
        low, high = map(float, read_facts(network.metadata).get("input_range", "").split())
    except ValueError:
        return None
    return (low, high) if -1e6 < low < high < 1e6 else None


def _show(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('free' if n is None else str(n) for n in shape)})"
