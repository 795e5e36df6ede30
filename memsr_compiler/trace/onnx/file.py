"""Reading an ONNX file without trusting it: bytes -> `Network`, plain Python and NumPy.

The only file that knows the onnx package and protobuf. No tensor's size is believed before its bytes have
been counted, and no file outside the network's own folder is opened.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput, UnsupportedModel, first_line

Array = NDArray[Any]

OPSETS = range(11, 22)
_MAX_RANK = 8
_AGAIN = "Export or download it again."
_ITEMS: dict[str, tuple[str, str]] = {  # ONNX name: NumPy name, field of a TensorProto without raw_data
    "FLOAT": ("float32", "float_data"),
    "DOUBLE": ("float64", "double_data"),
    "FLOAT16": ("float16", "int32_data"),
    "INT64": ("int64", "int64_data"),
    "INT32": ("int32", "int32_data"),
    "INT16": ("int16", "int32_data"),
    "INT8": ("int8", "int32_data"),
    "UINT8": ("uint8", "int32_data"),
    "BOOL": ("bool", "int32_data"),
}
_FLOATS = ("FLOAT", "DOUBLE", "FLOAT16")


@dataclass(frozen=True, eq=False)
class Node:
    """One ONNX node. `name` is never empty; an operand or a result that is left out is "".

    attributes   int, float, str, lists of these, or an array
    """

    op: str
    name: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def integer(self, name: str, default: int) -> int:
        return int(self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        value = float(self.attributes.get(name, default))
        if not math.isfinite(value):
            raise InvalidInput(f"{self.name}: {self.op}: its {name} is {value}. {_AGAIN}")
        return value

    def text(self, name: str, default: str) -> str:
        return str(self.attributes.get(name, default))

    def integers(self, name: str, default: list[int]) -> list[int]:
        return [int(i) for i in self.attributes.get(name, default)]


@dataclass(frozen=True, eq=False)
class Network:
    """What an ONNX file holds, floating point widened to float64.

    input    its name, and its shape (N, C, H, W), None where the file leaves a size free
    nodes    operands before their users
    """

    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    input: str
    shape: tuple[int | None, ...]
    output: str


def read_network(path: Path) -> Network:
    """The network in an ONNX file.

    Raises InvalidInput for a file that is missing, damaged or hostile; UnsupportedModel for another opset,
    for control flow, and for networks with more than one input or output. The messages do not repeat the
    path.
    """
    onnx = _package()
    model = _parsed(onnx, path)
    opset = _opset(model)
    nodes = tuple(_node(onnx, n, i) for i, n in enumerate(model.graph.node))
    if model.functions:
        name = _text(model.functions[0].name)
        raise UnsupportedModel(
            f"{name}: a function defined in the file is not read; inline it with onnx.inliner.inline_local_functions"
        )
    if model.graph.sparse_initializer:
        name = _text(model.graph.sparse_initializer[0].values.name)
        raise UnsupportedModel(f"{name}: a sparse initialiser is not read; store it dense")
    constants = _initialisers(onnx, model.graph.initializer, path.parent)
    _check(onnx, path)
    _check_finite(constants, nodes)
    name, shape = _input(onnx, model.graph, constants)
    output = _output(model.graph)
    return Network(opset, nodes, constants, name, shape, output)


def _package() -> ModuleType:
    try:
        import onnx
        import onnx.checker
        import onnx.numpy_helper
    except ImportError as error:
        raise InvalidInput("is an ONNX file, which takes the onnx package to read. Run `pip install onnx`.") from error
    return onnx


def _parsed(onnx: ModuleType, path: Path) -> Any:
    """The file as a ModelProto, external data not loaded."""
    from google.protobuf.message import DecodeError

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot be read ({error.strerror or error}). Check the path.") from error
    if not data:
        raise InvalidInput(f"is empty. {_AGAIN}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise InvalidInput(f"is no ONNX file, or a truncated one ({first_line(error)}). {_AGAIN}") from error
    if not model.graph.node and not model.graph.output:
        raise InvalidInput(f"is no ONNX file: it holds no graph. {_AGAIN}")
    return model


def _check(onnx: ModuleType, path: Path) -> None:
    try:
        onnx.checker.check_model(os.fspath(path))
    except Exception as error:  # the checker raises its own errors, and protobuf's and Python's
        raise InvalidInput(f"is not valid ONNX ({first_line(error)}). {_AGAIN}") from error


def _opset(model: Any) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise InvalidInput("names no ONNX opset. Export it again.")
    version = int(versions[0])
    if version not in OPSETS:
        raise UnsupportedModel(
            f"the network: ONNX opset {version} is not read, only {OPSETS[0]} to {OPSETS[-1]}; "
            "export it with opset_version=17, or convert it with onnx.version_converter"
        )
    return version


def _text(value: str | bytes) -> str:
    """A name, fit to be printed; protobuf hands out bytes where it is not UTF-8."""
    if isinstance(value, bytes) or not value.isprintable():
        raise InvalidInput(f"has a name that is no text ({value[:40]!r}). {_AGAIN}")
    return value


# -- nodes -----------------------------------------------------------------------------------------


def _node(onnx: ModuleType, proto: Any, position: int) -> Node:
    op, inputs, outputs = (
        _text(proto.op_type),
        tuple(map(_text, proto.input)),
        tuple(map(_text, proto.output)),
    )
    name = _text(proto.name) or next(filter(None, outputs), f"{op}_{position}")
    attributes = {_text(a.name): _attribute(onnx, name, op, a) for a in proto.attribute}
    return Node(op, name, _text(proto.domain), inputs, outputs, attributes)


def _attribute(onnx: ModuleType, node: str, op: str, proto: Any) -> Any:
    kind = onnx.AttributeProto.AttributeType.Name(proto.type)
    if kind in ("GRAPH", "GRAPHS"):
        raise UnsupportedModel(
            f"{node}: {op}: control flow is not read; export the network from torch.jit.trace, "
            "or simplify the file (onnxsim) so that the decision is taken once"
        )
    if kind == "TENSOR":
        where = f"{node}: {op}: its {proto.name}"
        if proto.t.data_location == onnx.TensorProto.EXTERNAL:
            raise InvalidInput(f"{where} is kept in another file, which only initialisers may be. Save it again.")
        return _array(onnx, proto.t, where)
    if kind == "STRING":
        return _text(proto.s.decode("utf-8", "replace"))
    if kind in ("INT", "FLOAT", "INTS", "FLOATS"):
        value = onnx.helper.get_attribute_value(proto)
        return list(value) if kind.endswith("S") else value
    raise UnsupportedModel(
        f"{node}: {op}: its {proto.name} is a {kind.lower()}, which is not read; store numbers or a tensor"
    )


# -- tensors ---------------------------------------------------------------------------------------


def _initialisers(onnx: ModuleType, tensors: Any, folder: Path) -> dict[str, Array]:
    constants: dict[str, Array] = {}
    ranges: dict[tuple[Path, int, int], bytes] = {}
    for tensor in tensors:
        where = f"initialiser '{_text(tensor.name)}'"
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            constants[tensor.name] = _external(onnx, tensor, where, folder, ranges)
        else:
            constants[tensor.name] = _array(onnx, tensor, where)
    return constants


def _type_name(onnx: ModuleType, number: int) -> str:
    names: dict[int, str] = {n: name for name, n in onnx.TensorProto.DataType.items()}
    return names.get(number, f"of type {number}")


def _declared(onnx: ModuleType, tensor: Any, where: str) -> tuple[str, str, int]:
    """NumPy type, field and number of elements that a tensor says it has."""
    kind = _type_name(onnx, tensor.data_type)
    if kind not in _ITEMS:
        raise UnsupportedModel(f"{where} is {kind}, which is not read; export the network in float32")
    if len(tensor.dims) > _MAX_RANK or any(d < 0 for d in tensor.dims):
        raise InvalidInput(f"{where} has the impossible shape {list(tensor.dims)[: _MAX_RANK + 1]}. {_AGAIN}")
    return (*_ITEMS[kind], math.prod(tensor.dims))


def _array(onnx: ModuleType, tensor: Any, where: str) -> Array:
    """A tensor whose data are in the file. Its bytes are counted before any memory is taken."""
    kind, fieldname, count = _declared(onnx, tensor, where)
    raw = tensor.HasField("raw_data")
    found = len(tensor.raw_data) // np.dtype(kind).itemsize if raw else len(getattr(tensor, fieldname))
    if found != count or (raw and len(tensor.raw_data) % np.dtype(kind).itemsize):
        raise InvalidInput(f"{where} declares {count} values, and {found} are there. {_AGAIN}")
    try:
        return _widened(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{where} cannot be read ({first_line(error)}). {_AGAIN}") from error


def _external(
    onnx: ModuleType, tensor: Any, where: str, folder: Path, ranges: dict[tuple[Path, int, int], bytes]
) -> Array:
    """A tensor whose data are in a file beside the network."""
    kind, _, count = _declared(onnx, tensor, where)
    entries = {_text(entry.key): _text(entry.value) for entry in tensor.external_data}
    path = _beside(entries.get("location", ""), folder, where)
    size = path.stat().st_size
    length = count * np.dtype(kind).itemsize
    try:
        offset, said = int(entries.get("offset") or 0), int(entries.get("length") or length)
    except ValueError:
        raise InvalidInput(f"{where}: the place of its data is not a number. {_AGAIN}") from None
    if said != length or offset < 0 or offset + length > size:
        raise InvalidInput(
            f"{where} wants {length} bytes at {offset} of {path.name}, which has {size} bytes, "
            f"and says {said}. {_AGAIN}"
        )
    key = (path, offset, length)
    if key not in ranges:
        if length + sum(n for p, _, n in ranges if p == path) > size:
            raise InvalidInput(f"{where} overlaps other tensors in {path.name}. The file is damaged or hostile.")
        with path.open("rb") as file:
            file.seek(offset)
            ranges[key] = file.read(length)
    little = np.dtype(kind).newbyteorder("<")
    return _widened(np.frombuffer(ranges[key], dtype=little).reshape(tuple(tensor.dims)))


def _beside(location: str, folder: Path, where: str) -> Path:
    """The file that external data name, if it is a regular file in the network's folder."""
    parts = location.replace("\\", "/").split("/")
    inside = f"{where}: its data are said to be in '{location}'"
    if not location or "\0" in location or parts[0] == "" or ":" in parts[0] or ".." in parts:
        raise InvalidInput(f"{inside}, which is not a path inside the network's folder. Do not trust this file.")
    home = folder.resolve()
    path = (home / location).resolve()
    if not path.is_relative_to(home):
        raise InvalidInput(
            f"{inside}, a link that leaves the network's folder. Put the data file itself beside the network."
        )
    if not path.is_file():
        raise InvalidInput(f"{inside}, and there is no such file. Put it beside the network.")
    return path


def _widened(array: Array) -> Array:
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # NaN, refused later by name
            return array.astype(np.float64)
    return array if array.dtype.kind == "b" else array.astype(np.int64)


def _check_finite(constants: Mapping[str, Array], nodes: tuple[Node, ...]) -> None:
    """Weights are numbers. Only the bounds of Clip may be infinite."""
    others = {name for node in nodes if node.op != "Clip" for name in node.inputs}
    for name, array in constants.items():
        if array.dtype.kind != "f":
            continue
        bad = np.isnan(array) if name not in others else ~np.isfinite(array)
        if bool(bad.any()):
            raise InvalidInput(
                f"initialiser '{name}' has {int(bad.sum())} NaN or infinite values; "
                "the file is damaged or training diverged."
            )


# -- inputs and outputs ----------------------------------------------------------------------------


def _input(onnx: ModuleType, graph: Any, constants: Mapping[str, Array]) -> tuple[str, tuple[int | None, ...]]:
    inputs = [value for value in graph.input if _text(value.name) not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UnsupportedModel(
            f"the network: it takes {len(inputs)} inputs ({names}), not one image; "
            "make the others constants, or export a module that takes the image only"
        )
    value = inputs[0]
    kind = _type_name(onnx, value.type.tensor_type.elem_type)
    if kind not in _FLOATS:
        raise UnsupportedModel(
            f"{value.name}: the input is {kind}, not floating point; export the network without its cast"
        )
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise UnsupportedModel(
            f"{value.name}: the input has {len(dims)} axes, not (N, C, height, width); export it with four"
        )
    return value.name, tuple(int(d.dim_value) if d.dim_value > 0 else None for d in dims)


def _output(graph: Any) -> str:
    names = [_text(value.name) for value in graph.output]
    if len(names) != 1:
        raise UnsupportedModel(
            f"the network: it returns {len(names)} values ({', '.join(names)}), not one image; "
            "export a module that returns the image only"
        )
    return str(names[0])
