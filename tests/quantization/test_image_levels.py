"""Image, result and what is added to the image have the steps of 255 levels, where they are images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.plain_nets import build, draw_image
from onnx import TensorProto, helper, numpy_helper

from memsr_compiler import export_onnx, quantize
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime.runners import OrtNetwork


def small_residual(skip: str = "nearest") -> PlainNet:
    """A network whose last layer gives a hundredth of the image."""
    net = build([6, 6], [3, 3, 3], image_skip=skip, input_range=(0.0, 255.0))
    with torch.no_grad():
        net[-1].weight.mul_(0.1)
        net[-1].bias.zero_()
    return net


def write(net: PlainNet, folder: Path, brightness: float = 1.0) -> Path:
    export_onnx(net, folder / "net.onnx")
    images = [draw_image(net, 24, 24, seed) * brightness for seed in range(3)]
    quantize(folder / "net.onnx", folder / "int8.onnx", images, takes=Takes(2, 3, net.info.input_range))
    return folder / "int8.onnx"


def steps(path: Path) -> dict[str, tuple[float, int]]:
    graph = onnx.load(str(path)).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = (node for node in graph.node if node.op_type == "QuantizeLinear")
    return {node.input[0]: (float(stored[node.input[1]]), int(stored[node.input[2]])) for node in nodes}


@pytest.mark.parametrize("brightness", [1.0, 0.4])
def test_an_image_has_the_steps_of_its_levels_whatever_was_measured(brightness: float, tmp_path: Path) -> None:
    """Measured on dark images only, bright ones were cut off."""
    found = steps(write(small_residual(), tmp_path, brightness))
    assert found["image"] == found["image_skip.sum"] == found["image_skip.repeated"] == (1.0, 0)
    (added,) = (value for name, value in found.items() if name.startswith("layers.2"))
    assert added[0] == 1 and 64 < added[1] < 192


def test_an_image_that_nothing_is_added_to_comes_back_exactly(tmp_path: Path) -> None:
    net = small_residual()
    with torch.no_grad():
        net[-1].weight.zero_()
    x = torch.arange(256.0).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    upscaled = OrtNetwork(write(net, tmp_path))(x)
    assert torch.equal(upscaled, x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_what_is_added_to_the_image_as_it_came_is_in_its_steps(tmp_path: Path) -> None:
    """As VDSR does, which takes an image that is enlarged already."""
    kernels = [np.full(shape, 0.01, np.float32) for shape in ((4, 3, 3, 3), (3, 4, 3, 3))]
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["c0"], pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], pads=[1] * 4),
        helper.make_node("Add", ["c1", "image"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in ("image", "y")]
    tensors = [numpy_helper.from_array(kernel, f"w{i}") for i, kernel in enumerate(kernels)]
    graph = helper.make_graph(nodes, "vdsr", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "v.onnx")
    quantize(tmp_path / "v.onnx", tmp_path / "int8.onnx", [torch.rand(1, 3, 24, 24)], takes=Takes(1, 3))
    found = steps(tmp_path / "int8.onnx")
    assert {scale for name, (scale, _) in found.items() if name in ("image", "c1", "y")} == {found["image"][0]}


def test_rounding_the_weights_again_leaves_the_image_alone(tmp_path: Path) -> None:
    graph = onnx.load(str(write(small_residual(), tmp_path))).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (kernel,) = (value for name, value in stored.items() if name.startswith("image_skip.weight_q"))
    assert set(np.unique(kernel)) == {0, 64}


def test_a_result_that_is_no_image_keeps_its_range(tmp_path: Path) -> None:
    net = small_residual("")
    with torch.no_grad():
        net[-1].bias.fill_(1000.0)
    path = write(net, tmp_path)
    x = draw_image(net, 8, 8, 5)
    assert float(OrtNetwork(path)(x).mean()) == pytest.approx(1000, abs=60)


def test_what_is_added_keeps_its_range_beyond_255_levels(tmp_path: Path) -> None:
    """So is the sum, whose steps are those of images all the same."""
    net = small_residual()
    with torch.no_grad():
        net[-1].weight.mul_(0.01)
        net[-1].bias[:6] = 160.0
        net[-1].bias[6:] = -160.0
    images = [draw_image(net, 24, 24, seed) * 0.1 + 115 for seed in range(3)]
    export_onnx(net, tmp_path / "net.onnx")
    quantize(tmp_path / "net.onnx", tmp_path / "int8.onnx", images, takes=Takes(2, 3, net.info.input_range))
    found = steps(tmp_path / "int8.onnx")
    (added,) = (value for name, value in found.items() if name.startswith("layers.2"))
    assert found["image_skip.sum"] == (1.0, 0) and added[0] > 1
    x = images[0]
    with torch.no_grad():
        assert float((OrtNetwork(tmp_path / "int8.onnx")(x) - net(x).clamp(0, 255)).abs().mean()) < 2
