"""Convolutions of ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_files import FREE, Shape, agrees, model, node, quick, refuses, saved, whole
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import helper

from memsr_compiler.errors import MemsrError
from memsr_compiler.trace.onnx.reader import load_onnx


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


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        {"kernel_shape": [5, 3], "auto_pad": "SAME_UPPER", "count_include_pad": 1, "strides": [1, 1]},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1, "ceil_mode": 1},
        {"kernel_shape": [1, 1]},
    ],
)
def test_means_of_neighbours(attributes: dict[str, Any], tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("AveragePool", "c", "y", **attributes)]
    agrees(saved(model(nodes, {"w": whole(4, 3, 3, 3)}), tmp_path), tolerance=1e-5)  # of up to 100, in float32


def test_zeros_around_means_of_neighbours(tmp_path: Path) -> None:
    """As torch's older exporter writes AvgPool2d(3, 1, 1)."""
    nodes = [node("Conv", "x w", "c"), node("Pad", "c around", "p"), node("AveragePool", "p", "y", kernel_shape=[5, 3])]
    weights = {"w": whole(4, 3, 1, 1), "around": np.array([0, 0, 2, 1, 0, 0, 2, 1])}
    agrees(saved(model(nodes, weights), tmp_path), tolerance=1e-5)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, "divides by fewer pixels"),
        ({"kernel_shape": [3, 3], "strides": [2, 2]}, "lowers the resolution"),
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "dilations": [2, 2], "count_include_pad": 1}, "lowers"),
        ({"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}, "not the same on both sides"),
        ({"kernel_shape": [3, 3]}, "changes the size"),
        ({"kernel_shape": [3]}, "are not two sizes each"),
    ],
)
def test_means_that_are_no_convolution(attributes: dict[str, Any], words: str, tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("AveragePool", "c", "y", **attributes)]
    refuses(saved(model(nodes, {"w": whole(4, 3, 3, 3)}, opset=21), tmp_path), words, error=MemsrError)


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


@pytest.mark.parametrize(
    ("opset", "outputs", "attributes"), [(13, "y m2 v2 m3 v3", {}), (17, "y m2 v2", {"training_mode": 1})]
)
def test_batch_norm_in_training_is_refused(
    opset: int, outputs: str, attributes: dict[str, Any], tmp_path: Path
) -> None:
    """Up to opset 13 its further results say so, as torch.onnx.export writes it of a network in train mode."""
    nodes = [node("BatchNormalization", "x s b m v", outputs, **attributes)]
    weights = {"s": whole(3), "b": whole(3, seed=1), "m": whole(3, seed=2), "v": np.ones(3, np.float32)}
    refuses(saved(model(nodes, weights, opset=opset), tmp_path), "statistics", "eval")


def test_batch_norm_becomes_constant(tmp_path: Path) -> None:
    nodes = [node("BatchNormalization", "x s b m v", "y", epsilon=0.0)]
    weights = {
        "s": whole(3),
        "b": whole(3, seed=1),
        "m": whole(3, seed=2),
        "v": np.array([1, 4, 16], np.float32),
    }
    agrees(saved(model(nodes, weights), tmp_path), tolerance=1e-5)
