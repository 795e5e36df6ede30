"""Nodes of ONNX files that compute from constants alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from helpers.onnx_files import agrees, model, node, refuses, saved, whole


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
        return saved(model([*nodes, node("Relu", "x", "y")], weights), tmp_path)

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
