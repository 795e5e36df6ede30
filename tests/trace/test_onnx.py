"""ONNX files against ONNX Runtime, at odd and tiny sizes, borders included; and the files that are refused.

Weights and images are small whole numbers where the network allows it: float32 is then exact, and so is the
comparison.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from memsr_compiler.errors import InvalidInput, MemsrError, UnsupportedModel
from memsr_compiler.teachers.load import load_teacher
from memsr_compiler.trace.onnx.ops.resolution import repeats
from memsr_compiler.trace.onnx.reader import load_onnx
from memsr_compiler.trace.trace import GraphModule, trace

SIZES = ((1, 1), (1, 3), (2, 2), (5, 4), (7, 9))
FREE = ("n", 3, "h", "w")
Shape = Sequence[int | str | None]
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# -- building and comparing ------------------------------------------------------------------------


def whole(*shape: int, low: int = -2, high: int = 2, seed: int = 0) -> np.ndarray:
    """Small whole numbers in float32."""
    return np.random.default_rng(seed + sum(shape)).integers(low, high + 1, shape).astype(np.float32)


def node(op: str, inputs: str, outputs: str, *, name: str | None = None, **attributes: Any) -> onnx.NodeProto:
    """Operands separated by spaces; '-' is one left out."""
    names = ["" if i == "-" else i for i in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=name or f"/body/{op}", **attributes)


def model(
    nodes: Iterable[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    shape: Shape = FREE,
    opset: int = 17,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("y",),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    seen: dict[str, int] = {}
    for n in (nodes := list(nodes)):  # ONNX Runtime wants different names
        seen[n.name] = seen.get(n.name, 0) + 1
        n.name += f"_{seen[n.name]}" if n.name and seen[n.name] > 1 else ""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(i, kind, shape) for i in inputs],
        [helper.make_tensor_value_info(o, kind, [None] * 4) for o in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "network.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def agrees(
    path: Path,
    *,
    sizes: Iterable[tuple[int, int]] = SIZES,
    channels: int = 3,
    batch: int = 2,
    tolerance: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> GraphModule:
    """The module that is read, after comparing it with ONNX Runtime."""
    read = load_onnx(path)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    for size in sizes:
        x = whole(batch, channels, *size, low=-3, high=3)
        (expected,) = session.run(None, {session.get_inputs()[0].name: x})
        found = read(torch.from_numpy(x).to(dtype))
        assert found.shape == expected.shape, size
        difference = float((found.double() - torch.from_numpy(expected).double()).abs().max())
        assert difference <= tolerance, (size, difference)
    return read


def refuses(path: Path, *parts: str, error: type[MemsrError] = UnsupportedModel) -> str:
    with pytest.raises(error) as caught:
        load_onnx(path)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert "\n" not in message
    return message


def pieces(*steps: tuple[str, str], **weights: np.ndarray) -> list[onnx.NodeProto]:
    """Nodes one after another: (op, further operands)."""
    nodes, last = [], "x"
    for i, (op, further) in enumerate(steps):
        result = "y" if i == len(steps) - 1 else f"v{i}"
        nodes.append(node(op, f"{last} {further}", result, name=f"/body/body.{i}/{op}"))
        last = result
    return nodes


# -- convolutions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
def test_a_residual_network_agrees_with_onnx_runtime(opset: int, tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w0 b0", "a", name="/head/Conv", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Relu", "a", "r"),
        node("Conv", "r w1", "c", name="/body/body.0/Conv", auto_pad="SAME_UPPER"),
        node("Add", "c a", "s"),
        node("Mul", "s half", "m"),
        node("Conv", "m w2 b2", "t", pads=[2, 2, 2, 2], dilations=[2, 2], group=4),
        node("DepthToSpace", "t", "y", blocksize=2, mode="CRD"),
    ]
    weights = {
        "w0": whole(4, 3, 3, 3), "b0": whole(4), "w1": whole(4, 4, 3, 3), "half": np.float32(0.5).reshape(()),
        "w2": whole(12, 1, 3, 3), "b2": whole(12),
    }  # fmt: skip
    read = agrees(saved(model(nodes, weights, opset=opset), tmp_path))
    assert "head.Conv" in read.graph
    assert "body.body.0.Conv" in read.graph
    assert read.graph.scale == 2


def test_float32_agrees_too(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w b", "y", pads=[1, 1, 1, 1])]
    agrees(saved(model(nodes, {"w": whole(4, 3, 3, 3), "b": whole(4)}), tmp_path), dtype=torch.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_point_weights_are_widened(dtype: type, tmp_path: Path) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    proto = model([node("Conv", "x w", "y")], {"w": whole(4, 3, 1, 1).astype(dtype) / 8}, kind=kind)
    read = load_onnx(saved(proto, tmp_path))
    x = torch.ones(1, 3, 2, 2, dtype=torch.float64)
    assert torch.equal(read(x)[0, :, 0, 0], torch.from_numpy(whole(4, 3, 1, 1) / 8).double().sum((1, 2, 3)))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.integers(0, 1), st.sampled_from([1, 2]))
@quick
def test_transposed_convolutions(
    tmp_path: Path, kernel: int, stride: int, before: int, more: int, dilation: int
) -> None:
    more = min(more, stride - 1)
    after = (kernel - 1) * dilation + 1 - before + more - stride
    assume(after >= 0)
    attributes: dict[str, Any] = {
        "strides": [stride] * 2,
        "pads": [before, before, after, after],
        "output_padding": [more] * 2,
    }
    nodes = [node("ConvTranspose", "x w b", "y", dilations=[dilation] * 2, **attributes)]
    agrees(saved(model(nodes, {"w": whole(3, 2, kernel, kernel), "b": whole(2)}), tmp_path))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_transposed_convolutions_with_automatic_padding(auto_pad: str, kernel: int, tmp_path: Path) -> None:
    nodes = [node("ConvTranspose", "x w", "y", strides=[2, 2], auto_pad=auto_pad)]
    agrees(saved(model(nodes, {"w": whole(3, 2, kernel, kernel)}), tmp_path), sizes=((3, 5), (2, 2)))


def test_a_transposed_convolution_may_give_its_output_shape_in_a_file_of_fixed_size(tmp_path: Path) -> None:
    def build(size: list[int], shape: Shape) -> Path:
        nodes = [node("ConvTranspose", "x w", "y", strides=[2, 2], output_shape=size)]
        return saved(model(nodes, {"w": whole(3, 2, 3, 3)}, shape=shape), tmp_path)

    agrees(build([12, 8], (1, 3, 6, 4)), sizes=((6, 4),), batch=1)
    refuses(build([13, 8], (1, 3, 6, 4)), "output_shape [13, 8] is not 12 x 8", "leave it out")
    refuses(build([12, 8], FREE), "output_shape [12, 8] is not 2h x 2w")


def test_batch_norm_becomes_constant(tmp_path: Path) -> None:
    nodes = [node("BatchNormalization", "x s b m v", "y", epsilon=0.0)]
    weights = {
        "s": whole(3),
        "b": whole(3, seed=1),
        "m": whole(3, seed=2),
        "v": np.array([1, 4, 16], np.float32),
    }
    agrees(saved(model(nodes, weights), tmp_path), tolerance=1e-5)


# -- arithmetic and activations --------------------------------------------------------------------

ONE = np.array([1.5], np.float32)
PER_CHANNEL = whole(3, 1, 1, low=1, high=3)


@pytest.mark.parametrize(
    ("op", "operands", "attributes"),
    [
        ("Add", "x c", {}), ("Add", "c x", {}), ("Sub", "x c", {}), ("Sub", "c x", {}), ("Sub", "x z", {}),
        ("Mul", "x c", {}), ("Mul", "one x", {}), ("Div", "x c", {}), ("Neg", "x", {}),
        ("Sum", "x c x one", {}),
        ("Sum", "x", {}), ("Mean", "x z", {}), ("Relu", "x", {}), ("LeakyRelu", "x", {"alpha": 0.25}),
        ("PRelu", "x c", {}), ("PRelu", "x one", {}), ("Abs", "x", {}),
        ("HardSigmoid", "x", {"alpha": 0.25, "beta": 0.5}),
        ("Clip", "x", {}), ("Clip", "x low", {}), ("Clip", "x - high", {}), ("Clip", "x low high", {}),
        ("Clip", "x low inf", {}), ("Max", "x z", {}), ("Max", "low x z", {}), ("Min", "x z high", {}),
        ("Min", "x", {}),
        ("Concat", "x z x", {"axis": 1}), ("Concat", "x z", {"axis": -3}), ("Gather", "x index", {"axis": 1}),
        ("Slice", "x s1 s9 s1", {}), ("Slice", "x s1 s9 a s2", {}), ("Slice", "x s9 sn a m1", {}),
        ("Identity", "x", {}), ("Dropout", "x", {}), ("Dropout", "x - off", {}), ("Pad", "x p0", {}),
        ("Transpose", "x", {"perm": [0, 1, 2, 3]}), ("Expand", "x e", {}), ("Tile", "x t", {}),
        ("Cast", "x", {"to": TensorProto.FLOAT}),
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


def test_a_grey_map_is_added_to_every_channel_of_a_constant(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "g"),
        node("Add", "mean g", "a"),
        node("Mul", "g mean", "b"),
        node("Add", "a b", "y"),
    ]
    agrees(saved(model(nodes, {"w": whole(1, 3, 1, 1), "mean": PER_CHANNEL}), tmp_path))


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


def test_a_channel_may_be_taken_without_its_axis_and_given_it_back(tmp_path: Path) -> None:
    nodes = [node("Gather", "x i", "a", axis=1), node("Unsqueeze", "a one", "b"), node("Relu", "b", "y")]
    weights = {"i": np.array(1), "one": np.array([1])}
    agrees(saved(model(nodes, weights), tmp_path))
    agrees(saved(model(nodes, weights, shape=(1, 3, 5, 4)), tmp_path), sizes=((5, 4),), batch=1)


# -- resolution ------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.sampled_from(["CRD", "DCR"]), st.integers(1, 3), st.sampled_from([11, 13, 21]))
@quick
def test_depth_to_space(tmp_path: Path, block: int, mode: str, share: int, opset: int) -> None:
    nodes = [node("Conv", "x w", "c"), node("DepthToSpace", "c", "y", blocksize=block, mode=mode)]
    weights = {"w": whole(share * block**2, 3, 1, 1)}
    agrees(saved(model(nodes, weights, opset=opset), tmp_path), sizes=((1, 1), (3, 2)))


@given(st.integers(1, 3), st.sampled_from(["CRD", "DCR"]), st.integers(1, 2))
@quick
def test_space_to_depth_below_a_depth_to_space(tmp_path: Path, block: int, mode: str, share: int) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("DepthToSpace", "c", "d", blocksize=block, mode=mode),
        node("SpaceToDepth", "d", "y", blocksize=block),
    ]
    agrees(saved(model(nodes, {"w": whole(share * block**2, 3, 1, 1)}), tmp_path), sizes=((1, 1), (3, 2)))


COORDINATES = (
    "asymmetric",
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "tf_half_pixel_for_nn",
    "half_pixel_symmetric",
)
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


@given(st.integers(2, 5), st.sampled_from(COORDINATES), st.sampled_from(ROUNDINGS), st.booleans())
@settings(quick, max_examples=60)
def test_nearest_enlargement_is_read_exactly_where_it_repeats_pixels(
    tmp_path: Path, factor: int, coordinates: str, rounding: str, named_axes: bool
) -> None:
    opset = 11 if coordinates == "tf_half_pixel_for_nn" else 19
    axes: dict[str, Any] = {"axes": [3, 2]} if named_axes and opset == 19 else {}
    scales = np.array([factor] * 2 if axes else [1, 1, factor, factor], np.float32)
    roi = "roi" if opset == 11 else "-"
    resize = node(
        "Resize", f"x {roi} scales", "y", mode="nearest",
        coordinate_transformation_mode=coordinates, nearest_mode=rounding, **axes,
    )  # fmt: skip
    weights = {"scales": scales} | ({"roi": np.zeros(0, np.float32)} if opset == 11 else {})
    path = saved(model([resize], weights, opset=opset), tmp_path)
    if repeats(factor, coordinates, rounding):
        agrees(path)
        return
    assume(coordinates != "align_corners")  # right for some sizes of image only
    refuses(path, "does not repeat pixels evenly", "use asymmetric with floor")
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    x = np.arange(5 * 6, dtype=np.float32).reshape(1, 1, 5, 6).repeat(3, axis=1)
    assert not np.array_equal(session.run(None, {"x": x})[0], x.repeat(factor, axis=2).repeat(factor, axis=3))


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_align_corners_is_refused(rounding: str, tmp_path: Path) -> None:
    weights = {"scales": np.array([1, 1, 2, 2], np.float32)}
    nodes = [node("Resize", "x - scales", "y", coordinate_transformation_mode="align_corners", nearest_mode=rounding)]
    refuses(saved(model(nodes, weights), tmp_path), "align_corners", "repeat pixels")


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel"])
@pytest.mark.parametrize("factor", [2, 3])
def test_the_enlarged_image_may_be_added_at_the_end(mode: str, coordinates: str, factor: int, tmp_path: Path) -> None:
    nodes = [
        node(
            "Resize",
            "x - scales",
            "up",
            mode=mode,
            coordinate_transformation_mode=coordinates,
            cubic_coeff_a=-0.75,
        ),
        node("Conv", "x w", "c"),
        node("DepthToSpace", "c", "d", blocksize=factor, mode="CRD"),
        node("Add", "up d", "y"),
    ]
    weights = {"scales": np.array([1, 1, factor, factor], np.float32), "w": whole(3 * factor**2, 3, 1, 1)}
    read = agrees(saved(model(nodes, weights), tmp_path), tolerance=1e-4)
    assert read.image_skip is not None
    assert (read.image_skip.mode, read.image_skip.factor) == (
        "bilinear" if mode == "linear" else "bicubic",
        factor,
    )


RESIZED = {"scales": np.array([1, 1, 2, 2], np.float32), "w": whole(12, 3, 1, 1)}


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"mode": "cubic", "cubic_coeff_a": -0.5}, "cubic_coeff_a -0.5"),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, "align_corners is not kept"),
        ({"mode": "linear", "coordinate_transformation_mode": "asymmetric"}, "asymmetric is not kept"),
        ({"mode": "cubic", "exclude_outside": 1}, "exclude_outside"),
        ({"mode": "linear", "antialias": 1}, "antialias"),
    ],
)
def test_other_enlargements_of_the_image_are_refused(attributes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = saved(
        model([node("Resize", "x - scales", "y", **attributes)], {"scales": RESIZED["scales"]}, opset=18),
        tmp_path,
    )
    refuses(path, "body.Resize: Resize: ", reason)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Mul", "up two", "y")], "the enlarged image is used for something else"),
        ([node("Sub", "d up", "y")], "the enlarged image is used for something else"),
        ([node("Add", "up d", "s"), node("Relu", "s", "y")], "the enlarged image is used for something else"),
        ([node("Add", "up c", "y")], "3 channels at x2, is added to 12 at x1"),
        ([node("Identity", "up", "y")], "the network returns the enlarged image alone"),
        ([node("Resize", "c - scales", "y", mode="linear")], "clamps at the edge"),
    ],
)
def test_the_enlarged_image_may_do_nothing_else(nodes: list[onnx.NodeProto], reason: str, tmp_path: Path) -> None:
    start = [
        node("Resize", "x - scales", "up", mode="linear"),
        node("Conv", "x w", "c"),
        node("DepthToSpace", "c", "d", blocksize=2, mode="CRD"),
    ]
    refuses(saved(model([*start, *nodes], RESIZED | {"two": np.array([2], np.float32)}), tmp_path), reason)


@pytest.mark.parametrize(
    ("scales", "reason"),
    [
        ([1, 1, 2, 3], "[1.0, 1.0, 2.0, 3.0]"),
        ([1, 2, 2, 2], "whole factor"),
        ([1, 1, 1.5, 1.5], "1.5"),
        ([1, 1, 99, 99], "99"),
    ],
)
def test_uneven_enlargement_is_refused(scales: list[float], reason: str, tmp_path: Path) -> None:
    path = saved(model([node("Resize", "x - scales", "y")], {"scales": np.array(scales, np.float32)}), tmp_path)
    refuses(path, "body.Resize: Resize: ", reason)


# -- sizes that the network computes ---------------------------------------------------------------


def shuffle_by_hand(sizes: str, factor: int = 2) -> list[onnx.NodeProto]:
    """A pixel shuffle as reshape, transpose, reshape; `sizes` gives v6 and v4, the shapes in between."""
    del factor
    return [
        node("Conv", "x w", "c"),
        node("Reshape", f"c {sizes}6", "six", name="/up/Reshape"),
        node("Transpose", "six", "t", perm=[0, 1, 4, 2, 5, 3], name="/up/Transpose"),
        node("Reshape", f"t {sizes}4", "up", name="/up/Reshape_1"),
        node("Conv", "up w2", "y", pads=[1, 1, 1, 1], name="/tail/Conv"),
    ]


SHUFFLED = {"w": whole(12, 3, 1, 1), "w2": whole(3, 3, 3, 3)}


def from_shape(with_batch: bool = True) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """v6 and v4 from the shape of c."""
    nodes = [
        node("Conv", "x w", "c"),
        node("Shape", "c", "s"),
        node("Gather", "s i0", "n", axis=0),
        node("Gather", "s i2", "h", axis=0),
        node("Gather", "s i3", "wd", axis=0),
        node("Mul", "h two", "h2"),
        node("Mul", "wd two", "w2x"),
        node("Unsqueeze", "n a0", "n1"),
        node("Unsqueeze", "h a0", "h1"),
        node("Unsqueeze", "wd a0", "wd1"),
        node("Cast", "h2", "hf", to=TensorProto.FLOAT),
        node("Floor", "hf", "hff"),
        node("Cast", "hff", "hi", to=TensorProto.INT64),
        node("Unsqueeze", "hi a0", "h21"),
        node("Unsqueeze", "w2x a0", "w21"),
        node("Concat", "n1 c322 h1 wd1" if with_batch else "c0 c322 h1 wd1", "v6", axis=0),
        node("Concat", "n1 c3 h21 w21" if with_batch else "m1 c3 h21 w21", "v4", axis=0),
    ]
    weights = {
        "i0": np.array(0), "i2": np.array(2), "i3": np.array(3), "two": np.array(2), "a0": np.array([0]),
        "c322": np.array([3, 2, 2]), "c3": np.array([3]), "m1": np.array([-1]), "c0": np.array([0]),
    }  # fmt: skip
    return nodes, weights


@pytest.mark.parametrize("shape", [FREE, (1, 3, "h", "w"), (None, None, None, None), ("n", 3, 5, 6), (1, 3, 5, 6)])
@pytest.mark.parametrize("with_batch", [True, False])
def test_a_pixel_shuffle_written_by_hand_with_computed_sizes(shape: Shape, with_batch: bool, tmp_path: Path) -> None:
    nodes, weights = from_shape(with_batch)
    nodes = [*nodes, *shuffle_by_hand("v")[1:]]
    path = saved(model(nodes, weights | SHUFFLED, shape=shape), tmp_path)
    sizes = ((5, 6),) if shape[2] == 5 else SIZES
    read = agrees(path, sizes=sizes, batch=1 if shape[0] == 1 else 2)
    assert [type(op).__name__ for op in read.graph] == ["Input", "Conv2d", "PixelShuffle", "Conv2d"]
    if shape[2] == 5:  # any other size than the file's, and any batch
        agrees(saved(model(nodes, weights | SHUFFLED, shape=FREE), tmp_path))
        expected = load_onnx(tmp_path / "network.onnx")
        x = torch.rand(3, 3, 7, 2, dtype=torch.float64)
        assert torch.equal(read(x), expected(x))


@pytest.mark.parametrize(("height", "width"), [(12, 12), (3, 3), (2, 4), (4, 2), (6, 2), (5, 7), (2, 2)])
@pytest.mark.parametrize("blanks", [False, True])
def test_a_file_of_a_fixed_size_is_read_whatever_numbers_coincide(
    height: int, width: int, blanks: bool, tmp_path: Path
) -> None:
    """12, 3 and 2 are also numbers of channels."""
    weights = SHUFFLED | {
        "v6": np.array([0 if blanks else 1, 3, 2, 2, -1 if blanks else height, width]),
        "v4": np.array([1, -1 if blanks else 3, 2 * height, 2 * width]),
    }
    read = agrees(
        saved(model(shuffle_by_hand("v"), weights, shape=(1, 3, height, width)), tmp_path),
        sizes=((height, width),),
        batch=1,
    )
    shuffle = node("DepthToSpace", "c", "up", blocksize=2, mode="CRD")
    nodes = [node("Conv", "x w", "c"), shuffle, node("Conv", "up w2", "y", pads=[1, 1, 1, 1])]
    free = saved(model(nodes, SHUFFLED), tmp_path)
    x = torch.from_numpy(whole(2, 3, 4, 9)).double()
    assert torch.equal(read(x), load_onnx(free)(x))


@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 3), (4, 2)])
def test_a_permutation_is_read_as_what_it_does_or_refused(height: int, width: int, tmp_path: Path) -> None:
    """Channels in six axes, some as long as the height and the width, in every order."""
    weights = {
        "w": whole(4 * height * width, 3, 1, 1),
        "v6": np.array([1, 4, height, width, height, width]),
        "v4": np.array([1, 4, height * height, width * width]),
    }
    read = set()
    for order in itertools.permutations([2, 3, 4, 5]):
        nodes = [
            node("Conv", "x w", "c"),
            node("Reshape", "c v6", "six"),
            node("Transpose", "six", "t", perm=[0, 1, *order]),
            node("Reshape", "t v4", "y"),
        ]
        path = saved(model(nodes, weights, shape=(1, 3, height, width)), tmp_path)
        try:
            agrees(path, sizes=((height, width),), batch=1)
            read.add(order)
        except UnsupportedModel as error:
            assert "a reshape" in str(error)  # noqa: PT017
    assert read == ({(4, 2, 5, 3), (4, 3, 5, 2)} if height == width else set())


@pytest.mark.parametrize("shape", [FREE, (1, 3, 5, 4)])
def test_a_channel_shuffle_written_by_hand(shape: Shape, tmp_path: Path) -> None:
    flat = -1 if shape is FREE else 20
    weights = {"w": whole(6, 3, 1, 1), "five": np.array([0, 2, 3, flat]), "four": np.array([0, 6, -1, 4])}
    if shape is FREE:
        weights |= {"five": np.array([0, 2, 3, 0, 0]), "four": np.array([0, -1, 0, 0])}
    nodes = [
        node("Conv", "x w", "c"),
        node("Transpose", "f", "t", perm=[0, 2, 1, 3]),
        node("Reshape", "t four", "y"),
    ]
    if shape is FREE:
        nodes = [
            node("Conv", "x w", "c"),
            node("Shape", "c", "s"),
            node("Slice", "s from2 from4", "hw"),
            node("Concat", "front hw", "v5", axis=0),
            node("Concat", "back hw", "v4", axis=0),
            node("Reshape", "c v5", "f"),
            node("Transpose", "f", "t", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "t v4", "y"),
        ]
        weights = {
            "w": whole(6, 3, 1, 1), "from2": np.array([2]), "from4": np.array([4]),
            "front": np.array([0, 2, 3]), "back": np.array([0, 6]),
        }  # fmt: skip
        agrees(saved(model(nodes, weights), tmp_path))
        return
    nodes.insert(1, node("Reshape", "c five", "f"))
    agrees(saved(model(nodes, weights, shape=shape), tmp_path), sizes=((5, 4),), batch=1)


@pytest.mark.parametrize("shape", [FREE, (1, 3, 5, 4)])
def test_a_size_may_be_computed_for_resize(shape: Shape, tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s from2 from4", "hw"),
        node("Slice", "s from0 from2", "nc"),
        node("Mul", "hw two", "hw2"),
        node("Concat", "nc hw2", "sizes", axis=0),
        node(
            "Resize",
            "x - - sizes",
            "y",
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
    ]
    weights = {"from0": np.array([0]), "from2": np.array([2]), "from4": np.array([4]), "two": np.array([2])}
    free = shape is FREE
    agrees(
        saved(model(nodes, weights, shape=shape), tmp_path),
        sizes=SIZES if free else ((5, 4),),
        batch=2 if free else 1,
    )
    fixed = {"sizes": np.array([1, 3, 10, 8])}
    path = saved(model(nodes[-1:], fixed, shape=shape), tmp_path)
    if free:
        refuses(path, "it resizes to a fixed size", "give it a scale")
    else:
        agrees(path, sizes=((5, 4),), batch=1)


def test_half_of_a_size_is_refused(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Div", "s two", "t", name="/size/Div"),
        node("Reshape", "x t", "y"),
    ]
    refuses(saved(model(nodes, {"two": np.array([2])}), tmp_path), "size.Div: Div: half of a size")


def test_a_crop_is_refused_and_taking_everything_is_not(tmp_path: Path) -> None:
    def build(last: int, shape: Shape) -> Path:
        weights = {"a": np.array([0, 0]), "b": np.array([last, 2**63 - 1]), "axes": np.array([2, 3])}
        return saved(model([node("Slice", "x a b axes", "y")], weights, shape=shape), tmp_path)

    agrees(build(2**31 - 1, FREE))
    agrees(build(5, (1, 3, 5, 4)), sizes=((5, 4),), batch=1)
    refuses(build(4, (1, 3, 5, 4)), "it takes part of axis 2", "crop outside the network")
    refuses(build(5, FREE), "it takes part of axis 2")


@pytest.mark.parametrize("shape", [(1, 3, 5, "w"), (1, 3, 1, 4), (4, 3, 5, 4)])
def test_sizes_that_are_neither_free_nor_usable_are_refused(shape: Shape, tmp_path: Path) -> None:
    message = refuses(saved(model([node("Relu", "x", "y")], shape=shape), tmp_path), "x: the ")
    assert "dynamic" in message


def test_sizes_frozen_into_a_file_of_free_size_are_refused(tmp_path: Path) -> None:
    weights = SHUFFLED | {"v6": np.array([1, 3, 2, 2, 24, 36]), "v4": np.array([1, 3, 48, 72])}
    refuses(
        saved(model(shuffle_by_hand("v"), weights), tmp_path),
        "up.Reshape: Reshape: ",
        "a reshape cuts an axis",
    )


# -- constants -------------------------------------------------------------------------------------


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


# -- what cannot be plain, or is not read ----------------------------------------------------------


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
        ("InstanceNormalization", "x v v", "depends on the whole image", "use batch norm"),
        ("MatMul", "x x", "reweights pixels by other pixels", "remove the attention"),
        ("AveragePool", "x", "lowers the resolution", "remove the pooling"),
        ("ThresholdedRelu", "x", "it jumps", "retrain"),
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
        ("Pad", "x border", "padding (", "zero padding"),
    ],
)
def test_refusals_name_node_operator_reason_and_a_way_out(
    op: str, operands: str, reason: str, way: str, tmp_path: Path
) -> None:
    weights = {
        "v": whole(3, low=1), "v3": whole(3), "one": ONE, "pixels": whole(1, 3, 4, 5), "columns": whole(5),
        "border": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "k": whole(4, 3, 3, 3),
    }  # fmt: skip
    needed: dict[str, dict[str, Any]] = {
        "AveragePool": {"kernel_shape": [2, 2]}, "Concat": {"axis": 1}, "SpaceToDepth": {"blocksize": 2},
    }  # fmt: skip
    attributes = needed.get(op, {})
    nodes = [node("Mul", "x one", "weights")] if "weights" in operands else []
    nodes.append(node(op, operands, "y" if op != "NonMaxSuppression" else "q", name="/body/body.3/it", **attributes))
    nodes += [node("Relu", "x", "y")] if op == "NonMaxSuppression" else []
    used = {n: a for n, a in weights.items() if any(n in m.input for m in nodes)}
    message = refuses(saved(model(nodes, used), tmp_path), reason, way)
    if op != "Transpose":  # seen only where the feature map is wanted
        assert message.startswith(f"body.body.3.it: {op}: ")


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
    refuses(path, "kernel 3, stride 2, padding 0 and 0, output_padding 0", "= stride")


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
        "opset_version=17",
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


# -- files that cannot be trusted ------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is a text file\n" * 9, b"\x80\x02}q\x00.", b"\x08\x08", b"<html></html>"]
)
def test_other_files_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(content)
    refuses(path, "is ", error=InvalidInput)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    content = small().SerializeToString()
    path = tmp_path / "network.onnx"
    for name in (b"/body/C\xff\xffv", b"/body/\nonv"):
        path.write_bytes(content.replace(b"/body/Conv", name))
        refuses(path, "has a name that is no text", error=InvalidInput)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    refuses(tmp_path / "none.onnx", "cannot be read", error=InvalidInput)
    refuses(tmp_path, "cannot be read", error=InvalidInput)


def small() -> onnx.ModelProto:
    nodes = [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "y")]
    return model(nodes, {"w": whole(2, 3, 3, 3), "b": whole(2)})


@given(st.data())
@settings(quick, max_examples=150)
def test_damaged_files_are_refused_or_read_but_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(small().SerializeToString())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "network.onnx"
    path.write_bytes(bytes(content))
    try:
        load_onnx(path)
    except MemsrError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    bad = whole(2, 3, 3, 3)
    bad[0, 0, 0, 0] = value
    path = saved(model([node("Conv", "x w", "y", pads=[1, 1, 1, 1])], {"w": bad}), tmp_path)
    refuses(path, "initialiser 'w' has 1 NaN or infinite", error=InvalidInput)
    constant = node("Constant", "", "c", value=numpy_helper.from_array(bad[0]))
    nodes = [constant, node("Reshape", "c v", "w"), node("Conv", "x w", "y", pads=[1, 1, 1, 1])]
    refuses(saved(model(nodes, {"v": np.array([1, 3, 3, 3])}), tmp_path), "its kernel has NaN", error=InvalidInput)


@pytest.mark.parametrize(
    ("dims", "reason"),
    [
        ([2**20, 2**20], "declares 1099511627776 values, and 54 are there"),
        ([-1], "impossible shape"),
        ([53], "54"),
    ],
)
def test_declared_sizes_are_checked_before_memory_is_taken(dims: list[int], reason: str, tmp_path: Path) -> None:
    proto = small()
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    refuses(saved(proto, tmp_path), "initialiser 'w'", reason, error=InvalidInput)


def test_other_types_of_weights_are_refused(tmp_path: Path) -> None:
    proto = small()
    proto.graph.initializer[0].data_type = TensorProto.BFLOAT16
    refuses(saved(proto, tmp_path), "initialiser 'w' is BFLOAT16", "float32")


def external(folder: Path, **entries: str) -> Path:
    """The small network, its kernel in another file."""
    folder.mkdir(parents=True, exist_ok=True)
    proto = small()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return saved(proto, folder)


def test_external_data_beside_the_network_are_read(tmp_path: Path) -> None:
    kernel = small().graph.initializer[0].raw_data
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "weights.bin").write_bytes(b"\0" * 16 + kernel)
    path = external(tmp_path / "in", location="weights.bin", offset="16", length=str(len(kernel)))
    read = load_onnx(path)
    x = torch.from_numpy(whole(1, 3, 5, 6)).double()
    assert torch.equal(read(x), load_onnx(saved(small(), tmp_path))(x))


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "a/../../secret.bin",
        "..\\secret.bin",
        "/etc/hostname",
        "C:\\secret.bin",
        "",
        "link.bin",
        "folder/secret.bin",
    ],
)
def test_external_data_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(small().graph.initializer[0].raw_data)
    path = external(tmp_path / "in", location=location)
    os.symlink(tmp_path / "secret.bin", tmp_path / "in" / "link.bin")
    os.symlink(tmp_path, tmp_path / "in" / "folder")
    refuses(path, "initialiser 'w': its data are said to be in", "folder", error=InvalidInput)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "none.bin"}, "there is no such file"),
        ({"location": "."}, "there is no such file"),
        ({"location": "data.bin", "offset": "1"}, "wants 216 bytes at 1 of data.bin, which has 216"),
        ({"location": "data.bin", "offset": "-8"}, "wants 216 bytes at -8"),
        ({"location": "data.bin", "length": "99"}, "says 99"),
        ({"location": "data.bin", "offset": "many"}, "is not a number"),
    ],
)
def test_external_data_that_do_not_fit_are_refused(entries: dict[str, str], reason: str, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(small().graph.initializer[0].raw_data)
    refuses(external(tmp_path, **entries), reason, error=InvalidInput)


# -- whole networks from PyTorch's exporter --------------------------------------------------------


class Net(nn.Module):
    """Most of what the exporter writes for a super-resolution network."""

    def __init__(self, shuffle: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 8, 1), nn.ReLU6()
        )
        self.tail = nn.Conv2d(16, 12, 3, padding=1)
        self.shuffle = shuffle

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.head(x - 0.5)
        left, right = self.body(a).chunk(2, dim=1)
        b = torch.cat([nn.functional.leaky_relu(right, 0.1), left.abs()], 1) + 0.2 * a
        return self.shuffle(self.tail(torch.cat([a, b], 1)).clamp(-2, 2))


def by_hand(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


def unshuffled(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.pixel_unshuffle(nn.functional.pixel_shuffle(x, 2).relu(), 2)


def upsampled(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, scale_factor=3, mode="nearest")


def shuffled(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, 3, c // 3, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def resized(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="nearest")


@pytest.mark.parametrize("opset", [11, 13, 17, 18])
@pytest.mark.parametrize("shuffle", [nn.PixelShuffle(2), by_hand, unshuffled, upsampled, resized, shuffled])
@pytest.mark.parametrize("free", [True, False])
def test_networks_exported_by_pytorch(opset: int, shuffle: Any, free: bool, tmp_path: Path) -> None:
    torch.manual_seed(opset)
    net = Net(shuffle).eval()
    path = tmp_path / "network.onnx"
    axes = {"x": {0: "n", 2: "h", 3: "w"}} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.rand(1, 3, 8, 12),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            dynamic_axes=axes,
        )
    read = agrees(path, sizes=((1, 2), (5, 7)) if free else ((8, 12),), batch=2 if free else 1, tolerance=2e-5)
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(read(x), net.double()(x), atol=1e-6)
    assert not {"~", "#", "@"} & set("".join(op.name for op in read.graph))


def test_a_teacher_may_be_an_onnx_file(tmp_path: Path) -> None:
    path = saved(small(), tmp_path)
    teacher = load_teacher(path)
    traced = trace(teacher, input_range=(0.0, 255.0))
    assert traced.reader == "onnx"
    assert (traced.graph.input.low, traced.graph.input.high) == (0.0, 255.0)
