"""A network as the bytes of a TFLite file, by the `tflite` and `flatbuffers` packages; nothing of TensorFlow is needed.

A flatbuffer is built from its end: what is written first lies last, which is the file's own SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from memsr_compiler.errors import ExportError, MemsrError, say_missing
from memsr_compiler.files import DIGEST_KEY, NO_DIGEST
from memsr_compiler.tflite.metadata import DESCRIPTION
from memsr_compiler.tflite.model import FREE, IDENTIFIER, Model, Operator, Tensor

LARGEST = (2 << 30) - (1 << 20)
"""Bytes of weights that a flatbuffer can hold beside its tables."""

SAME, RELU = 0, 1
"""Padding by (k - 1) / 2 zeros where the stride is 1, and the activation of a convolution."""

_VERSION = 3
_OPTIONS: dict[
    str, tuple[str, dict[str, str]]
] = {  # each operator's table of options, "": none, and the fields that are set
    "CONV_2D": (
        "Conv2DOptions",
        {
            "padding": "Padding",
            "stride_w": "StrideW",
            "stride_h": "StrideH",
            "activation": "FusedActivationFunction",
            "dilation_w": "DilationWFactor",
            "dilation_h": "DilationHFactor",
        },
    ),
    "ADD": ("AddOptions", {"activation": "FusedActivationFunction"}),
    "DEPTH_TO_SPACE": ("DepthToSpaceOptions", {"block_size": "BlockSize"}),
    "PRELU": ("", {}),
    "QUANTIZE": ("QuantizeOptions", {}),
    "DEQUANTIZE": ("DequantizeOptions", {}),
}
_OP_VERSIONS = {  # the oldest in which an operator takes these operands
    ("CONV_2D", "int8"): 3,
    ("ADD", "int8"): 2,
    ("DEPTH_TO_SPACE", "int8"): 2,
    ("DEQUANTIZE", "int8"): 2,
    ("DEQUANTIZE", "float16"): 3,
}


def to_bytes(model: Model, description: str) -> bytes:
    """The file of a network, which ends with the SHA-256 of all that comes before.

    Raises ExportError where it is too large, MemsrError without the two packages.
    """
    schema = import_schema()
    import flatbuffers

    held = sum(tensor.data.nbytes for tensor in model.tensors if tensor.data is not None)
    if held > LARGEST:
        raise ExportError(f"{held:,} bytes of weights, and a TFLite file holds {LARGEST:,}; write .onnx")
    builder = flatbuffers.Builder(held + (1 << 16))
    content = _Writer(schema, builder, model).write(f"{description}; {DESCRIPTION}")
    before = content.removesuffix(NO_DIGEST.encode())
    assert before != content, "the first text written ends the file"
    return before + hashlib.sha256(before).hexdigest().encode()


def import_schema() -> ModuleType:
    """The `tflite` package.  Raises MemsrError where it is not installed, or flatbuffers is not."""
    try:
        import flatbuffers  # noqa: F401
        import tflite
    except ImportError:
        raise MemsrError(say_missing("the tflite package", "reads and writes TFLite files", "tflite")) from None
    schema: ModuleType = tflite
    return schema


class _Writer:
    def __init__(self, schema: ModuleType, builder: Any, model: Model) -> None:
        self.schema, self.builder, self.model = schema, builder, model

    def write(self, description: str) -> bytes:
        b, model = self.builder, self.model
        named_texts = {DIGEST_KEY: NO_DIGEST, **model.metadata}
        texts = [self._buffer(text.encode()) for text in named_texts.values()]
        stored = [t.data for t in model.tensors if t.data is not None]
        numbers = [self._buffer(data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()) for data in stored]
        places = iter(range(1, len(stored) + 1))  # buffer 0 is empty: that of what is computed
        tensors = [self._tensor(t, next(places) if t.data is not None else 0) for t in model.tensors]
        kinds = sorted({self._kind(op) for op in model.operators})
        operators = [self._operator(op, kinds.index(self._kind(op))) for op in model.operators]
        graph = self._table(
            "SubGraph",
            Tensors=self._vector(tensors),
            Inputs=self._integers([model.image]),
            Outputs=self._integers([model.upscaled]),
            Operators=self._vector(operators),
            Name=b.CreateString("main"),
        )
        metadata = [
            self._table("Metadata", Name=b.CreateString(name), Buffer=1 + len(stored) + i)
            for i, name in enumerate(named_texts)
        ]
        end = self._table(
            "Model",
            Version=_VERSION,
            OperatorCodes=self._vector([self._operator_code(*kind) for kind in kinds]),
            Subgraphs=self._vector([graph]),
            Description=b.CreateString(description),
            Buffers=self._vector([self._table("Buffer"), *numbers, *texts]),
            Metadata=self._vector(metadata),
        )
        b.Finish(end, file_identifier=IDENTIFIER)
        return bytes(b.Output())

    def _kind(self, op: Operator) -> tuple[str, int]:
        return op.op, _OP_VERSIONS.get((op.op, self.model.tensors[op.inputs[0]].type), 1)

    def _operator_code(self, op: str, version: int) -> int:
        code = getattr(self.schema.BuiltinOperator, op)
        return self._table("OperatorCode", DeprecatedBuiltinCode=min(code, 127), Version=version, BuiltinCode=code)

    def _tensor(self, tensor: Tensor, buffer: int) -> int:
        fields = {
            "Shape": self._integers([1 if n == FREE else n for n in tensor.shape]),
            "Type": getattr(self.schema.TensorType, tensor.type.upper()),
            "Buffer": buffer,
            "Name": self.builder.CreateString(tensor.name),
        }
        if tensor.steps is not None:
            steps = tensor.steps
            fields["Quantization"] = self._table(
                "QuantizationParameters",
                Scale=self._vector(steps.step, self.builder.PrependFloat32, 4),
                ZeroPoint=self._vector(steps.zero, self.builder.PrependInt64, 8),
                QuantizedDimension=steps.axis,
            )
        if FREE in tensor.shape:
            fields["ShapeSignature"] = self._integers(tensor.shape)
        return self._table("Tensor", **fields)

    def _operator(self, op: Operator, index: int) -> int:
        name, known = _OPTIONS[op.op]
        options = {}
        if name:
            table = self._table(name, **{known[key]: value for key, value in op.options.items()})
            options = {"BuiltinOptionsType": getattr(self.schema.BuiltinOptions, name), "BuiltinOptions": table}
        return self._table(
            "Operator",
            OpcodeIndex=index,
            Inputs=self._integers(op.inputs),
            Outputs=self._integers([op.output]),
            **options,
        )

    def _buffer(self, content: bytes) -> int:
        """A buffer whose content is aligned as interpreters want it, which use it where it lies."""
        b = self.builder
        b.StartVector(1, len(content), 16)
        b.head -= len(content)
        b.Bytes[b.head : b.head + len(content)] = content
        return self._table("Buffer", Data=b.EndVector())

    def _integers(self, numbers: Sequence[int]) -> int:
        return self._vector(numbers, self.builder.PrependInt32)

    def _vector(self, values: Sequence[Any], prepend: Callable[[Any], None] | None = None, size: int = 4) -> int:
        """A vector of numbers, or of what lies elsewhere."""
        self.builder.StartVector(size, len(values), size)
        for value in reversed(values):
            (prepend or self.builder.PrependUOffsetTRelative)(value)
        offset: int = self.builder.EndVector()
        return offset

    def _table(self, name: str, **fields: Any) -> int:
        """A table of the schema, with the fields that are given."""
        getattr(self.schema, f"{name}Start")(self.builder)
        for field, value in fields.items():
            getattr(self.schema, f"{name}Add{field}")(self.builder, value)
        offset: int = getattr(self.schema, f"{name}End")(self.builder)
        return offset
