"""Nodes of ONNX files that cannot be plain, or are not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.onnx_files import ONE, agrees, model, node, refuses, saved, whole
from onnx import TensorProto, helper


@pytest.mark.parametrize(
    ("op", "operands", "reason", "way"),
    [
        ("Sigmoid", "x", "it is curved", "remove the gate"),
        ("Softmax", "x", "it is curved", "remove the gate"),
        ("Tanh", "x", "it is curved", "retrain"),
        ("Erf", "x", "it is curved", "retrain"),
        ("Sqrt", "x", "it is curved", "retrain"),
        ("GlobalAveragePool", "x", "depends on the whole image", "remove the pooling"),
        ("ReduceMean", "x", "depends on the whole image", "remove the pooling"),
        ("InstanceNormalization", "x v v", "divides by how large values are", "use batch norm"),
        ("MatMul", "x x", "products of matrices are not read", "as a 1x1 convolution; remove attention"),
        ("AveragePool", "x", "lowers the resolution", "remove the pooling"),
        ("CumSum", "x axis", "it adds up along an axis", "1x1 convolution"),
        ("ThresholdedRelu", "x", "it jumps", "retrain"),
        ("Shrink", "x", "it jumps", "retrain"),
        ("Round", "x", "it jumps", "retrain"),
        ("Mul", "x x", "two feature maps are multiplied", "remove the gate"),
        ("Div", "v x", "divides by a feature map", "constants"),
        ("Add", "x pixels", "differs from pixel to pixel", "one constant for each channel"),
        ("Mul", "x columns", "differs from pixel to pixel", "one constant for each channel"),
        ("PRelu", "x columns", "differs from pixel to pixel", "one slope for each channel"),
        ("Clip", "x v3", "a bound is not one constant number", "one number"),
        ("Greater", "x one", "it decides by the values of pixels", "remove the decision"),
        ("QuantizeLinear", "x one", "the network is quantised", "convert the floating-point network"),
        ("Conv", "x weights", "its kernel depends on the image", "make it a constant"),
        ("Concat", "x pixels", "a constant is concatenated", "bias"),
        ("Det", "x", "this operator is not known", "without it"),
        ("NonMaxSuppression", "one one", "it is not computed beforehand", "onnxsim"),
        ("Transpose", "x", "its axes are no longer", "bring them back"),
        ("SpaceToDepth", "x", "it works at 1/2 of the input's resolution", "feed it the unshuffled image"),
        ("ReduceSum", "x channel", "it makes one channel of all", "1x1 convolution"),
        ("Where", "decide x x", "it decides by the values of pixels", "remove the decision"),
        ("Mul", "x five", "a constant of 5 axes makes as many of the 4", "(1, C, 1, 1)"),
        ("Add", "five x", "a constant of 5 axes makes as many of the 4", "(1, C, 1, 1)"),
        ("Max", "x five", "a bound of 5 axes", "without axes"),
        ("Add", "x twice", "it makes 2 images of each", "a batch of any number"),
        ("Mul", "twice x", "it makes 2 images of each", "a batch of any number"),
        ("Expand", "x pair", "it makes 2 images of each", "a batch of any number"),
        ("Expand", "x long", "it makes 5 axes of 4", "leave those in front out"),
        ("Clip", "x low high", "its lower bound, 1, is above its upper, 0", "swap them"),
        ("ScatterND", "x place one", "it writes into a part of a feature map", "as torch.cat"),
        ("ScatterND", "twice place x", "it writes feature maps into a part of a constant", "as torch.cat"),
        ("DepthToSpace", "x", "3 channels make no blocks of 2 x 2 pixels", "a multiple of 4"),
        ("GatherND", "x place", "it takes part of something else than the channels", "with a list"),
    ],
)
def test_refusals_name_node_operator_reason_and_a_way_out(
    op: str, operands: str, reason: str, way: str, tmp_path: Path
) -> None:
    weights = {
        "v": whole(3, low=1), "v3": whole(3), "one": ONE, "pixels": whole(1, 3, 4, 5), "columns": whole(5),
        "k": whole(4, 3, 3, 3),
        "channel": np.array([1]), "axis": np.array(1),
        "decide": np.array([True, False, True]), "five": np.ones((1, 1, 1, 1, 1), np.float32),
        "twice": np.ones((2, 3, 1, 1), np.float32),
        "pair": np.array([2, 1, 1, 1]), "long": np.array([1, 1, 1, 1, 1]), "place": np.array([[0], [1]]),
        "low": np.float32(1).reshape(()), "high": np.float32(0).reshape(()),
    }  # fmt: skip
    needed: dict[str, dict[str, Any]] = {
        "AveragePool": {"kernel_shape": [2, 2], "strides": [2, 2]}, "Concat": {"axis": 1},
        "SpaceToDepth": {"blocksize": 2}, "DepthToSpace": {"blocksize": 2},
    }  # fmt: skip
    attributes = needed.get(op, {})
    nodes = [node("Mul", "x one", "weights")] if "weights" in operands else []
    nodes.append(node(op, operands, "y" if op != "NonMaxSuppression" else "q", name="/body/body.3/it", **attributes))
    nodes += [node("Cast", "q", "c", to=1), node("Mul", "x c", "y")] if op == "NonMaxSuppression" else []
    used = {n: a for n, a in weights.items() if any(n in m.input for m in nodes)}
    message = refuses(saved(model(nodes, used), tmp_path), reason, way)
    if op != "Transpose":  # seen only where the feature map is wanted
        assert message.startswith(f"body.body.3.it: {op}: ")


def test_sizes_that_are_computed_for_a_write_are_said_to_be_for_one(tmp_path: Path) -> None:
    """As torch's older exporter makes them of y = torch.zeros_like(x); y[:, :2] = z."""
    nodes = [
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "z"),
        node("ScatterND", "z place x", "y"),
    ]
    refuses(
        saved(model(nodes, {"place": np.array([[0], [1]])}), tmp_path), "older exporter does for a write", "torch.cat"
    )


def test_what_no_output_needs_is_not_read(tmp_path: Path) -> None:
    choice = helper.make_graph([node("Relu", "x", "r")], "then", [], [helper.make_tensor_value_info("r", 1, None)])
    nodes = [
        node("Sigmoid", "x", "mask"),
        node("If", "yes", "either", then_branch=choice, else_branch=choice),
        node("Mul", "mask either", "product"),
        node("Relu", "x", "y"),
    ]
    agrees(saved(model(nodes, {"yes": np.array([True])}), tmp_path))


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_mirrored_padding_is_refused(mode: str, tmp_path: Path) -> None:
    nodes = [node("Pad", "x border", "y", mode=mode)]
    refuses(
        saved(model(nodes, {"border": np.array([0, 0, 1, 1, 0, 0, 1, 1])}), tmp_path),
        "not zero padding",
        "retrain",
    )


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"strides": [2, 2]}, "stride 2 lowers the resolution"),
        ({"pads": [0, 0, 2, 2]}, "is not the same on both sides"),
        ({}, "padding (0, 0) changes the size"),
        ({"auto_pad": "VALID"}, "padding (0, 0) changes the size"),
        ({"pads": [1, 1, 1, 1], "strides": [1, 2]}, "differs in height and width"),
    ],
)
def test_convolutions_that_change_the_size_are_refused(attributes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    refuses(
        saved(model([node("Conv", "x w", "y", **attributes)], {"w": whole(3, 3, 3, 3)}), tmp_path),
        "body.Conv: Conv: ",
        reason,
    )


def test_transposed_convolutions_of_another_size_are_refused(tmp_path: Path) -> None:
    path = saved(model([node("ConvTranspose", "x w", "y", strides=[2, 2])], {"w": whole(3, 3, 3, 3)}), tmp_path)
    refuses(path, "kernel 3, stride 2, padding 0, output_padding 0", "= stride")


def test_operators_outside_onnx_and_control_flow_are_refused(tmp_path: Path) -> None:
    foreign = helper.make_node("FusedConv", ["x"], ["y"], name="fused", domain="com.microsoft")
    proto = model([foreign])
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    refuses(saved(proto, tmp_path), "fused: FusedConv: an operator of com.microsoft", "standard operators")
    branch = helper.make_graph([node("Relu", "x", "z")], "then", [], [helper.make_tensor_value_info("z", 1, None)])
    choice = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    refuses(saved(model([choice], {"c": np.array(True)}), tmp_path), "choice: If: control flow", "onnxsim")


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [("x z", "y", "it takes 2 inputs (x, z)"), ("x", "y t", "it returns 2 values (y, t)")],
)
def test_one_image_in_and_one_out(inputs: str, outputs: str, reason: str, tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "y"), node("Abs", "x", "t")]
    refuses(
        saved(model(nodes, inputs=inputs.split(), outputs=outputs.split()), tmp_path),
        reason,
        "the image only",
    )


def test_initialisers_may_be_listed_as_inputs(tmp_path: Path) -> None:
    proto = model([node("Conv", "x w", "y")], {"w": whole(2, 3, 1, 1)})
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3, 1, 1]))
    agrees(saved(proto, tmp_path))


@pytest.mark.parametrize("opset", [9, 10, 22, 25])
def test_other_opsets_are_refused(opset: int, tmp_path: Path) -> None:
    refuses(
        saved(model([node("Relu", "x", "y")], opset=opset), tmp_path),
        f"opset {opset} is not read, only 11 to 21",
        "opset_version=17" + "; onnx.version_converter too brings it there, but makes linear Upsample" * (opset < 11),
    )


def test_results_that_are_not_read_and_dropped_axes_are_refused(tmp_path: Path) -> None:
    nodes = [node("Dropout", "x", "a mask"), node("Cast", "mask", "y", to=TensorProto.FLOAT, name="/c")]
    refuses(saved(model(nodes), tmp_path), "c: Cast: it uses 'mask'")
    refuses(saved(model([node("Squeeze", "x one", "y")], {"one": np.array([1])}), tmp_path), "it drops axes [1]")
    refuses(
        saved(model([node("Constant", "", "y", value_float=1.0)]), tmp_path),
        "y: output: the network returns a constant",
    )


def test_names_are_those_of_the_graph(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "mid", name="/body/0~x#1@2/Conv"),
        node("Relu", "mid", "input", name="input"),
        helper.make_node("Relu", ["input"], ["y"]),
    ]
    read = agrees(saved(model(nodes, {"w": whole(3, 3, 1, 1)}), tmp_path))
    names = [op.name for op in read.graph]
    assert names == ["input", "body.0-x-1-2.Conv", "input:2", "y"]
