"""Constants that an ONNX file computes are rounded at every step as engines round them, in the file's own types."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from helpers.onnx_files import agrees, model, node, quick, refuses, saved
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.onnx.constants import fold
from memsr_compiler.trace.onnx.file import read_network
from memsr_compiler.trace.onnx.reader import load_onnx

WHOLE = np.float32(12582912)  # 1.5 * 2**23: next to it float32 has whole numbers only
FLOAT, HALF, DOUBLE, BRAIN, INT8, INT32, INT64, BOOL = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16,
    TensorProto.INT8, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL,
)  # fmt: skip

RNG = np.random.default_rng(0)
KERNEL = (RNG.standard_normal((3, 3, 3, 3)) * 0.1).astype(np.float32)
STEP = np.float32(np.abs(KERNEL).max() / 127)
STEPS = (np.rint(KERNEL / STEP) * STEP).astype(np.float32)  # as networks of whole steps are stored
CONV = node("Conv", "x w", "y", pads=[1, 1, 1, 1])


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Div", "k s", "a"), node("Add", "a big", "b"), node("Sub", "b big", "c"), node("Mul", "c s", "w")],
        [node("Div", "k s", "a"), node("Sum", "a big less", "c"), node("Mul", "c s", "w")],
        [node("Div", "q s", "a"), node("Cast", "a", "b", to=INT8), node("Cast", "b", "c", to=1),
         node("Mul", "c s", "w")],
        [node("Div", "q s", "a"), node("Floor", "a", "c"), node("Mul", "c s", "w")],
        [node("Div", "k s", "a"), node("Clip", "a low three", "b"), node("Round", "b", "c"), node("Mul", "c s", "w")],
        [node("Clip", "k - tenth", "w")],
        [node("Cast", "many", "a", to=1), node("Sub", "a most", "b"), node("Mul", "b k", "w")],
        [node("Cast", "wide", "a", to=1), node("Sub", "a most", "b"), node("Mul", "b k", "w")],
        [node("Mul", "tenth three", "a"), node("Equal", "a product", "b"), node("Cast", "b", "c", to=1),
         node("Mul", "c k", "w")],
        [node("Cast", "k", "a", to=BRAIN), node("Cast", "a", "w", to=1)],
    ],
    ids=[
        "quantised", "in one sum", "cut off by a cast", "by a floor", "clipped and rounded", "clipped above",
        "whole number", "double", "equal", "bfloat16",
    ],
)  # fmt: skip
def test_weights_that_a_file_rounds_are_rounded(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    tenth, three = np.float32(0.1), np.float32(3)
    weights = {
        "k": KERNEL, "q": STEPS, "s": STEP, "big": WHOLE, "less": -WHOLE, "most": np.float32(2**24),
        "many": np.array(2**24 + 1, np.int64), "wide": np.array(2**24 + 1, np.float64),
        "tenth": tenth, "three": three, "low": -three, "product": tenth * three,
    }  # fmt: skip
    used = {name for n in nodes for name in n.input}
    constants = {name: np.asarray(value) for name, value in weights.items() if name in used}
    agrees(saved(model([*nodes, CONV], constants), tmp_path), tolerance=1e-5)


SHAPE = node("Shape", "x", "s")  # (N, 3, height, width), of which only the channels are a number
FIRST, CHANNELS = [node("Mul", "k i", "w"), CONV], node("Gather", "f one", "i")


@pytest.mark.parametrize(
    "nodes",
    [
        [SHAPE, node("Cast", "s", "b", to=BOOL), node("Cast", "b", "f", to=1), CHANNELS],
        [SHAPE, node("Slice", "s one three", "t"), node("Cast", "t", "u", to=FLOAT), node("Mul", "u halves", "v"),
         node("Floor", "v", "f"), node("Gather", "f first", "i")],
        [SHAPE, node("Slice", "s one three", "t"), node("Cast", "t", "u", to=FLOAT), node("Mul", "u halves", "v"),
         node("Ceil", "v", "f"), node("Gather", "f first", "i")],
        [SHAPE, node("Slice", "s one three", "t"), node("Cast", "t", "u", to=BOOL), node("Or", "u no", "v"),
         node("Cast", "v", "f", to=1), node("Gather", "f first", "i")],
        [SHAPE, node("Slice", "s one three", "t"), node("Div", "t minus_two", "u"), node("Gather", "u first", "r"),
         node("Cast", "r", "i", to=1)],
    ],
    ids=["to bool", "floor", "ceiling", "or", "divided"],
)  # fmt: skip
def test_numbers_beside_sizes_are_of_the_files_types(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    """Where a height is among the numbers they were Python's, and no cast changed them."""
    weights = {
        "k": KERNEL, "one": np.array([1]), "three": np.array([3]), "first": np.array(0),
        "halves": np.array([-0.5, 2], np.float32), "no": np.array([False, False]), "minus_two": np.array([-2, 1]),
    }  # fmt: skip
    used = {name for n in (*nodes, *FIRST) for name in n.input}
    constants = {name: array for name, array in weights.items() if name in used}
    agrees(saved(model([*nodes, *FIRST], constants), tmp_path), tolerance=1e-5)


@pytest.mark.parametrize("kind", [INT8, HALF], ids=["int8", "float16"])
def test_sizes_in_a_type_that_does_not_hold_them_are_refused(kind: int, tmp_path: Path) -> None:
    nodes = [SHAPE, node("Cast", "s", "b", to=kind), node("Cast", "b", "f", to=1), CHANNELS, *FIRST]
    refuses(saved(model(nodes, {"k": KERNEL, "one": np.array([1])}), tmp_path), "a type that does not hold all sizes")


STACK = np.stack([KERNEL, np.full_like(KERNEL, WHOLE), np.full_like(KERNEL, -WHOLE)])


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ReduceSum", "stack first", "w", keepdims=0), CONV],
        [node("ReduceMean", "stack", "w", axes=[0], keepdims=0), CONV],
        [node("MatMul", "row flat", "a"), node("Reshape", "a shape", "w"), CONV],
        [node("Conv", "images pick", "w"), CONV],
    ],
    ids=["sum", "mean", "product", "convolution"],
)
def test_sums_that_depend_on_their_order_are_refused(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    """They were added up in float64, and the network was up to 0.1 off."""
    pick = np.zeros((3, 5, 1, 1), np.float32)
    pick[range(3), range(3)], pick[:, 3], pick[:, 4] = 1, WHOLE, -WHOLE
    weights = {
        "stack": STACK, "first": np.array([0]), "row": np.ones((1, 3), np.float32), "flat": STACK.reshape(3, -1),
        "shape": np.array(KERNEL.shape), "pick": pick,
        "images": np.concatenate([KERNEL, np.ones((3, 2, 3, 3), np.float32)], 1),
    }  # fmt: skip
    used = {name for n in nodes for name in n.input}
    path = saved(model(nodes, {name: array for name, array in weights.items() if name in used}), tmp_path)
    refuses(path, "its terms cancel", "which no engine promises")


def test_whole_numbers_cancel_in_any_order(tmp_path: Path) -> None:
    """The kernel of an edge adds up to nothing; so may a sum over one axis of some weights, not of all."""
    edge = np.tile(np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], np.float32), (3, 3, 1, 1))
    nodes = [node("ReduceSum", "edge last", "a", keepdims=1), node("Add", "a k", "w"), CONV]
    agrees(saved(model(nodes, {"edge": edge, "last": np.array([2, 3]), "k": KERNEL}), tmp_path), tolerance=1e-5)


def test_squares_of_tiny_numbers_are_zero(tmp_path: Path) -> None:
    nodes = [node("ReduceL2", "tiny", "a", keepdims=0), node("Mul", "a huge", "b"), node("Add", "b k", "w"), CONV]
    weights = {"tiny": np.full(4, 1e-23, np.float32), "huge": np.float32(5e22), "k": KERNEL}
    agrees(saved(model(nodes, {n: np.asarray(a) for n, a in weights.items()}), tmp_path), tolerance=1e-5)


@pytest.mark.parametrize(("stop", "step"), [(30000, 0.1), (2**24 + 8, 2**22)], ids=["fractions", "too large"])
def test_ranges_that_engines_count_differently_are_refused(stop: float, step: float, tmp_path: Path) -> None:
    bounds = {"a": np.array(0, np.float32), "b": np.array(stop, np.float32), "d": np.array(step, np.float32)}
    nodes = [node("Range", "a b d", "r"), node("ReduceMax", "r", "m", keepdims=0), node("Mul", "m k", "w"), CONV]
    refuses(saved(model(nodes, {**bounds, "k": KERNEL}), tmp_path), "counts in fractions")


def test_ranges_of_whole_numbers_in_float32(tmp_path: Path) -> None:
    bounds = {name: np.array(value, np.float32) for name, value in (("a", 2), ("b", 9), ("d", 3))}
    nodes = [node("Range", "a b d", "r"), node("ReduceMax", "r", "m", keepdims=0), node("Mul", "m k", "w"), CONV]
    agrees(saved(model(nodes, {**bounds, "k": KERNEL}), tmp_path), tolerance=1e-4)


OF_TWO, OF_ONE = ("Add", "Sub", "Mul", "Div", "Max", "Min"), ("Neg", "Abs", "Relu", "Floor", "Ceil", "Sqrt")
ASKED, CASTS = ("Equal", "Less", "Greater"), (FLOAT, FLOAT, HALF, DOUBLE, BRAIN, INT8, INT32, INT64)
NUMBERS = (0.1, 3.0, 1 / 3, 12582912.0, 16777217.0, 2049.0, -0.05, 255.0, 1e-3, 65519.0, 1e-7, 1e20)
KEPT = (FLOAT, DOUBLE)  # in which ONNX Runtime computes; of float16 it makes float32, as long as it goes


@quick
@given(st.data())
def test_random_constants_are_those_of_onnx_runtime(data: st.DataObject) -> None:
    """Every number of every step, to the last bit; values of the same type are combined."""
    types = {"k": FLOAT, "n": FLOAT, "i": INT64, "d": DOUBLE, "h": HALF}
    numbers = st.lists(st.sampled_from(NUMBERS) | st.floats(-4, 4, width=32), min_size=3, max_size=3)
    weights = {
        "k": np.array(data.draw(numbers), np.float32),
        "n": np.array(data.draw(numbers), np.float32),
        "i": np.array(data.draw(st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3)), np.int64),
        "d": np.array(data.draw(numbers), np.float64),
        "h": np.clip(np.array(data.draw(numbers)), -60000, 60000).astype(np.float16),
    }
    nodes: list[onnx.NodeProto] = []
    for at in range(data.draw(st.integers(1, 8))):
        first = data.draw(st.sampled_from(sorted(types)))
        kind = types[first]
        second = data.draw(st.sampled_from(sorted(name for name in types if types[name] == kind)))
        able = [("Cast", "")]
        if kind in KEPT:
            able += [(op, second) for op in (*OF_TWO, *ASKED, "Sum3")] + [(op, "") for op in OF_ONE]
        op, other = data.draw(st.sampled_from(able))
        if op == "Cast":
            types[f"v{at}"] = data.draw(st.sampled_from(CASTS))
            nodes.append(node("Cast", first, f"v{at}", to=types[f"v{at}"], name=f"n{at}"))
            continue
        operands = f"{first} {second} {first}" if op == "Sum3" else f"{first} {other}"
        types[f"v{at}"] = BOOL if op in ASKED else kind
        nodes.append(node(op.rstrip("3"), operands, f"v{at}", name=f"n{at}"))
    compare_all(nodes, weights, {n.output[0]: types[n.output[0]] for n in nodes})


def test_float16_is_rounded_at_each_step(tmp_path: Path) -> None:
    """As ONNX says it is; ONNX Runtime's CPU computes of float16 in float32."""
    nodes = [node("Add", "h h", "a"), node("Add", "a h", "b"), node("Sub", "b t", "c"), node("Add", "x c", "y")]
    h, t = np.array([[[1 + 2**-10]]], np.float16), np.array([[[3]]], np.float16)
    network = load_onnx(saved(model(nodes, {"h": h, "t": t}, kind=HALF), tmp_path))
    assert (
        float(network(torch.zeros(1, 3, 1, 1, dtype=torch.float64)).max()) == float((h + h + h - t).max()) != 3 * 2**-10
    )


def compare_all(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], types: dict[str, int]) -> None:
    """Fold the nodes, as far as that goes, and compare all that is computed with the engine."""
    with TemporaryDirectory() as folder:
        whole_file = [*nodes, node("Concat", " ".join(["x", *(name for n in nodes for name in n.output)]), "y", axis=1)]
        network = read_network(saved(model(whole_file, weights), Path(folder)))
    values = dict(network.constants)
    for step in network.nodes[:-1]:
        if all(name in values for name in step.inputs):
            with suppress(UnsupportedModel):  # beyond what the type holds
                values.update(zip(step.outputs, fold(step, [values[name] for name in step.inputs]), strict=True))
    known = [name for name in types if name in values]
    for name, expected in run_constants(nodes, weights, known).items() if known else ():
        assert np.array_equal(values[name].astype(np.float64), expected, equal_nan=True), (
            nodes,
            values[name],
            expected,
        )


def run_constants(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], names: list[str]
) -> dict[str, np.ndarray]:
    """Values of that name in ONNX Runtime, in float64; there are none where it lacks an operator of that type."""
    casts = [node("Cast", name, f"{name}_", to=DOUBLE, name=f"{name}_") for name in names]
    graph = helper.make_graph(
        [*nodes, *casts],
        "constants",
        [],
        [helper.make_tensor_value_info(f"{name}_", DOUBLE, None) for name in names],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except state.NotImplemented:
        return {}
    return dict(zip(names, session.run(None, {}), strict=True))
