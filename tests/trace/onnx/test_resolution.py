"""Nodes of ONNX files that change the resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from helpers.onnx_files import agrees, model, node, quick, refuses, saved, whole
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memsr_compiler.trace.onnx.ops.resolution import repeats
from memsr_compiler.trace.onnx.reader import load_onnx


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


@pytest.mark.parametrize(("kind", "name"), [(10, "float16"), (16, "bfloat16")])
def test_the_enlarged_image_in_fewer_digits_is_told(
    kind: int, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [
        node("Resize", "x - scales", "up", mode="linear"),
        node("Cast", "up", "narrow", to=kind),
        node("Cast", "narrow", "wide", to=1),
        node("Conv", "x w", "c"),
        node("DepthToSpace", "c", "d", blocksize=2, mode="CRD"),
        node("Add", "wide d", "y"),
    ]
    load_onnx(saved(model(nodes, RESIZED), tmp_path))
    assert f"computes feature maps in {name}: it is read as the network that rounds nothing" in caplog.text


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
