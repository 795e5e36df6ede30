"""Reading the tensors of an ONNX file: no size is believed before its bytes have been counted, and no file outside the
network's own folder is opened.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput, UnsupportedModel, first_line
from memsr_compiler.quantities import say_count

Array = NDArray[Any]

AGAIN = "Export or download it again."
_MAX_RANK = 8
_MAX_SHARING = 64  # a recursive network may use one tensor under many names; a hostile file under millions
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


def require_text(value: str | bytes) -> str:
    """A name, fit to be printed; protobuf hands out bytes where it is not UTF-8."""
    if isinstance(value, bytes) or not value.isprintable():
        raise InvalidInput(f"has a name that is no text ({value[:40]!r}). {AGAIN}")
    return value


def read_initialisers(onnx: ModuleType, tensors: Any, folder: Path) -> dict[str, Array]:
    constants: dict[str, Array] = {}
    beside = _Beside()
    for tensor in tensors:
        where = f"initialiser '{require_text(tensor.name)}'"
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            constants[tensor.name] = _read_external(onnx, tensor, where, folder, beside)
        else:
            constants[tensor.name] = read_array(onnx, tensor, where)
    return constants


def type_name(onnx: ModuleType, number: int) -> str:
    names: dict[int, str] = {n: name for name, n in onnx.TensorProto.DataType.items()}
    return names.get(number, f"of type {number}")


def _read_declaration(onnx: ModuleType, tensor: Any, where: str) -> tuple[str, str, int]:
    """NumPy type, field and number of elements that a tensor says it has."""
    kind = type_name(onnx, tensor.data_type)
    if kind not in _ITEMS:
        raise UnsupportedModel(f"{where} is {kind}, which is not read; export the network in float32")
    if len(tensor.dims) > _MAX_RANK or any(d < 0 for d in tensor.dims):
        raise InvalidInput(f"{where} has the impossible shape {list(tensor.dims)[: _MAX_RANK + 1]}. {AGAIN}")
    return (*_ITEMS[kind], math.prod(tensor.dims))


def read_array(onnx: ModuleType, tensor: Any, where: str) -> Array:
    """A tensor whose data are in the file. Its bytes are counted before any memory is taken."""
    kind, fieldname, count = _read_declaration(onnx, tensor, where)
    raw = tensor.HasField("raw_data")
    there = len(tensor.raw_data) // np.dtype(kind).itemsize if raw else len(getattr(tensor, fieldname))
    if there != count or (raw and len(tensor.raw_data) % np.dtype(kind).itemsize):
        raise InvalidInput(f"{where} declares {say_count(count, 'value')}, and {there} are there. {AGAIN}")
    try:
        return _widen(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{where} cannot be read ({first_line(error)}). {AGAIN}") from error


@dataclass(frozen=True)
class _Beside:
    """Numbers of files beside a network that were read before.

    numbers    by file, first byte, bytes and NumPy type
    places     files, first bytes and bytes
    held       bytes of these, by file
    declared   bytes that tensors name, one as often as it is named, by file
    """

    numbers: dict[tuple[Path, int, int, str], Array] = field(default_factory=dict)
    places: set[tuple[Path, int, int]] = field(default_factory=set)
    held: Counter[Path] = field(default_factory=Counter)
    declared: Counter[Path] = field(default_factory=Counter)


def _read_external(onnx: ModuleType, tensor: Any, where: str, folder: Path, beside: _Beside) -> Array:
    """A tensor whose data are in a file beside the network."""
    kind, _, count = _read_declaration(onnx, tensor, where)
    entries = {require_text(entry.key): require_text(entry.value) for entry in tensor.external_data}
    if len(entries) < len(tensor.external_data):
        raise InvalidInput(f"{where}: the place of its data is told twice. {AGAIN}")
    path = find_beside(entries.get("location", ""), folder, where)
    size = path.stat().st_size
    length = count * np.dtype(kind).itemsize
    try:
        offset, said = int(entries.get("offset") or 0), int(entries.get("length") or length)
    except ValueError:
        raise InvalidInput(f"{where}: the place of its data is not a number. {AGAIN}") from None
    if said != length or offset < 0 or offset + length > size:
        raise InvalidInput(
            f"{where} wants {length} bytes at {offset} of {path.name}, which has {size} bytes, and says {said}. {AGAIN}"
        )
    beside.declared[path] += length
    if beside.declared[path] > _MAX_SHARING * size:
        raise InvalidInput(f"{where} shares its numbers with too many others. The file is damaged or hostile.")
    if (path, offset, length) not in beside.places:
        beside.places.add((path, offset, length))
        beside.held[path] += length
        if beside.held[path] > size:
            raise InvalidInput(f"{where} overlaps other tensors in {path.name}. The file is damaged or hostile.")
    key = (path, offset, length, kind)
    if key not in beside.numbers:
        with path.open("rb") as file:
            file.seek(offset)
            little = np.dtype(kind).newbyteorder("<")
            beside.numbers[key] = _widen(np.frombuffer(file.read(length), dtype=little))
    return beside.numbers[key].reshape(tuple(tensor.dims))


def find_beside(location: str, folder: Path, where: str) -> Path:
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


def _widen(array: Array) -> Array:
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # NaN, refused later by name
            return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
