"""Arithmetic and activations of ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_files import FREE, ONE, Shape, agrees, model, node, refuses, saved, whole
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from memsr_compiler.errors import MemsrError
from memsr_compiler.ir import Conv2d
from memsr_compiler.trace.onnx.reader import load_onnx

PER_CHANNEL = whole(3, 1, 1, low=1, high=3)


@pytest.mark.parametrize(
    ("op", "operands", "attributes"),
    [
        ("Add", "x c", {}), ("Add", "c x", {}), ("Sub", "x c", {}), ("Sub", "c x", {}), ("Sub", "x z", {}),
        ("Mul", "x c", {}), ("Mul", "one x", {}), ("Div", "x c", {}), ("Neg", "x", {}),
        ("Sum", "x c x one", {}), ("Sum", "c one x", {}), ("Mean", "one c x", {}), ("Min", "inf x", {}),
        ("Sum", "x", {}), ("Mean", "x z", {}), ("Relu", "x", {}), ("LeakyRelu", "x", {"alpha": 0.25}),
        ("PRelu", "x c", {}), ("PRelu", "x one", {}), ("Abs", "x", {}),
        ("HardSigmoid", "x", {"alpha": 0.25, "beta": 0.5}),
        ("ThresholdedRelu", "x", {"alpha": 0.0}), ("Shrink", "x", {"lambd": 1.5, "bias": 1.5}),
        ("Shrink", "x", {"lambd": 0.0}),
        ("Clip", "x", {}), ("Clip", "x low", {}), ("Clip", "x - high", {}), ("Clip", "x low high", {}),
        ("Clip", "x low inf", {}), ("Max", "x z", {}), ("Max", "low x z", {}), ("Min", "x z high", {}),
        ("Min", "x", {}),
        ("Concat", "x z x", {"axis": 1}), ("Concat", "x z", {"axis": -3}), ("Gather", "x index", {"axis": 1}),
        ("Slice", "x s1 s9 s1", {}), ("Slice", "x s1 s9 a s2", {}), ("Slice", "x s9 sn a m1", {}),
        ("Identity", "x", {}), ("Dropout", "x", {}), ("Dropout", "x - off", {}), ("Pad", "x p0", {}),
        ("Transpose", "x", {"perm": [0, 1, 2, 3]}), ("Expand", "x e", {}), ("Tile", "x t", {}),
        ("Cast", "x", {"to": TensorProto.FLOAT}), ("CastLike", "x c", {}),
    ],
)  # fmt: skip
def test_operators_agree_with_onnx_runtime(op: str, operands: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    weights = {
        "c": PER_CHANNEL, "one": ONE, "low": np.float32(-1).reshape(()), "high": np.float32(1.25).reshape(()),
        "inf": np.float32(np.inf).reshape(()), "index": np.array([2, 0, -2]), "off": np.array(False),
        "p0": np.zeros(8, np.int64),
        "s1": np.array([1]), "s2": np.array([2]), "s9": np.array([9]), "sn": np.array([-(2**62)]),
        "a": np.array([-3]),
        "m1": np.array([-1]), "e": np.array([1, 3, 1, 1]), "t": np.array([1, 2, 1, 1]),
        "w": whole(3, 3, 3, 3),
    }  # fmt: skip
    used = {name: array for name, array in weights.items() if name in [*operands.split(), "w"]}
    nodes = [node("Conv", "x w", "z", pads=[1, 1, 1, 1])] if "z" in operands.split() else []
    used = used if nodes else {n: a for n, a in used.items() if n != "w"}
    agrees(saved(model([*nodes, node(op, operands, "y", **attributes)], used), tmp_path), tolerance=1e-6)


@pytest.mark.parametrize("op", ["Cast", "CastLike"])
def test_a_cast_of_another_domain_is_none(op: str, tmp_path: Path) -> None:
    proto = model([node(op, "x", "y", domain="foo")], {})
    proto.opset_import.append(helper.make_opsetid("foo", 1))
    refuses(saved(proto, tmp_path), "an operator of foo, not of ONNX, is not read")


def test_an_infinite_bound_that_is_cast(tmp_path: Path) -> None:
    weights = {"low": np.float16(-np.inf).reshape(()), "high": ONE}
    nodes = [node("Cast", "low", "l", to=TensorProto.FLOAT), node("Clip", "x l high", "y")]
    agrees(saved(model(nodes, weights), tmp_path))


def test_bounds_in_the_type_of_a_feature_map(tmp_path: Path) -> None:
    """As torch's newer exporter writes a clamp at opset 20."""
    weights = {"low": np.float64(-0.5).reshape(()), "high": np.array(2, np.int64), "c": PER_CHANNEL}
    nodes = [
        node("CastLike", "low x", "l"),
        node("CastLike", "high c", "known"),
        node("CastLike", "known x", "h"),
        node("Clip", "x l h", "y"),
    ]
    agrees(saved(model(nodes, weights, opset=20), tmp_path))


def test_a_grey_map_is_added_to_every_channel_of_a_constant(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "g"),
        node("Add", "mean g", "a"),
        node("Mul", "g mean", "b"),
        node("Add", "a b", "y"),
    ]
    agrees(saved(model(nodes, {"w": whole(1, 3, 1, 1), "mean": PER_CHANNEL}), tmp_path))


@pytest.mark.parametrize("decision", [True, False])
def test_a_constant_chooses_between_two_feature_maps(decision: bool, tmp_path: Path) -> None:
    """As torch's lerp is exported."""
    nodes = [node("Conv", "x w", "z", pads=[1, 1, 1, 1]), node("Where", "d x z", "y")]
    agrees(saved(model(nodes, {"w": whole(3, 3, 3, 3), "d": np.array(decision)}), tmp_path))


@pytest.mark.parametrize("shape", [("n", 3, "h", "w"), (1, 3, 4, 5)])
def test_channels_are_selected_on_another_axis(shape: Any, tmp_path: Path) -> None:
    """As torch's newer exporter writes x[:, [2, 1, 0]]."""
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2, 3]),
        node("GatherND", "t i", "g"),
        node("Transpose", "g", "y", perm=[1, 0, 2, 3]),
    ]
    path = saved(model(nodes, {"i": np.array([[2], [-2], [0], [2]])}, shape=shape), tmp_path)
    fixed = shape[0] == 1
    agrees(path, sizes=((4, 5),) if fixed else ((1, 1), (4, 5)), batch=1 if fixed else 2)


@pytest.mark.parametrize("shape", [("n", 3, "h", "w"), (1, 3, 4, 5)])
@pytest.mark.parametrize("index", [[0, 1], [2, 0], [-1, 1]])
def test_channels_are_written_in_the_place_of_others(shape: Any, index: list[int], tmp_path: Path) -> None:
    """As torch's newer exporter writes y[:, :k] = z."""
    nodes = [
        node("Conv", "x w", "z", pads=[1, 1, 1, 1]),
        node("Transpose", "x", "t", perm=[1, 0, 2, 3]),
        node("Transpose", "z", "u", perm=[1, 0, 2, 3]),
        node("ScatterND", "t i u", "s"),
        node("Transpose", "s", "y", perm=[1, 0, 2, 3]),
    ]
    path = saved(model(nodes, {"w": whole(2, 3, 3, 3), "i": np.array(index)[:, None]}, shape=shape), tmp_path)
    fixed = shape[0] == 1
    agrees(path, sizes=((4, 5),) if fixed else ((1, 1), (4, 5)), batch=1 if fixed else 2)


@pytest.mark.parametrize(
    ("index", "channels", "how", "reason"),
    [
        ([[0], [0]], 2, {}, "it writes into a part of a feature map"),
        ([[0], [1]], 2, {"reduction": "add"}, "it writes into a part of a feature map"),
        ([[0, 1], [1, 1]], 2, {}, "it writes into a part of a feature map"),
        ([[0], [1], [2]], 2, {}, "it writes into a part of a feature map"),
        ([[0], [3]], 2, {}, "an index is outside 3 channels"),
    ],
)
def test_other_writes_are_refused(
    index: list[list[int]], channels: int, how: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    nodes = [
        node("Conv", "x w", "z", pads=[1, 1, 1, 1]),
        node("Transpose", "x", "t", perm=[1, 0, 2, 3]),
        node("Transpose", "z", "u", perm=[1, 0, 2, 3]),
        node("ScatterND", "t i u", "s", **how),
        node("Transpose", "s", "y", perm=[1, 0, 2, 3]),
    ]
    path = saved(model(nodes, {"w": whole(channels, 3, 3, 3), "i": np.array(index)}), tmp_path)
    with pytest.raises(MemsrError, match=reason):
        load_onnx(path)


@pytest.mark.parametrize("shape", [("n", 3, "h", "w"), (1, 3, 4, 5)])
@pytest.mark.parametrize("way", ["Expand", "Tile", "Concat"])
@pytest.mark.parametrize("width", [1, 4])
def test_channels_are_repeated_along_an_axis_of_their_own(shape: Any, way: str, width: int, tmp_path: Path) -> None:
    """As torch exports repeat_interleave, expand and stack, with which ABPN repeats its image."""
    repeat = node("Concat", "u u v", "r", axis=2) if way == "Concat" else node(way, "u i", "r")
    nodes = [
        node("Shape", "x", "shape"),
        node("Conv", "x w", "z"),
        node("Neg", "z", "z2"),
        node("Unsqueeze", "z k2", "u"),
        node("Unsqueeze", "z2 k2", "v"),
        repeat,
        node("Slice", "shape first k1", "n"),
        node("Slice", "shape k2 four", "space"),
        node("Concat", "n channels space", "target", axis=0),
        node("Reshape", "r target", "y"),
    ]
    weights = {"w": whole(width, 3, 1, 1), "channels": np.array([3 * width])}
    weights |= {"first": np.array([0]), "k1": np.array([1]), "k2": np.array([2]), "four": np.array([4])}
    weights |= {} if way == "Concat" else {"i": np.array([1, 1, 3, 1, 1])}
    path = saved(model(nodes, weights, shape=shape), tmp_path)
    fixed = shape[0] == 1
    agrees(path, sizes=((4, 5),) if fixed else ((1, 3), (4, 5)), batch=1 if fixed else 2)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split(opset: int, tmp_path: Path) -> None:
    weights = {"w": whole(5, 3, 1, 1)}
    if opset == 11:
        parts = node("Split", "c", "a b", axis=1, split=[2, 3])
    elif opset == 13:
        parts = node("Split", "c n", "a b", axis=-3)
        weights["n"] = np.array([2, 3])
    else:
        parts = node("Split", "c", "b a", axis=1, num_outputs=2)
    nodes = [node("Conv", "x w", "c"), parts, node("Concat", "b a", "y", axis=1)]
    agrees(saved(model(nodes, weights, opset=opset), tmp_path))


@pytest.mark.parametrize("shape", [FREE, (1, 3, 4, 5)])
@pytest.mark.parametrize("axis", [3, -1])
def test_split_where_channels_come_last(axis: int, shape: Shape, tmp_path: Path) -> None:
    """As tf2onnx leaves tf.split."""
    nodes = [
        node("Conv", "x w", "c"), node("Transpose", "c", "l", perm=[0, 2, 3, 1]),
        node("Split", "l n", "a b", axis=axis), node("Transpose", "a", "d", perm=[0, 3, 1, 2]),
        node("Transpose", "b", "e", perm=[0, 3, 1, 2]), node("Concat", "e d", "y", axis=1),
    ]  # fmt: skip
    weights = {"w": whole(5, 3, 1, 1), "n": np.array([2, 3])}
    fixed = shape[0] == 1
    path = saved(model(nodes, weights, shape=shape), tmp_path)
    agrees(path, sizes=((4, 5),) if fixed else ((1, 3), (4, 5)), batch=1 if fixed else 2)


@pytest.mark.parametrize("narrow", [TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_weights_that_a_file_rounds_are_rounded(narrow: int, tmp_path: Path) -> None:
    nodes = [node("Cast", "w", "n", to=narrow), node("Cast", "n", "v", to=TensorProto.FLOAT), node("Conv", "x v", "y")]
    weight = (np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1) + 1) / 7
    read = load_onnx(saved(model(nodes, {"w": weight}), tmp_path)).graph
    exact = torch.from_numpy(weight).to(torch.bfloat16 if narrow == TensorProto.BFLOAT16 else torch.float16).double()
    (conv,) = (op for op in read if isinstance(op, Conv2d))
    assert torch.equal(conv.weight, exact)
    agrees(saved(model(nodes, {"w": weight}), tmp_path))


@pytest.mark.parametrize("like", ["one", "made", "found"])
def test_weights_in_the_type_of_another_are_rounded_as_that_is(like: str, tmp_path: Path) -> None:
    weight = (np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1) + 1) / 7
    half = from_array(np.ones(1, np.float16))
    nodes = [
        node("Constant", "", "made", value=half),
        node("ConstantOfShape", "size", "flat", value=half),
        node("Neg", "flat", "found"),
        node("CastLike", f"w {like}", "n"),
        node("Cast", "n", "v", to=TensorProto.FLOAT),
        node("Conv", "x v", "y"),
    ]
    weights: dict[str, Any] = {"w": weight, "one": np.ones(1, np.float16), "size": np.array([2])}
    used = weights if like == "one" else {name: weights[name] for name in ("w", "size")}
    path = saved(model(nodes, used), tmp_path)
    (conv,) = (op for op in load_onnx(path).graph if isinstance(op, Conv2d))
    assert torch.equal(conv.weight, torch.from_numpy(weight).half().double())
    agrees(path)


def test_feature_maps_in_a_type_of_whole_numbers_are_refused(tmp_path: Path) -> None:
    nodes = [node("Shape", "x", "s"), node("CastLike", "x s", "r"), node("CastLike", "r x", "y")]
    with pytest.raises(MemsrError, match="it rounds feature maps to integers"):
        load_onnx(saved(model(nodes, {}), tmp_path))


def test_a_channel_may_be_taken_without_its_axis_and_given_it_back(tmp_path: Path) -> None:
    nodes = [node("Gather", "x i", "a", axis=1), node("Unsqueeze", "a one", "b"), node("Relu", "b", "y")]
    weights = {"i": np.array(1), "one": np.array([1])}
    agrees(saved(model(nodes, weights), tmp_path))
    agrees(saved(model(nodes, weights, shape=(1, 3, 5, 4)), tmp_path), sizes=((5, 4),), batch=1)


@pytest.mark.parametrize("shape", [(1, 3, "h", "w"), ("n", 3, "h", "w")])
@pytest.mark.parametrize("last", [[], [node("Relu", "s", "y")]])
def test_axes_are_not_dropped_by_their_size(last: list[Any], shape: Any, tmp_path: Path) -> None:
    """An image alone lost its axis, and was read as if it kept it."""
    nodes = [node("Conv", "x w", "c"), node("Squeeze", "c", "s" if last else "y"), *last]
    refuses(saved(model(nodes, {"w": whole(3, 3, 1, 1)}, shape=shape), tmp_path), "it drops every axis of size 1, and")


NARROWED = {
    "Cast": node("Cast", "x", "h", to=TensorProto.FLOAT16),
    "CastLike": node("CastLike", "x w", "h"),
}


@pytest.mark.parametrize("narrowed", NARROWED.values(), ids=NARROWED)
@pytest.mark.parametrize(("kind", "told"), [(TensorProto.FLOAT, True), (TensorProto.FLOAT16, False)])
def test_feature_maps_of_fewer_digits_than_the_image_are_told(
    narrowed: Any, kind: int, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As files of mixed precision have them; in one of float16 throughout its engine rounds, as everywhere."""
    nodes = [narrowed, node("Conv", "h w", "c"), node("Cast", "c", "y", to=kind)]
    load_onnx(saved(model(nodes, {"w": whole(3, 3, 1, 1).astype(np.float16)}, kind=kind), tmp_path))
    assert ("computes feature maps in float16: it is read as the network that rounds nothing" in caplog.text) == told
