"""What is simulated is what ONNX Runtime computes of the file; rounding passes gradients."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler import evaluate, export_onnx
from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.quantization.simulate import IntegerNet
from memsr_compiler.quantization.steps import Steps
from memsr_compiler.quantization.write_integers import write_integers
from memsr_compiler.runtime.runners import OrtNetwork


def network(seed: int, widths: list[int], *, skip: str = "nearest", scale: int = 2, high: float = 1.0) -> PlainNet:
    """A random plain network whose output stays near its image."""
    generator = torch.Generator().manual_seed(seed)
    channels = [3, *widths, 3 * scale**2]
    layers = []
    for i, (c_in, c_out) in enumerate(pairwise(channels)):
        last = i == len(widths)
        size = (0.1 if skip and last else 1.0) * (2 / (9 * c_in)) ** 0.5
        weight = torch.randn(c_out, c_in, 3, 3, generator=generator) * size
        bias = torch.randn(c_out, generator=generator) * 0.05 * high
        layers.append(PlainLayer(weight, bias, relu=not last, shuffle=scale if last else 1))
    return PlainNet(layers, PlainInfo(scale, 3, (0.0, high), "none", "", "", 3, skip, "memsr_compiler test")).eval()


def pixels(height: int, width: int, high: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(height * 31 + width)
    return torch.randint(0, 256, (1, 3, height, width), generator=generator) * (high / 255)


def round_to_nearest(net: PlainNet, x: Tensor) -> IntegerNet:
    """The network in steps that reach as far as its weights, and its values on an image."""
    kernels, values = [], []
    with torch.no_grad():
        for layer in net:
            x = torch.nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
            x = x.relu() if layer.relu else x
            kernels.append(layer.weight.flatten(1).abs().amax(1) / 64 + 1e-20)
            values.append(Steps.of(min(float(x.min()), 0.0), max(float(x.max()), 0.0)))
    return IntegerNet(net, kernels, values).eval()


@settings(max_examples=25)
@given(
    st.integers(0, 999),
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.sampled_from(["", "nearest"]),
    st.integers(1, 3),
    st.sampled_from([1.0, 255.0]),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_the_engine_gives_what_is_simulated(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    widths: list[int],
    skip: str,
    scale: int,
    high: float,
    height: int,
    width: int,
) -> None:
    """Bit for bit but for the last sum, of result and image: in the middle of two levels either may be."""
    folder = tmp_path_factory.mktemp("integers")
    net = network(seed, widths, skip=skip, scale=scale, high=high)
    integers = round_to_nearest(net, pixels(24, 24, high))
    export_onnx(net, folder / "float.onnx")
    write_integers(integers, folder / "int8.onnx", folder / "float.onnx")
    x = pixels(height, width, high)
    with torch.no_grad():
        simulated = integers(x)
    session = onnxruntime.InferenceSession(str(folder / "int8.onnx"), providers=["CPUExecutionProvider"])
    (engine,) = session.run(None, {"image": x.numpy()})
    levels = ((torch.from_numpy(engine) - simulated) * (255 / high)).abs().round()
    assert engine.shape == tuple(simulated.shape)
    assert float(levels.max()) <= (1 if skip else 0)
    assert float((levels > 0).float().mean()) <= 0.01 + 1 / levels.numel()


def test_a_channel_that_is_a_constant_keeps_it(tmp_path: Path) -> None:
    """Its weights are zero and give no step, in which a bias would leave 32 bits."""
    net = network(0, [6, 6])
    with torch.no_grad():
        net[0].weight[0] = 0
        net[0].bias[0] = 0.8
    x = pixels(9, 9)
    integers = round_to_nearest(net, x)
    export_onnx(net, tmp_path / "float.onnx")
    write_integers(integers, tmp_path / "int8.onnx", tmp_path / "float.onnx")
    engine = OrtNetwork(tmp_path / "int8.onnx")(x)
    with torch.no_grad():
        assert float((engine - net(x)).abs().mean()) < 2 / 255
        torch.testing.assert_close(engine, integers(x))


def test_mixed_precision_does_not_round_the_integers() -> None:
    x = pixels(9, 9)
    integers = round_to_nearest(network(0, [6, 6]), x)
    with torch.no_grad():
        exact = integers(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(integers(x), exact)


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    net = network(0, [6])
    integers = round_to_nearest(net, pixels(24, 24))
    export_onnx(net, tmp_path / "float.onnx")
    write_integers(integers, tmp_path / "int8.onnx", tmp_path / "float.onnx")
    assert OrtNetwork(tmp_path / "int8.onnx").metadata["scale"] == "2"
    assert len(evaluate(str(tmp_path / "int8.onnx"))) == len(evaluate(net))
    with pytest.raises(InvalidInput, match=r"needs the extension \.onnx"):
        write_integers(integers, tmp_path / "int8.tflite", tmp_path / "float.onnx")


def test_rounding_is_to_the_nearest_and_passes_gradients() -> None:
    x = torch.tensor([0.2, 0.6, 2.4, -3.0], requires_grad=True)
    y = Steps.of(0.0, 2.55).round(x)
    torch.testing.assert_close(y, torch.tensor([0.2, 0.6, 2.4, 0.0]))
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and x.grad.tolist() == [1, 1, 1, 0]  # none where it is cut off
    net = network(0, [4])
    counts, _, steps, _ = round_to_nearest(net, pixels(9, 9)).layer_integers(0)
    torch.testing.assert_close(steps, net[0].weight.detach().flatten(1).abs().amax(1) / 64)
    rounded = counts * steps[:, None, None, None]
    assert bool(((rounded - net[0].weight).abs().flatten(1).amax(1) <= steps / 2 * 1.001).all())


def test_steps_are_trained_until_they_stay(tmp_path: Path) -> None:
    """Their gradient is that of the loss: where everything is cut off, larger steps are better; the file has them."""
    net, x = network(0, [4, 4]), pixels(12, 12)
    with torch.no_grad():
        wanted = net(x)
    integers = round_to_nearest(net, x).train()
    with torch.no_grad():
        integers.value_growth[0] -= 1  # to a third: most values are beyond them
    optimizer = torch.optim.Adam(integers.parameters(), lr=0.005)
    starts = {name: value.detach().clone() for name, value in integers.named_parameters()}
    losses = []
    for _ in range(60):
        loss = (integers(x) - wanted).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] * 0.8, losses
    moved = {name for name, value in integers.named_parameters() if not torch.equal(value, starts[name])}
    assert {name for name in starts if not name.endswith(".bias")} == moved  # of the plain one others are trained
    growth = integers.value_growth.detach()
    assert float(growth[0]) > -1
    assert float(growth[-1]) == 0  # what is added to the image keeps its steps
    integers.learning = False
    optimizer.zero_grad()
    integers(x).abs().mean().backward()
    assert integers.value_growth.grad is not None and not integers.value_growth.grad.any()
    assert integers.plain[0].weight.grad is not None and integers.plain[0].weight.grad.any()
    integers.eval().settle()
    torch.testing.assert_close(integers.plain[0].bias.detach(), integers.biases[0].detach(), atol=1e-3, rtol=0)
    export_onnx(net, tmp_path / "float.onnx")
    write_integers(integers, tmp_path / "int8.onnx", tmp_path / "float.onnx")
    with torch.no_grad():
        levels = ((OrtNetwork(tmp_path / "int8.onnx")(x) - integers(x)) * 255).abs().round()
    assert float(levels.max()) <= 1 and float((levels > 0).float().mean()) <= 0.01


def test_a_bias_makes_up_for_a_weight_that_is_rounded_otherwise() -> None:
    """Centred: the means of what the layer gives stay; and nothing changes at the start."""
    net, x = network(0, [6, 6]), pixels(24, 24)
    shifts = []
    for centred in (False, True):
        integers = round_to_nearest(net, x)
        with torch.no_grad():
            before = integers(x)
            if centred:
                integers.centre([x])
                assert torch.equal(integers(x), before)
            counts, bias, steps, products = integers.layer_integers(1)
            means = [float((counts[0].sum((1, 2)) * steps[0]) @ net_means(integers, x) + bias[0] * products[0])]
            integers.plain[1].weight[0, 2, 1, 1] += steps[0]
            counts, bias, steps, products = integers.layer_integers(1)
            means.append(float((counts[0].sum((1, 2)) * steps[0]) @ net_means(integers, x) + bias[0] * products[0]))
            integers.plain[1].weight[0, 2, 1, 1] -= steps[0]
        shifts.append(abs(means[1] - means[0]))
    assert shifts[1] < shifts[0] / 50, shifts


def net_means(integers: IntegerNet, x: Tensor) -> Tensor:
    """Means of what the second layer reads."""
    first = integers.plain[0]
    return torch.nn.functional.conv2d(x, first.weight, first.bias, padding=1).relu().mean((0, 2, 3))


def test_the_image_passes_as_it_is() -> None:
    """With a network that gives nothing, every pixel comes back, repeated."""
    net = network(0, [4])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    x = pixels(5, 7)
    integers = round_to_nearest(net, x)
    with torch.no_grad():
        torch.testing.assert_close(integers(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_what_it_does_not_know_is_refused() -> None:
    for skip in ("bicubic", "bilinear"):
        with pytest.raises(InvalidInput, match="no interpolated image"):
            round_to_nearest(network(0, [4], skip=skip), pixels(5, 7))
    net = network(0, [4])
    net.info = replace(net.info, input_range=(1.0, 2.0))
    with pytest.raises(InvalidInput, match="images with a 0"):
        round_to_nearest(net, pixels(5, 7))
