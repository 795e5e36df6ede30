"""Networks in 8 bits as TFLite: LiteRT gives, integer by integer, what ONNX Runtime gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.litert import LiteRT
from helpers.plain_nets import build, draw_image
from onnx import numpy_helper

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.quantization import tflite
from memsr_compiler.quantization.quantize import quantize
from memsr_compiler.quantization.tflite import Ends, export_integers
from memsr_compiler.runtime.runners import OrtNetwork


def in_8_bits(net: PlainNet, folder: Path) -> Path:
    export_onnx(net, folder / "net.onnx")
    takes = Takes(net.scale, net.info.channels, net.info.input_range)
    images = [draw_image(net, 24, 24, seed) for seed in range(3)]
    quantize(folder / "net.onnx", folder / "int8.onnx", images, takes=takes)
    return folder / "int8.onnx"


@pytest.mark.parametrize("ends", ["int8", "float32"])
@pytest.mark.parametrize(
    "net",
    [
        build([8, 8], [3, 3, 3]),
        build([8, 8], [3, 3, 3], image_skip="nearest"),
        build([9, 5], [5, 1, 3], scale=3, channels=1, image_skip="nearest", input_range=(0.0, 255.0)),
        build([6], [3, 3], scale=1),
        build([6, 7], [3, 3, 3], scale=4, early=2, input_range=(-1.0, 1.0)),
    ],
    ids=["x2", "image outside", "grey, 0 to 255", "x1", "stages"],
)
def test_litert_gives_the_integers_of_onnx_runtime(net: PlainNet, ends: Ends, tmp_path: Path) -> None:
    path = in_8_bits(net, tmp_path)
    export_integers(path, tmp_path / "int8.tflite", ends=ends)
    network, reference = LiteRT(tmp_path / "int8.tflite"), OrtNetwork(path)
    for size in ((1, 1), (5, 8), (20, 33)):
        x = draw_image(net, *size, seed=9)
        expected = reference(x)
        peak = float(expected.abs().max())
        step = float(network.interpreter.get_tensor_details()[network.upscaled["index"]]["quantization"][0])
        difference = (network(x) - expected).abs()
        assert float(difference.mean()) <= 0.01 * (step or peak / 255)  # a product at .5 may be rounded either way
        assert float(difference.max()) <= 1.01 * (step or peak / 127)


def test_integers_go_in_and_come_out(tmp_path: Path) -> None:
    path = in_8_bits(build([8], [3, 3]), tmp_path)
    export_integers(path, tmp_path / "a.tflite", size=(6, 10))
    export_integers(path, tmp_path / "b.tflite", ends="float32")
    integers, floats = LiteRT(tmp_path / "a.tflite"), LiteRT(tmp_path / "b.tflite")
    assert integers.ops == ["CONV_2D", "CONV_2D", "DEPTH_TO_SPACE"]
    assert floats.ops == ["QUANTIZE", *integers.ops, "DEQUANTIZE"]
    assert list(integers.image["shape"]) == [1, 6, 10, 3]
    weights = [d for d in integers.interpreter.get_tensor_details() if len(d["quantization_parameters"]["scales"]) > 1]
    assert len(weights) == 4  # kernels and biases, a step for each channel


def test_other_networks_are_refused_by_operator(tmp_path: Path) -> None:
    path = in_8_bits(build([8], [3, 3]), tmp_path)
    model = onnx.load(path)
    (shuffle,) = (node for node in model.graph.node if node.op_type == "DepthToSpace")
    shuffle.op_type, shuffle.name = "SpaceToDepth", "down"
    del shuffle.attribute[:]
    shuffle.attribute.append(onnx.helper.make_attribute("blocksize", 2))
    _save(model, tmp_path / "other.onnx")
    with pytest.raises(InvalidInput, match=r"down: SpaceToDepth is not among Conv, Add, DepthToSpace and Relu"):
        export_integers(tmp_path / "other.onnx", tmp_path / "net.tflite")
    export_onnx(build([8], [3, 3]), tmp_path / "float.onnx")
    with pytest.raises(InvalidInput, match="is no network in 8 bits of ours"):
        export_integers(tmp_path / "float.onnx", tmp_path / "net.tflite")
    assert not (tmp_path / "net.tflite").exists()


Nodes = list[tuple[str, str, str]]
"""Operators, with the names that each reads and the one that it makes."""


def foreign_in_8_bits(nodes: Nodes, folder: Path, *, channels: int = 3) -> Path:
    """A network of others in 8 bits: 3x3 convolutions with biases, pixel shuffles by 2, and the like."""
    generator = np.random.default_rng(0)
    width, made, stored = {"x": channels}, [], []
    for operator, reads, result in nodes:
        inputs = reads.split()
        options: dict[str, Any] = {}
        width[result] = width[inputs[0]]
        if operator == "Conv":
            width[result] = 4 * channels
            kernel = generator.normal(0, 0.3, (4 * channels, width[inputs[0]], 3, 3)) / np.sqrt(width[inputs[0]])
            bias = generator.normal(0, 0.1, 4 * channels)
            stored += [
                numpy_helper.from_array(n.astype(np.float32), f"{result}.{i}") for i, n in enumerate((kernel, bias))
            ]
            inputs, options = [*inputs, f"{result}.0", f"{result}.1"], {"pads": [1] * 4}
        elif operator == "DepthToSpace":
            width[result], options = width[inputs[0]] // 4, {"blocksize": 2, "mode": "CRD"}
        made.append(onnx.helper.make_node(operator, inputs, [result], result, **options))
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", channels, f"{name}h", f"{name}w"])
        for name in ("x", nodes[-1][2])
    ]
    graph = onnx.helper.make_graph(made, "foreign", ends[:1], ends[1:], stored)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        str(folder / "net.onnx"),
    )
    images = [torch.rand(1, channels, 20, 24, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    quantize(folder / "net.onnx", folder / "int8.onnx", images, takes=Takes(2, channels))
    return folder / "int8.onnx"


SKIP: Nodes = [("Conv", "x", "a"), ("Conv", "a", "c"), ("Add", "a c", "s"), ("DepthToSpace", "s", "y")]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (SKIP, "c: Conv reads 'a_.*', whose channels a DepthToSpace of TFLite wants in another order"),
        (
            [("Conv", "x", "a"), ("DepthToSpace", "a", "d"), ("Relu", "d", "y")],
            "y: Relu is written only right behind a Conv or an Add that nothing else reads",
        ),
        (
            [
                ("Conv", "x", "a"),
                ("Relu", "a", "r"),
                ("Conv", "r", "c"),
                ("Add", "a c", "s"),
                ("DepthToSpace", "s", "y"),
            ],
            "r: Relu is written only right behind a Conv or an Add that nothing else reads",
        ),
        (
            [
                ("Conv", "x", "a"),
                ("Conv", "a", "b"),
                ("Relu", "a", "r"),
                ("Add", "r b", "s"),
                ("DepthToSpace", "s", "y"),
            ],
            "b: Conv reads 'a_.*', whose channels a DepthToSpace of TFLite wants in another order",
        ),
    ],
    ids=["a value in two orders", "a ReLU behind a shuffle", "a ReLU beside a sum", "a ReLU beside two orders"],
)
def test_what_is_not_written_is_refused_by_name(nodes: Nodes, message: str, tmp_path: Path) -> None:
    """Channels were permuted for one reader and not for another, and ReLUs left out, without a word."""
    path = foreign_in_8_bits(nodes, tmp_path)
    with pytest.raises(InvalidInput, match=message):
        export_integers(path, tmp_path / "net.tflite")
    assert not (tmp_path / "net.tflite").exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda graph: graph.output.append(graph.output[0]), "takes 1 images and gives 2, not one of each"),
        (
            lambda graph: _reroute(graph, "layers.1.conv", "layers.0.relu"),
            "Conv reads 'layers.0.relu', which is not rounded to 8 bits there",
        ),
        (lambda graph: _reroute(graph, "layers.0.conv", "image"), "Conv reads 'image', which is not rounded"),
    ],
)
def test_what_is_read_in_floating_point_is_refused(
    edit: Callable[[onnx.GraphProto], None], message: str, tmp_path: Path
) -> None:
    """Engines read the numbers themselves there, and the file would have their integers."""
    model = onnx.load(in_8_bits(build([8], [3, 3]), tmp_path))
    edit(model.graph)
    _save(model, tmp_path / "edited.onnx")
    with pytest.raises(InvalidInput, match=message):
        export_integers(tmp_path / "edited.onnx", tmp_path / "net.tflite")


def _reroute(graph: onnx.GraphProto, name: str, value: str) -> None:
    next(node for node in graph.node if node.op_type == "Conv" and node.name.startswith(name[:8])).input[0] = value


@pytest.mark.parametrize(
    ("nodes", "channels"),
    [
        (SKIP, 1),  # a shuffle to one channel has the same order in both
        ([("Conv", "x", "a"), ("Conv", "x", "c"), ("Add", "a c", "s"), ("DepthToSpace", "s", "y")], 3),
        (
            [
                ("Conv", "x", "a"),
                ("Conv", "x", "c"),
                ("Add", "a c", "s"),
                ("Relu", "s", "r"),
                ("Conv", "r", "e"),
                ("DepthToSpace", "e", "y"),
            ],
            3,
        ),
        ([("Conv", "x", "a"), ("Relu", "a", "r"), ("Add", "r r", "s"), ("DepthToSpace", "s", "y")], 3),
        (
            [
                ("Conv", "x", "a"),
                ("Conv", "a", "b"),
                ("Conv", "b", "c"),
                ("Add", "a c", "s"),
                ("Conv", "s", "e"),
                ("DepthToSpace", "e", "y"),
            ],
            3,
        ),
    ],
    ids=["grey", "two convolutions", "a ReLU behind a sum", "a sum with itself", "an inner skip"],
)
def test_networks_of_others_that_can_be_written(nodes: Nodes, channels: int, tmp_path: Path) -> None:
    path = foreign_in_8_bits(nodes, tmp_path, channels=channels)
    export_integers(path, tmp_path / "int8.tflite", ends="float32")
    x = torch.rand(1, channels, 20, 33, generator=torch.Generator().manual_seed(9))
    expected = OrtNetwork(path)(x)
    assert float((LiteRT(tmp_path / "int8.tflite")(x) - expected).abs().max()) < 0.03 * float(expected.abs().max())


@pytest.mark.parametrize("ends", ["int8", "float32"])
def test_another_network_is_not_written_whatever_went_wrong(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last defence: what would be written is run, and compared with the network in ONNX Runtime."""
    path = in_8_bits(build([8, 8], [3, 3, 3]), tmp_path)
    monkeypatch.setattr(tflite, "order_channels", lambda weight, bias, _: (weight.transpose(0, 2, 3, 1), bias))
    with pytest.raises(
        ExportError, match=r"int8\.onnx: is not written. As TFLite it would give another image .* report"
    ):
        export_integers(path, tmp_path / "net.tflite", ends=ends)
    assert not (tmp_path / "net.tflite").exists()


def _edit(model: onnx.ModelProto, name: str, factor: float, of: str = "") -> None:
    """Multiply a stored number; of: that which this node reads, not what others read too."""
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(stored)
    new = numpy_helper.from_array((values * np.float32(factor)).astype(values.dtype), f"{of}{name}")
    if of:
        model.graph.initializer.append(new)
        node = next(node for node in model.graph.node if node.name == of)
        node.input[list(node.input).index(name)] = new.name
    else:
        stored.CopyFrom(new)


@pytest.mark.parametrize(
    ("name", "factor", "of", "message"),
    [
        ("layers.0.relu_scale", 1.5, "layers.0.relu_DequantizeLinear", "has other steps than the integers"),
        ("layers.0.bias_quantized_scale", 2, "", "has biases whose step is not that of its image times that"),
        ("layers.0.weight_scale", -1, "", "a step of 'layers.0.weight_DequantizeLinear_Output' is -"),
        ("image_scale", 0, "", "a step of 'image' is 0"),  # LiteRT ended the process
        ("image_scale", float("nan"), "", "a step of 'image' is nan"),
    ],
)
def test_steps_that_tflite_would_not_have_are_refused(
    name: str, factor: float, of: str, message: str, tmp_path: Path
) -> None:
    """Whoever edits them writes the hash anew: another network was written, without a word."""
    model = onnx.load(in_8_bits(build([8], [3, 3]), tmp_path))
    _edit(model, name, factor, of)
    _save(model, tmp_path / "edited.onnx")
    with pytest.raises(InvalidInput, match=message):
        export_integers(tmp_path / "edited.onnx", tmp_path / "net.tflite")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("scale", "3", "enlarges by another factor than its metadata say"),
        ("channels", "1", "takes other channels than its metadata say"),
        ("scale", "0", "its metadata are damaged .x0"),
        ("input_range", "1 0", "range 1.0 0.0 is empty"),
        ("input_range", "0 inf", "range 0.0 inf is empty"),
        ("input_range", "nan nan", "range nan nan is empty"),
        ("scale", "1000000", "its metadata are damaged .x1000000"),
        ("input_range", "0 1e39", "beyond what float32"),
    ],
)
def test_metadata_of_another_network_are_refused(key: str, value: str, message: str, tmp_path: Path) -> None:
    model = onnx.load(in_8_bits(build([8], [3, 3]), tmp_path))
    next(entry for entry in model.metadata_props if entry.key == key).value = value
    _save(model, tmp_path / "edited.onnx")
    with pytest.raises(InvalidInput, match=message):
        export_integers(tmp_path / "edited.onnx", tmp_path / "net.tflite")


def test_a_file_without_a_hash_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = onnx.load(in_8_bits(build([8], [3, 3]), tmp_path))
    model.doc_string = model.metadata_props[0].value = "memsr quantized network 1"
    del model.metadata_props[-1]
    onnx.save(model, tmp_path / "old.onnx")
    export_integers(tmp_path / "old.onnx", tmp_path / "net.tflite")
    assert "old.onnx: an earlier version wrote it without a hash" in caplog.text


def _save(model: onnx.ModelProto, path: Path) -> None:
    from memsr_compiler.plain.seal import seal

    del model.metadata_props[-1]
    path.write_bytes(seal(model.SerializeToString(deterministic=True)))
