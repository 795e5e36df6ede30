"""Nodes of ONNX files that compute from constants alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from helpers.onnx_files import agrees, model, node, quick, refuses, saved, whole
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.capi import onnxruntime_pybind11_state as state


def test_weights_computed_in_the_file_are_folded(tmp_path: Path) -> None:
    """Weight normalisation, and a 1x1 merged into a 3x3 convolution, as exporters leave them."""
    nodes = [
        node("Mul", "v v", "vv"),
        node("ReduceSum", "vv axes", "norm2", keepdims=1),
        node("Sqrt", "norm2", "norm"),
        node("Div", "v norm", "unit"),
        node("Mul", "g unit", "w"),
        node("Transpose", "first", "firstT", perm=[1, 0, 2, 3]),
        node("Conv", "w firstT", "merged"),
        node("Constant", "", "zero", value_float=0.0),
        node("ConstantOfShape", "six", "zeros"),
        node("Add", "zeros zero", "bias"),
        node("Conv", "x merged bias", "y", pads=[1, 1, 1, 1]),
    ]
    weights = {
        "v": whole(6, 4, 3, 3, low=1),
        "g": whole(6, 1, 1, 1),
        "first": whole(4, 3, 1, 1),
        "six": np.array([6]),
    }
    agrees(saved(model(nodes, weights | {"axes": np.array([1, 2, 3])}), tmp_path), tolerance=1e-4)


def test_the_operators_on_constants_agree_with_onnx_runtime(tmp_path: Path) -> None:
    nodes = [
        node("Expand", "a s", "b"),
        node("Tile", "b t", "c"),
        node("Split", "c", "d e", axis=0),
        node("Max", "d e", "f"),
        node("Pow", "f two", "g"),
        node("Slice", "g one nine", "h"),
        node("Squeeze", "h axis1", "i"),
        node("Greater", "i two", "j"),
        node("Where", "j i two", "k"),
        node("ReduceMean", "k", "m", axes=[0], keepdims=0),
        node("Flatten", "m", "n", axis=0),
        node("MatMul", "n n", "o"),
        node("Reshape", "o three", "p"),
        node("Mul", "x p", "y"),
    ]
    weights = {
        "a": whole(4, 1, 1), "s": np.array([4, 1, 1]), "t": np.array([1, 1, 1]),
        "two": np.array([2], np.float32),
        "one": np.array([0]), "nine": np.array([9]), "axis1": np.array([1]), "three": np.array([1, 1, 1]),
    }  # fmt: skip
    agrees(saved(model(nodes, weights), tmp_path), tolerance=1e-5)


def test_constants_that_grow_are_stopped(tmp_path: Path) -> None:
    def build(*nodes: onnx.NodeProto) -> Path:
        weights = {
            "big": np.array([10**6, 10**6]),
            "row": np.ones((6000, 1), np.float32),
            "column": np.ones((1, 6000), np.float32),
        }
        return saved(model([*nodes, node("Add", f"x {nodes[-1].output[0]}", "y")], weights), tmp_path)

    refuses(
        build(node("ConstantOfShape", "big", "z")),
        "body.ConstantOfShape: ConstantOfShape: ",
        "1000000000000 elements",
    )
    refuses(build(node("Expand", "row big", "z")), "Expand")
    refuses(build(node("Mul", "row column", "z")), "36000000 elements")
    refuses(build(node("MatMul", "row column", "z")), "36000000 elements")
    doubling = [node("Concat", f"v{i} v{i}" if i else "row row", f"v{i + 1}", axis=0, name=f"c{i}") for i in range(40)]
    refuses(build(*doubling), "Concat: ", "elements")


def test_feature_maps_that_grow_are_stopped(tmp_path: Path) -> None:
    doubling = [node("Concat", f"v{i} v{i}" if i else "x x", f"v{i + 1}", axis=1, name=f"c{i}") for i in range(40)]
    refuses(saved(model([*doubling, node("Relu", "v40", "y")]), tmp_path), "Concat: ", "channels")
    wide = [node("Tile", "x t", "y")]
    refuses(saved(model(wide, {"t": np.array([1, 2**40, 1, 1])}), tmp_path), "Tile: ", "channels")
    huge = [node("Conv", "x w", "y", dilations=[2**40] * 2, pads=[2**40] * 4)]
    refuses(saved(model(huge, {"w": whole(3, 3, 3, 3)}), tmp_path), "Conv: ", "a kernel of")


KINDS: tuple[tuple[str, type], ...] = (
    ("uint8", np.uint8), ("int8", np.int8), ("int16", np.int16), ("int32", np.int32), ("int64", np.int64),
)  # fmt: skip
OF_TWO = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")


@quick
@given(st.sampled_from(KINDS), st.sampled_from(OF_TWO), st.data())
def test_whole_numbers_wrap_around_as_in_onnx_runtime(
    tmp_path: Path, named: tuple[str, type], op: str, data: st.DataObject
) -> None:
    """At 8 bits 200 + 100 is 44.  What the engine does not compute, of types that it lacks, is passed over."""
    kind = named[1]
    limits = np.iinfo(kind)
    first = data.draw(st.integers(limits.min, limits.max))
    second = data.draw(st.integers(1 if op in ("Div", "Pow") else limits.min, 3 if op == "Pow" else limits.max))
    nodes = [node(op, "a b", "k"), node("Cast", "k", "f", to=1), node("Mul", "f small", "g"), node("Mul", "x g", "y")]
    weights = {
        "a": np.array([first], kind), "b": np.array([second], kind), "small": np.array([1 / limits.max], np.float32)
    }  # fmt: skip
    path = saved(model([*nodes[:-1], *scaled("g")], weights | KERNEL), tmp_path)
    try:
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    except (state.NotImplemented, state.InvalidGraph):
        return
    if op == "Pow" and not limits.min <= first**second <= limits.max:
        refuses(path, f"numbers that {named[0]} does not hold")
    else:
        agrees(path, tolerance=1e-5)


def test_a_constant_made_float16_is_rounded_as_in_onnx_runtime(tmp_path: Path) -> None:
    nodes = [node("Cast", "c", "s", to=10), node("Cast", "s", "t", to=1), node("Sub", "t c", "f"), *scaled("f")]
    agrees(saved(model(nodes, {"c": np.array([2049], np.float32)} | KERNEL), tmp_path))


def scaled(factor: str) -> list[onnx.NodeProto]:
    """A network whose kernel is multiplied."""
    return [node("Mul", f"kernel {factor}", "scaled"), node("Conv", "x scaled", "y")]


KERNEL = {"kernel": whole(3, 3, 1, 1, low=1)}


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("ReduceMean", "whole", "m", keepdims=0), node("Cast", "m", "f", to=1)], "of whole numbers"),
        ([node("Cast", "large", "k", to=2), node("Cast", "k", "f", to=1)], "numbers that uint8 does not hold"),
        ([node("Mul", "large large", "f")], "beyond what float32 holds"),
    ],
)
def test_what_types_do_not_hold_is_refused(nodes: list[onnx.NodeProto], words: str, tmp_path: Path) -> None:
    weights = {"whole": np.array([1, 2], np.int32), "large": np.array([1e30], np.float32)} | KERNEL
    refuses(saved(model([*nodes, *scaled("f")], weights), tmp_path), words)
