"""Plain networks as TFLite: LiteRT gives what ONNX Runtime gives."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from helpers.litert import LiteRT
from helpers.plain_nets import build, draw_image, plain_nets
from hypothesis import given, settings
from hypothesis import strategies as st

from memsr_compiler.errors import ExportError
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.tflite_model import export_tflite
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.runtime.runners import OrtNetwork

ROUNDING = 64 * 2.0**-23
"""Of the largest value: at most 226 products in a sum here, in four layers, in another order."""


@settings(max_examples=60)
@given(plain_nets(prelu=True), st.integers(1, 9), st.integers(1, 9))
def test_litert_computes_what_onnx_runtime_does(net: PlainNet, height: int, width: int) -> None:
    with TemporaryDirectory() as folder:
        export_onnx(net, Path(folder) / "net.onnx")
        export_tflite(net, Path(folder) / "net.tflite")
        network, reference = LiteRT(Path(folder) / "net.tflite"), OrtNetwork(Path(folder) / "net.onnx")
        for size in ((height, width), (1, 1)):
            x = draw_image(net, *size)
            expected = reference(x)
            peak = max(float(expected.abs().max()), *map(abs, net.info.input_range))
            assert torch.allclose(network(x), expected, rtol=0, atol=ROUNDING * peak)


def test_the_operators_are_four(tmp_path: Path) -> None:
    export_tflite(build([8, 8], [3, 3, 3], image_skip="nearest"), tmp_path / "net.tflite")
    network = LiteRT(tmp_path / "net.tflite")
    assert network.ops == ["CONV_2D", "CONV_2D", "CONV_2D", "CONV_2D", "ADD", "DEPTH_TO_SPACE"]
    assert list(network.image["shape_signature"]) == [1, -1, -1, 3]
    assert list(network.upscaled["shape_signature"]) == [1, -1, -1, 3]


def test_half_weights_are_those_of_the_onnx_file(tmp_path: Path) -> None:
    """LiteRT computes in float32 with weights rounded to halves: so does torch."""
    net = build([8, 8], [3, 3, 3])
    export_tflite(net, tmp_path / "half.tflite", dtype="float16")
    export_tflite(net, tmp_path / "float.tflite")
    x = draw_image(net, 11, 7)
    with torch.no_grad():
        for layer in net:
            layer.weight.copy_(layer.weight.half().float())
            layer.bias.copy_(layer.bias.half().float())
        expected = net(x)
    assert torch.allclose(LiteRT(tmp_path / "half.tflite")(x), expected, rtol=0, atol=ROUNDING)
    assert (tmp_path / "half.tflite").stat().st_size < (tmp_path / "float.tflite").stat().st_size


def test_a_given_size_is_the_size_of_the_file(tmp_path: Path) -> None:
    net = build([8], [3, 3], scale=3)
    export_tflite(net, tmp_path / "net.tflite", size=(6, 10))
    network = LiteRT(tmp_path / "net.tflite")
    assert list(network.image["shape"]) == [1, 6, 10, 3] and list(network.upscaled["shape"]) == [1, 18, 30, 3]
    x = draw_image(net, 6, 10)
    assert torch.allclose(network(x), net(x), rtol=0, atol=ROUNDING)


def test_an_interpolated_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"bicubic interpolation.*--image-skip nearest"):
        export_tflite(build([8], [3, 3], image_skip="bicubic"), tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())
