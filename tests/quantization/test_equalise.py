"""Channels of one range: the same network in floating point, nearer to it in 8 bits."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from helpers.plain_nets import build, draw_image
from torch import Tensor

from memsr_compiler import export_onnx, quantize
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.quantization import quantize as quantization
from memsr_compiler.quantization.equalise import equalise_channels
from memsr_compiler.quantization.inner_values import InnerValues
from memsr_compiler.quantization.quantize import read_float
from memsr_compiler.runtime.runners import OrtNetwork


def uneven() -> PlainNet:
    """A network of which one channel in each layer reaches twenty times as far as the others."""
    net = build([8, 8], [3, 3, 3])
    with torch.no_grad():
        for above, below in ((net[0], net[1]), (net[1], net[2])):
            above.weight[3] *= 20
            above.bias[3] *= 20
            below.weight[:, 3] /= 20
    return net


def images(net: PlainNet) -> list[Tensor]:
    return [draw_image(net, 24, 24, seed) for seed in range(3)]


def test_channels_reach_more_equally_far_and_the_network_is_the_same(tmp_path: Path) -> None:
    net = uneven()
    export_onnx(net, tmp_path / "net.onnx")
    arrays = [image.numpy() for image in images(net)]
    models = [read_float(tmp_path / "net.onnx") for _ in range(2)]
    equalise_channels(models[1], arrays)
    unevenness = []
    for model in models:
        values = InnerValues(model, arrays).of("layers.1.relu")
        peaks = torch.stack([torch.from_numpy(x).amax((0, 2, 3)) for x in values]).amax(0)
        unevenness.append(float(peaks.max() / peaks.median()))
    assert unevenness[0] > 15 and unevenness[1] < 4, unevenness
    onnx.save(models[1], str(tmp_path / "equal.onnx"))
    x = draw_image(net, 11, 9, 7)
    torch.testing.assert_close(*(OrtNetwork(tmp_path / name)(x) for name in ("net.onnx", "equal.onnx")))


def test_less_is_lost_in_8_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = uneven()
    export_onnx(net, tmp_path / "net.onnx")
    quantize(tmp_path / "net.onnx", tmp_path / "with.onnx", images(net), takes=Takes(2))
    monkeypatch.setattr(quantization, "equalise_channels", lambda *_: None)
    quantize(tmp_path / "net.onnx", tmp_path / "without.onnx", images(net), takes=Takes(2))
    x = draw_image(net, 40, 40, 7)
    with torch.no_grad():
        exact = net(x)
    errors = [float((OrtNetwork(tmp_path / name)(x) - exact).square().mean()) for name in ("with.onnx", "without.onnx")]
    assert errors[0] < errors[1] / 1.5, errors


def test_what_others_read_too_stays(tmp_path: Path) -> None:
    export_onnx(uneven(), tmp_path / "net.onnx")
    arrays = [image.numpy() for image in images(uneven())]
    model = read_float(tmp_path / "net.onnx")
    model.graph.output.append(onnx.helper.make_tensor_value_info("layers.0.relu", onnx.TensorProto.FLOAT, None))
    before = {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer}
    equalise_channels(model, arrays)
    changed = {t.name for t in model.graph.initializer if t.SerializeToString() != before[t.name]}
    assert changed == {"layers.1.weight", "layers.1.bias", "layers.2.weight"}


def test_channels_that_hold_nothing_stay(tmp_path: Path) -> None:
    net = uneven()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(-1)
    export_onnx(net, tmp_path / "net.onnx")
    model = read_float(tmp_path / "net.onnx")
    equalise_channels(model, [image.numpy() for image in images(net)])
    onnx.save(model, str(tmp_path / "equal.onnx"))
    x = draw_image(net, 11, 9, 7)
    torch.testing.assert_close(*(OrtNetwork(tmp_path / name)(x) for name in ("net.onnx", "equal.onnx")))
