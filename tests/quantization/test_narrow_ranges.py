"""Ranges in 8 bits are narrowed where that is nearer to the values; all that hangs on their steps goes with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.plain_nets import build
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from memsr_compiler import export_onnx, load_model, quantize
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.quantization import narrow_ranges
from memsr_compiler.quantization.equalise import equalise_channels
from memsr_compiler.quantization.inner_values import InnerValues
from memsr_compiler.quantization.quantize import read_float
from memsr_compiler.quantization.steps import Steps
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.student.crops import batches

TINY = Takes(2, 3, (0.0, 255.0))  # of x2-tiny


@pytest.fixture
def halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every range that may be narrowed is taken to half, whatever it holds."""
    monkeypatch.setattr(narrow_ranges, "_SHARES", [0.5])
    monkeypatch.setattr(narrow_ranges, "_share_of", lambda *_: 0.0)


def noise(seed: int = 0) -> Tensor:
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def quantized(source: Path, out: Path, images: Sequence[Tensor], takes: Takes | None = None) -> onnx.ModelProto:
    quantize(source, out, images, takes=takes or Takes(2))
    return onnx.load(str(out))


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.float64]]:
    return {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}


def all_steps(model: onnx.ModelProto) -> dict[str, Steps]:
    """The steps of each value that is rounded."""
    held = constants(model)
    rounding = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return {n.input[0]: Steps(float(held[n.input[1]]), int(held[n.input[2]])) for n in rounding}


def write(net: PlainNet, path: Path) -> Path:
    export_onnx(net, path)
    return path


@pytest.fixture(scope="module")
def crops() -> list[Tensor]:
    """The images on which `memsrc quantize` measures ranges of x2-tiny."""
    inputs = sample_inputs(scale=2, channels=3, input_range=TINY.input_range)
    return [batch.float() for batch in batches(inputs, samples=36)]


def test_a_student_loses_less(tmp_path: Path, crops: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    net = load_model("x2-tiny").requires_grad_(False)
    source = write(net, tmp_path / "net.onnx")
    quantize(source, tmp_path / "narrow.onnx", crops, takes=TINY)
    monkeypatch.setattr(narrow_ranges, "_SHARES", [1.0])
    quantize(source, tmp_path / "wide.onnx", crops, takes=TINY)
    photographs = [x.float() for x in sample_inputs(scale=2, channels=3, input_range=TINY.input_range)[:2]]
    lost = [
        sum(float((OrtNetwork(tmp_path / name)(x) - net(x)).square().sum()) for x in photographs)
        for name in ("narrow.onnx", "wide.onnx")
    ]
    assert lost[0] < 0.95 * lost[1], lost


def test_the_nearest_of_all_is_taken(tmp_path: Path, crops: list[Tensor]) -> None:
    few = crops[:2]
    source, arrays = write(load_model("x2-tiny"), tmp_path / "net.onnx"), [image.numpy() for image in few]
    steps = all_steps(quantized(source, tmp_path / "narrow.onnx", few, TINY))
    exact = read_float(source)
    equalise_channels(exact, arrays)
    values = InnerValues(exact, arrays)
    relus = [name for name in steps if name.endswith(".relu")]
    assert len(relus) == 6
    for name in relus:
        x = torch.cat([torch.from_numpy(each).flatten() for each in values.of(name)]).double()

        def lose(share: float, x: Tensor = x, own: Steps = steps[name]) -> float:
            return float((Steps(own.scale * share, own.zero).round(x) - x).square().mean())

        assert lose(1) <= 1.02 * min(lose(share) for share in (0.85, 0.9, 0.95, 1.05, 1.1, 1.2))


@pytest.mark.parametrize("image_skip", ["", "nearest"])
@pytest.mark.parametrize("activations", [(), ("none", "relu")])
def test_biases_have_the_steps_of_what_is_added_to_them(
    image_skip: str, activations: tuple[str, ...], tmp_path: Path, halved: None
) -> None:
    """Engines take the integers of biases for products of both steps, whatever the file says of them."""
    net = build([8, 8], [3, 3, 3], image_skip=image_skip, activations=activations)
    model = quantized(write(net, tmp_path / "net.onnx"), tmp_path / "int8.onnx", [noise()])
    held = constants(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.name.startswith("layers.")]
    assert len(convolutions) == 3
    for node in convolutions:
        value, weight, bias = (held[makers[name].input[1]] for name in node.input)
        np.testing.assert_allclose(bias, value * weight, rtol=1e-6)


def test_biases_that_are_not_chosen_anew_stand_for_what_they_did(tmp_path: Path, halved: None) -> None:
    """Those of convolutions that share their weights: nothing else rounds them again."""
    model = onnx.load(str(write(build([8, 8, 8], [3, 3, 3, 3]), tmp_path / "net.onnx")))
    second, third = [node for node in model.graph.node if node.op_type == "Conv"][1:3]
    third.input[1] = second.input[1]
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "shared.onnx"))
    before, after = constants(model), quantized(tmp_path / "shared.onnx", tmp_path / "int8.onnx", [noise()])
    held, makers = constants(after), {name: node for node in after.graph.node for name in node.output}
    twins = {node.name: node for node in after.graph.node}
    for node in (second, third):
        integers, steps = (held[name] for name in makers[twins[node.name].input[2]].input[:2])
        np.testing.assert_allclose(integers * steps, before[node.input[2]], rtol=0, atol=1.01 * steps.max())


def test_all_between_image_and_result_is_narrowed(
    tmp_path: Path, halved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(build([8, 8], [3, 3, 3], image_skip="nearest"), tmp_path / "net.onnx")
    narrow = all_steps(quantized(source, tmp_path / "int8.onnx", [noise()]))
    monkeypatch.setattr(narrow_ranges, "_SHARES", [1.0])
    wide = all_steps(quantized(source, tmp_path / "int8.onnx", [noise()]))
    others = {name for name, steps in narrow.items() if steps != wide[name]}
    assert others == {name for name in wide if name.endswith(".relu")} and len(others) == 2
    assert all(narrow[name].scale == pytest.approx(wide[name].scale / 2) for name in others)


def test_what_is_added_elsewhere_stays(tmp_path: Path, halved: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(str(write(build([8, 8], [3, 3, 3]), tmp_path / "net.onnx")))
    nodes = list(model.graph.node)
    convolutions, relus = ([node for node in nodes if node.op_type == kind] for kind in ("Conv", "Relu"))
    add = onnx.helper.make_node("Add", [convolutions[1].output[0], relus[0].output[0]], ["sum"], name="sum")
    nodes.insert(nodes.index(convolutions[1]) + 1, add)
    relus[1].input[0] = "sum"
    del model.graph.node[:], model.metadata_props[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(tmp_path / "skip.onnx"))
    narrow = all_steps(quantized(tmp_path / "skip.onnx", tmp_path / "int8.onnx", [noise()]))
    monkeypatch.setattr(narrow_ranges, "_SHARES", [1.0])
    wide = all_steps(quantized(tmp_path / "skip.onnx", tmp_path / "int8.onnx", [noise()]))
    shared, alone = (relu.output[0] for relu in relus)
    assert narrow[shared] == wide[shared] and narrow[alone].scale < 0.6 * wide[alone].scale


@pytest.mark.parametrize("bright", [False, True])
def test_areas_of_one_colour_are_not_cut_off(bright: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that holds the image itself: white and its opposite stay, though photographs have little of them."""
    net = build([3, 3], [3, 3, 3])
    with torch.no_grad():
        for layer in net:
            layer.weight.zero_()
            layer.bias.zero_()
            for channel in range(layer.weight.shape[0]):
                layer.weight[channel, channel // (layer.weight.shape[0] // 3), 1, 1] = 1 if bright else -1
                layer.bias[channel] = 0 if bright else 1
    source, image = write(net, tmp_path / "net.onnx"), noise() * 0.1
    image[..., :2, :2] = 1.0
    monkeypatch.setattr(narrow_ranges, "_SHARES", [0.25, 0.5, 1.0])
    monkeypatch.setattr(Steps, "round", lambda steps, x: x * steps.scale)  # the narrowest is nearest
    quantize(source, tmp_path / "int8.onnx", [image], takes=Takes(2))
    flat = torch.ones(1, 3, 20, 20)
    for colour in (flat, flat * torch.tensor([1.0, 0, 0])[:, None, None], flat * 0):
        torch.testing.assert_close(OrtNetwork(tmp_path / "int8.onnx")(colour), net(colour), rtol=0, atol=3 / 255)


@pytest.mark.parametrize("number", [1, 3, 4, 36])
def test_colours_are_run_in_batches_no_larger_than_those_of_the_images(number: int) -> None:
    """Eight of them for each photograph would take eight times its memory; a file may fix the number."""
    batches = list(narrow_ranges._draw_flat((number, 3, 2, 5), (-1.0, 1.0)))
    assert [batch.shape for batch in batches] == [(number, 3, 2, 5)] * -(-8 // number)
    images = np.concatenate(batches)
    assert np.array_equal(images, np.broadcast_to(images[..., :1, :1], images.shape))
    assert len({tuple(colour) for colour in images[..., 0, 0].tolist()}) == 8
