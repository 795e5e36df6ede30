"""Reading a TFLite file without trusting it: bytes -> `Network`, plain Python and NumPy.

The format is a flatbuffer: tables that point at each other by offsets, which nothing checks.  Whatever an offset that
is wrong leads to is read, or raises; so all of it is read here, in one place, and nothing of it is believed: no size
before its bytes have been counted, no number of an operator or tensor that is not among those that are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput, MemsrError, UnsupportedModel, first_line
from memsr_compiler.quantities import say_count
from memsr_compiler.tflite.model import IDENTIFIER, LEAST_STEP
from memsr_compiler.tflite.write import import_schema

Array = NDArray[Any]

AGAIN = "Export or download it again."
QUANTISED = ("the network is quantised", "give the float32 or float16 file, and quantise the plain one")

_PAD = 16  # bytes of zeros behind the file: offsets near its end are read as something, and then refused
_MAX_RANK = 8
_TYPES = {"FLOAT32": "<f4", "FLOAT16": "<f2", "FLOAT64": "<f8", "INT32": "<i4", "INT64": "<i8"}
_INTEGERS = ("INT8", "UINT8", "INT16")
_OPTIONS = {  # what is read of each operator's options, by the schema's names
    "Conv2DOptions": ("Padding", "StrideW", "StrideH", "DilationWFactor", "DilationHFactor", "FusedActivationFunction"),
    "DepthwiseConv2DOptions": (
        "Padding",
        "StrideW",
        "StrideH",
        "DilationWFactor",
        "DilationHFactor",
        "FusedActivationFunction",
    ),
    "AddOptions": ("FusedActivationFunction",),
    "SubOptions": ("FusedActivationFunction",),
    "MulOptions": ("FusedActivationFunction",),
    "DivOptions": ("FusedActivationFunction",),
    "ConcatenationOptions": ("Axis", "FusedActivationFunction"),
    "LeakyReluOptions": ("Alpha",),
    "DepthToSpaceOptions": ("BlockSize",),
    "SpaceToDepthOptions": ("BlockSize",),
    "ResizeNearestNeighborOptions": ("AlignCorners",),
}
_TABLES = {  # the operators that are read with options, and their tables, which no other table stands in for
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "CONCATENATION": "ConcatenationOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
}
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor: its name, its type in the schema's words, its shape as declared, and its numbers if it is a constant.

    shape   None where a size is free
    """

    name: str
    type: str
    shape: tuple[int | None, ...]
    content: Array | None


@dataclass(frozen=True)
class Operator:
    """An operator.

    name      of what it gives, fit to be printed
    inputs    numbers of values; -1: left out
    options   by the schema's names
    """

    code: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Network:
    """The network in a TFLite file, NHWC.  metadata: small texts that are stored beside it, by name."""

    values: tuple[Value, ...]
    operators: tuple[Operator, ...]
    input: int
    output: int
    metadata: Mapping[str, bytes]


def read_network(data: bytes) -> Network:
    """The network in a TFLite file's bytes.

    Raises InvalidInput for bytes that are damaged or hostile, UnsupportedModel for files with several graphs, images or
    results, MemsrError where the package that knows the format is not installed.
    """
    schema = import_schema()
    if data[4:8] != IDENTIFIER:
        raise InvalidInput(f"is no TFLite file. {AGAIN}")
    try:
        return _Reader(schema, data).read()
    except MemsrError:
        raise
    except Exception as error:  # an offset that is wrong leads anywhere
        raise InvalidInput(f"is a truncated or damaged TFLite file ({first_line(error)}). {AGAIN}") from error


def _names(enumeration: type) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if not name.startswith("_")}


class _Reader:
    def __init__(self, schema: Any, data: bytes) -> None:
        self.schema, self.size = schema, len(data)
        self.model = schema.Model.GetRootAs(bytearray(data + bytes(_PAD)), 0)
        self.codes, self.types = _names(schema.BuiltinOperator), _names(schema.TensorType)
        self.options = _names(schema.BuiltinOptions)
        self.left = len(data) + 2**20  # numbers that constants may have: buffers may be shared, a little

    def read(self) -> Network:
        (graph,) = self._only("graphs", self.model.SubgraphsLength(), self.model.Subgraphs)
        values = tuple(self._value(t, i) for i, t in enumerate(self._each(graph.TensorsLength(), graph.Tensors)))
        codes = list(map(self._code, self._each(self.model.OperatorCodesLength(), self.model.OperatorCodes)))
        operators = tuple(
            self._operator(op, i, codes, values)
            for i, op in enumerate(self._each(graph.OperatorsLength(), graph.Operators))
        )
        (image,) = self._only("inputs", graph.InputsLength(), graph.Inputs)
        (result,) = self._only("outputs", graph.OutputsLength(), graph.Outputs)
        self._require_numbers((image, result), len(values), "the network")
        self._require_one_writer(operators, values, image)
        return Network(values, operators, image, result, self._metadata())

    def _each(self, length: int, entry: Callable[[int], Any]) -> Iterator[Any]:
        """The entries of a vector, each of which takes at least a byte."""
        if length > self.size:
            raise InvalidInput(f"says that {length:,} entries are in {self.size:,} bytes. {AGAIN}")
        return map(entry, range(length))

    def _only(self, what: str, length: int, entry: Callable[[int], Any]) -> list[Any]:
        if length != 1:
            raise UnsupportedModel(
                f"the network: it has {length} {what}, not one; export a network that takes one image and gives one"
            )
        return [entry(0)]

    def _code(self, code: Any) -> str:
        number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())  # a byte was enough once
        if number == self.schema.BuiltinOperator.CUSTOM:
            return f"CUSTOM {_text(code.CustomCode())}"
        return self.codes.get(number, f"operator {number}")

    def _value(self, tensor: Any, place: int) -> Value:
        name = _text(tensor.Name()) or f"tensor {place}"
        kind = self.types.get(tensor.Type(), f"type {tensor.Type()}")
        shape = [int(n) for n in self._each(tensor.ShapeLength(), tensor.Shape)]
        free = [int(n) for n in self._each(tensor.ShapeSignatureLength(), tensor.ShapeSignature)]
        if len(shape) > _MAX_RANK or min(shape, default=0) < 0:
            raise InvalidInput(f"{name}: has the impossible shape {shape[: _MAX_RANK + 1]}. {AGAIN}")
        if tensor.Sparsity() is not None:
            raise UnsupportedModel(f"{name}: is stored without its zeros; export the network with dense weights")
        content = self._content(tensor.Buffer(), name, kind, shape)
        if kind in (*_INTEGERS, "INT32"):
            self._require_steps(tensor, name, kind)
        if len(free) != len(shape):
            free = shape
        if any(f >= 0 and f != n for f, n in zip(free, shape, strict=True)):
            raise InvalidInput(f"{name}: has the shape {shape}, and {free} as well. {AGAIN}")
        return Value(name, kind, tuple(f if f >= 0 else None for f in free), content)

    def _content(self, place: int, name: str, kind: str, shape: list[int]) -> Array | None:
        """The numbers of a constant.  Those of types that are not read stay out: what uses them is refused."""
        if place == 0:
            return None
        self._require_numbers((place,), self.model.BuffersLength(), name)
        buffer = self.model.Buffers(place)
        if buffer.Offset() > 1:
            raise UnsupportedModel(f"{name}: its numbers stand behind the graph, in a file beyond 2 GiB; export .onnx")
        if buffer.DataLength() == 0:
            return None
        if kind not in _TYPES:
            return None
        raw, item, count = buffer.DataAsNumpy(), np.dtype(_TYPES[kind]), math.prod(shape)
        if raw.nbytes != count * item.itemsize:
            raise InvalidInput(
                f"{name}: declares {say_count(count, 'number')}, and has {say_count(raw.nbytes, 'byte')}. {AGAIN}"
            )
        self.left -= count
        if self.left < 0:
            raise InvalidInput(f"{name}: shares its numbers with too many others. The file is damaged or hostile.")
        numbers = np.frombuffer(raw.tobytes(), item).reshape(shape)
        if item.kind != "f":
            return numbers.astype(np.int64)
        bad = int((~np.isfinite(numbers)).sum())
        if bad:
            raise InvalidInput(f"{name}: has {bad} NaN or infinite values; the file is damaged or training diverged.")
        return numbers.astype(np.float64)

    def _is_computed(self, tensor: Any) -> bool:
        return int(tensor.Buffer()) == 0 or int(self.model.Buffers(tensor.Buffer()).DataLength()) == 0

    def _require_steps(self, tensor: Any, name: str, kind: str) -> None:
        """Raises InvalidInput for steps that are none, and for zeros that are none of their integers.

        LiteRT divides by those of computed values, and ends the process; with others it computes something.
        """
        quantization = tensor.Quantization()
        if quantization is None:
            return
        least = LEAST_STEP if kind in _INTEGERS and self._is_computed(tensor) else 0.0
        for step in self._each(quantization.ScaleLength(), quantization.Scale):
            if not (least <= step < math.inf):
                raise InvalidInput(f"{name}: a step of its integers is {step:g}. {AGAIN}")
        ends = np.iinfo(kind.lower())
        for zero in self._each(quantization.ZeroPointLength(), quantization.ZeroPoint):
            if not (ends.min <= zero <= ends.max):
                raise InvalidInput(f"{name}: zero is said to be {zero}, which is no {kind}. {AGAIN}")

    def _operator(self, op: Any, place: int, codes: list[str], values: tuple[Value, ...]) -> Operator:
        self._require_numbers((op.OpcodeIndex(),), len(codes), f"operator {place}")
        code = codes[op.OpcodeIndex()]
        inputs = tuple(int(n) for n in self._each(op.InputsLength(), op.Inputs))
        outputs = tuple(int(n) for n in self._each(op.OutputsLength(), op.Outputs))
        self._require_numbers([n for n in inputs if n != -1], len(values), code)
        self._require_numbers(outputs, len(values), code)
        name = values[outputs[0]].name if outputs else f"operator {place}"
        return Operator(code, name.partition(";")[0], inputs, outputs, self._read_options(op, code, name))

    def _require_one_writer(self, operators: tuple[Operator, ...], values: tuple[Value, ...], image: int) -> None:
        """Raises InvalidInput for operators that write over the image, a constant, or what another has made."""
        written = {image, *(i for i, value in enumerate(values) if value.content is not None)}
        for op in operators:
            for number in op.outputs:
                if number in written:
                    raise InvalidInput(f"{op.name}: {op.code} writes over what is there already. {AGAIN}")
                written.add(number)

    def _read_options(self, op: Any, code: str, name: str) -> dict[str, Any]:
        """The options in an operator's own table.  Interpreters look at no other, and take zeros where it is missing.

        Zeros are no strides, so a convolution has to have it.
        """
        kind = self.options.get(op.BuiltinOptionsType(), "another operator's")
        table = op.BuiltinOptions()
        own = _TABLES.get(code)
        if own is None:
            return {}
        if table is None or kind == "NONE":
            if code in _CONVOLUTIONS:
                raise InvalidInput(f"{name}: {code} has no options, strides and padding among them. {AGAIN}")
            return {}
        if kind != own:
            raise InvalidInput(f"{name}: {code} has {kind}, where {own} are due. {AGAIN}")
        options = getattr(self.schema, kind)()
        options.Init(table.Bytes, table.Pos)
        return {name: getattr(options, name)() for name in _OPTIONS[kind]}

    def _metadata(self) -> dict[str, bytes]:
        texts: dict[str, bytes] = {}
        for entry in self._each(self.model.MetadataLength(), self.model.Metadata):
            self._require_numbers((entry.Buffer(),), self.model.BuffersLength(), "its metadata")
            buffer = self.model.Buffers(entry.Buffer())
            if 0 < buffer.DataLength() < 2**16:
                texts[_text(entry.Name())] = buffer.DataAsNumpy().tobytes()
        return texts

    def _require_numbers(self, numbers: Any, count: int, where: str) -> None:
        for number in numbers:
            if not 0 <= number < count:
                raise InvalidInput(f"{where}: speaks of number {number} where there are {count}. {AGAIN}")


def _text(name: bytes | None) -> str:
    """A name, fit to be printed."""
    text = (name or b"").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]
