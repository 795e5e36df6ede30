"""Reading an ONNX file without trusting it: bytes -> `Network`, plain Python and NumPy.

This file and `tensors.py`, which reads what the numbers are, are all that knows the onnx package and protobuf.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from memsr_compiler.errors import InvalidInput, UnsupportedModel, first_line
from memsr_compiler.files import path_or_content, read_file
from memsr_compiler.trace.onnx.tensors import AGAIN, Array, read_array, read_initialisers, require_text, type_name

OPSETS = range(11, 22)
_CONVERTER = (
    "; onnx.version_converter too brings it there, but makes linear Upsample and Resize other ones (by half pixels) "
    "without a word: compare what both give"
)
_RANGES = "pkg.torch.export.ExportedProgram.range_constraints"
_RANGE = re.compile(r": VR\[(\d{1,18}), (\d{1,18}|int_oo)\]")
_FLOATS = ("FLOAT", "DOUBLE", "FLOAT16")
_BOUNDED = ("Clip", "Max", "Min", "Cast", "Identity")  # operators of which an operand may be infinite


@dataclass(frozen=True, eq=False)
class Node:
    """One ONNX node. `name` is never empty; an operand or a result that is left out is "".

    attributes   int, float, str, lists of these, or an array
    type         of its results, by TensorProto's numbers
    """

    op: str
    name: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    type: int = 1

    def integer(self, name: str, default: int) -> int:
        return int(self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        value = float(self.attributes.get(name, default))
        if not math.isfinite(value):
            raise InvalidInput(f"{self.name}: {self.op}: its {name} is {value}. {AGAIN}")
        return value

    def text(self, name: str, default: str) -> str:
        return str(self.attributes.get(name, default))

    def integers(self, name: str, default: list[int]) -> list[int]:
        return [int(i) for i in self.attributes.get(name, default)]


def is_in_training(node: Node) -> bool:
    """Whether a BatchNormalization takes the image's own statistics: as it says, or, up to opset 13, returns them."""
    return bool(node.integer("training_mode", 0)) or sum(map(bool, node.outputs)) > 1


@dataclass(frozen=True, eq=False)
class Network:
    """The network in an ONNX file, floating point widened to float64.

    input    its name;   shape   (N, C, H, W), None where the file leaves a size free;   kind   "FLOAT", "FLOAT16"
    nodes    those that the output needs, operands before their users
    ranges   least and largest of the free sizes, as torch's newer exporter notes them
    """

    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    input: str
    shape: tuple[int | None, ...]
    kind: str
    output: str
    ranges: tuple[tuple[float, float], ...] = ()


def read_network(path: Path) -> Network:
    """The network in an ONNX file.

    Raises InvalidInput for a file that is missing, damaged or hostile; UnsupportedModel for another opset,
    for control flow, and for networks with more than one input or output. The messages do not repeat the
    path.
    """
    onnx = _import_onnx()
    model = _parse(onnx, path)
    opset = _read_opset(model)
    nodes = [_read_node(onnx, n, i) for n, i in _list_needed(model.graph)]
    if model.functions:
        name = require_text(model.functions[0].name)
        raise UnsupportedModel(
            f"{name}: a function defined in the file is not read; inline it with onnx.inliner.inline_local_functions"
        )
    if model.graph.sparse_initializer:
        name = require_text(model.graph.sparse_initializer[0].values.name)
        raise UnsupportedModel(f"{name}: a sparse initialiser is not read; store it dense")
    constants = read_initialisers(onnx, model.graph.initializer, path.parent)
    _check(onnx, model, path)
    _check_finite(constants, nodes)
    name, shape, kind = _read_input(onnx, model.graph, constants)
    output = _read_output(model.graph)
    nodes = list(_with_types(nodes, _list_types(model.graph)))
    return Network(opset, tuple(nodes), constants, name, shape, kind, output, _read_ranges(model.graph))


def _read_ranges(graph: Any) -> tuple[tuple[float, float], ...]:
    """As in "{s53: VR[32, int_oo], s0: VR[0, 100]}"."""
    noted = next((entry.value for entry in graph.metadata_props if entry.key == _RANGES), "")
    return tuple((float(least), float(most.replace("int_oo", "inf"))) for least, most in _RANGE.findall(noted))


def _import_onnx() -> ModuleType:
    try:
        import onnx
        import onnx.checker
        import onnx.numpy_helper
    except ImportError as error:
        raise InvalidInput("is an ONNX file, which takes the onnx package to read. Run `pip install onnx`.") from error
    return onnx


def _parse(onnx: ModuleType, path: Path) -> Any:
    """The file as a ModelProto, external data not loaded."""
    from google.protobuf.message import DecodeError

    data = read_file(path, "the network")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise InvalidInput(f"is no ONNX file, or a truncated one ({first_line(error)}). {AGAIN}") from error
    if not model.graph.node and not model.graph.output:
        raise InvalidInput(f"is no ONNX file: it holds no graph. {AGAIN}")
    return model


def _check(onnx: ModuleType, model: Any, path: Path) -> None:
    unshaped = [v for v in model.graph.output if not v.type.tensor_type.HasField("shape")]
    for value in unshaped:  # engines infer it
        value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(model if unshaped else path_or_content(path))
    except Exception as error:  # the checker raises its own errors, and protobuf's and Python's
        raise InvalidInput(f"is not valid ONNX ({first_line(error)}). {AGAIN}") from error


def _read_opset(model: Any) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise InvalidInput("names no ONNX opset. Export it again.")
    version = int(versions[0])
    if version not in OPSETS:
        raise UnsupportedModel(
            f"the network: ONNX opset {version} is not read, only {OPSETS[0]} to {OPSETS[-1]}; "
            "export it with opset_version=17" + (_CONVERTER if version < OPSETS[0] else "")
        )
    return version


def _check_finite(constants: Mapping[str, Array], nodes: Sequence[Node]) -> None:
    """Weights are numbers.  Only bounds may be infinite; of what is cast the reader asks where it is used."""
    others = {name for node in nodes if node.op not in _BOUNDED for name in node.inputs}
    for name, array in constants.items():
        if array.dtype.kind != "f":
            continue
        bad = np.isnan(array) if name not in others else ~np.isfinite(array)
        if bool(bad.any()):
            raise InvalidInput(
                f"initialiser '{name}' has {int(bad.sum())} NaN or infinite values; "
                "the file is damaged or training diverged."
            )


# -- nodes -----------------------------------------------------------------------------------------


def _list_needed(graph: Any) -> list[tuple[Any, int]]:
    """The nodes from which an output is reached, with their places in the file; others are nobody's concern."""
    wanted = {value.name for value in graph.output}
    needed = []
    for place, node in reversed(list(enumerate(graph.node))):
        if not wanted.isdisjoint(filter(None, node.output)):
            wanted.update(node.input)
            needed.append((node, place))
    return needed[::-1]


def _read_node(onnx: ModuleType, proto: Any, position: int) -> Node:
    op, inputs, outputs = (
        require_text(proto.op_type),
        tuple(map(require_text, proto.input)),
        tuple(map(require_text, proto.output)),
    )
    name = require_text(proto.name) or next(filter(None, outputs), f"{op}_{position}")
    attributes = {require_text(a.name): _read_attribute(onnx, name, op, a) for a in proto.attribute}
    return Node(op, name, require_text(proto.domain), inputs, outputs, attributes)


def _list_types(graph: Any) -> dict[str, int]:
    """Types of the input, and of all numbers that are in the file, by TensorProto's numbers."""
    stored = [(name, attribute) for node in graph.node for name in node.output for attribute in node.attribute]
    return {
        **{value.name: value.type.tensor_type.elem_type for value in graph.input},
        **{tensor.name: tensor.data_type for tensor in graph.initializer},
        **{name: attribute.t.data_type for name, attribute in stored if attribute.t.data_type},
        **{name: _TYPES_OF[attribute.name] for name, attribute in stored if attribute.name in _TYPES_OF},
    }


_FLOAT, _INT64, _BOOL = 1, 7, 9
_TYPES_OF = {"value_float": _FLOAT, "value_floats": _FLOAT, "value_int": _INT64, "value_ints": _INT64}
_RESULTS = {
    "Shape": _INT64, "Size": _INT64, "NonZero": _INT64, "ArgMax": _INT64, "ArgMin": _INT64, "ConstantOfShape": _FLOAT,
    **dict.fromkeys(("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not", "And", "Or"), _BOOL),
}  # fmt: skip
"""Types of results that are not those of what an operator is given."""


def _with_types(nodes: Sequence[Node], types: dict[str, int]) -> Iterator[Node]:
    """The nodes, with the types of their results, and each CastLike as the Cast that it is: to its second operand's.

    types   by name, to which those of results are added
    """
    for node in nodes:
        standard = node.domain in ("", "ai.onnx")
        if node.op == "CastLike" and standard:
            to = types.get(node.inputs[1], _FLOAT)
            node = replace(node, op="Cast", inputs=node.inputs[:1], attributes={"to": to})
        given = node.inputs[1:] if node.op == "Where" else node.inputs
        first = next((types[name] for name in given if name in types), _FLOAT)
        kind = node.attributes["to"] if node.op == "Cast" and standard else _RESULTS.get(node.op, first)
        kind = types.get(next(filter(None, node.outputs), ""), kind)
        types.update(dict.fromkeys(node.outputs, kind))
        yield replace(node, type=kind)


def _read_attribute(onnx: ModuleType, node: str, op: str, proto: Any) -> Any:
    if proto.ref_attr_name:
        raise InvalidInput(f"{node}: {op}: its {proto.name} is that of a function, and it is in none. {AGAIN}")
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
        return read_array(onnx, proto.t, where)
    if kind == "STRING":
        return require_text(proto.s.decode("utf-8", "replace"))
    if kind in ("INT", "FLOAT", "INTS", "FLOATS"):
        value = onnx.helper.get_attribute_value(proto)
        return list(value) if kind.endswith("S") else value
    raise UnsupportedModel(
        f"{node}: {op}: its {proto.name} is a {kind.lower()}, which is not read; store numbers or a tensor"
    )


# -- inputs and outputs ----------------------------------------------------------------------------


def _read_input(
    onnx: ModuleType, graph: Any, constants: Mapping[str, Array]
) -> tuple[str, tuple[int | None, ...], str]:
    """Name, shape and type of the one input."""
    inputs = [value for value in graph.input if require_text(value.name) not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UnsupportedModel(
            f"the network: it takes {len(inputs)} inputs ({names}), not one image; "
            "make the others constants, or export a module that takes the image only"
        )
    value = inputs[0]
    kind = type_name(onnx, value.type.tensor_type.elem_type)
    if kind not in _FLOATS:
        raise UnsupportedModel(
            f"{value.name}: the input is {kind}, not floating point; export the network without its cast"
        )
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise UnsupportedModel(
            f"{value.name}: the input has {len(dims)} axes, not (N, C, height, width); export it with four"
        )
    return value.name, tuple(int(d.dim_value) if d.dim_value > 0 else None for d in dims), kind


def _read_output(graph: Any) -> str:
    names = [require_text(value.name) for value in graph.output]
    if len(names) != 1:
        raise UnsupportedModel(
            f"the network: it returns {len(names)} values ({', '.join(names)}), not one image; "
            "export a module that returns the image only"
        )
    return str(names[0])
