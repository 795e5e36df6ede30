"""TFLite files as anybody's converter may write them, for tests of the reader: whatever operators, whatever options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

TYPES = {"float32": "FLOAT32", "float16": "FLOAT16", "int32": "INT32", "int8": "INT8"}


@dataclass
class TfliteGraph:
    """A graph that is being put together; `image` is value 0.

    shape    of the image, NHWC;  free  whether its height and width are
    stated   its shape as a signature, where that is another;  else it is as `free` says
    sparse   values that say that they are stored without their zeros
    """

    shape: Sequence[int] = (1, 5, 7, 3)
    free: bool = True
    dtype: str = "float32"
    values: list[tuple[str, str, NDArray[Any] | None]] = field(default_factory=list)
    operators: list[tuple[str, list[int], list[int], str, dict[str, Any]]] = field(default_factory=list)
    metadata: dict[str, bytes] = field(default_factory=dict)
    inputs: tuple[int, ...] = (0,)
    outputs: tuple[int, ...] = ()
    sparse: tuple[int, ...] = ()
    stated: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.values.append(("image", self.dtype, None))

    def constant(self, numbers: NDArray[Any]) -> int:
        self.values.append((f"constant_{len(self.values)}", numbers.dtype.name, numbers))
        return len(self.values) - 1

    def op(self, code: str, *inputs: int, table: str = "", **options: Any) -> int:
        """Add an operator with options in a table of the schema, and return the number of its result."""
        self.values.append((f"layer/{code.lower()}_{len(self.operators)}", "float32", None))
        self.operators.append((code, list(inputs), [len(self.values) - 1], table, options))
        return len(self.values) - 1

    def conv(self, x: int, kernel: NDArray[Any], bias: NDArray[Any], **options: Any) -> int:
        """A convolution, kernel (O, h, w, I); SAME by default."""
        options = {"Padding": 0, "StrideW": 1, "StrideH": 1} | options
        return self.op("CONV_2D", x, self.constant(kernel), self.constant(bias), table="Conv2DOptions", **options)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path

    def to_bytes(self) -> bytes:
        return _Writer(self).write()


class _Writer:
    def __init__(self, graph: TfliteGraph) -> None:
        self.graph = graph
        self.builder: Any = flatbuffers.Builder(0)

    def write(self) -> bytes:
        graph = self.graph
        contents = [b"", *(n.tobytes() for _, _, n in graph.values if n is not None), *graph.metadata.values()]
        buffers = self.tables([self.table("Buffer", Data=self.data(c) if c else None) for c in contents])
        codes = list(dict.fromkeys(code for code, *_ in graph.operators))
        first = len(contents) - len(graph.metadata)
        metadata = self.tables(
            [self.table("Metadata", Name=self.text(name), Buffer=first + i) for i, name in enumerate(graph.metadata)]
        )
        opcodes = self.tables([self.code(code) for code in codes])
        places = iter(range(1, len(contents)))
        tensors = self.tables(
            [self.tensor(*value, 0 if value[2] is None else next(places), i) for i, value in enumerate(graph.values)]
        )
        operators = self.tables([self.operator(codes, *op) for op in graph.operators])
        outputs = graph.outputs or (graph.operators[-1][2][0],)
        subgraph = self.table(
            "SubGraph",
            Tensors=tensors,
            Inputs=self.integers(graph.inputs),
            Outputs=self.integers(outputs),
            Operators=operators,
        )
        root = self.table(
            "Model",
            Version=3,
            OperatorCodes=opcodes,
            Subgraphs=self.tables([subgraph]),
            Buffers=buffers,
            Metadata=metadata,
        )
        self.builder.Finish(root, file_identifier=b"TFL3")
        return bytes(self.builder.Output())

    def code(self, code: str) -> int:
        if code.startswith("CUSTOM "):
            return self.table("OperatorCode", DeprecatedBuiltinCode=32, BuiltinCode=32, CustomCode=self.text(code[7:]))
        number = getattr(tflite.BuiltinOperator, code)
        return self.table("OperatorCode", DeprecatedBuiltinCode=min(number, 127), BuiltinCode=number)

    def tensor(self, name: str, dtype: str, numbers: NDArray[Any] | None, buffer: int, place: int) -> int:
        shape = list(self.graph.shape if place == 0 else () if numbers is None else numbers.shape)
        stated = [shape[0], -1, -1, shape[3]] if place == 0 and self.graph.free else None
        if place == 0 and self.graph.stated:
            stated = list(self.graph.stated)
        return self.table(
            "Tensor",
            Shape=self.integers(shape),
            Type=getattr(tflite.TensorType, TYPES[dtype]),
            Buffer=buffer,
            Name=self.text(name),
            ShapeSignature=self.integers(stated) if stated else None,
            Sparsity=self.table("SparsityParameters") if place in self.graph.sparse else None,
        )

    def operator(
        self, codes: list[str], code: str, inputs: list[int], outputs: list[int], table: str, options: dict[str, Any]
    ) -> int:
        chosen = self.table(table, **options) if table else None
        return self.table(
            "Operator",
            OpcodeIndex=codes.index(code),
            Inputs=self.integers(inputs),
            Outputs=self.integers(outputs),
            BuiltinOptionsType=getattr(tflite.BuiltinOptions, table) if table else None,
            BuiltinOptions=chosen,
        )

    def table(self, kind: str, **fields: Any) -> int:
        getattr(tflite, f"{kind}Start")(self.builder)
        for name, value in fields.items():
            if value is not None:
                getattr(tflite, f"{kind}Add{name}")(self.builder, value)
        return int(getattr(tflite, f"{kind}End")(self.builder))

    def tables(self, tables: Sequence[int]) -> int:
        self.builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self.builder.PrependUOffsetTRelative(table)
        return int(self.builder.EndVector())

    def text(self, text: str) -> int:
        return int(self.builder.CreateString(text))

    def integers(self, numbers: Sequence[int]) -> int:
        return int(self.builder.CreateNumpyVector(np.array(numbers, np.int32)))

    def data(self, content: bytes) -> int:
        self.builder.StartVector(1, len(content), 16)
        start = self.builder.Head() - len(content)
        self.builder.head = start
        self.builder.Bytes[start : start + len(content)] = content
        return int(self.builder.EndVector())
