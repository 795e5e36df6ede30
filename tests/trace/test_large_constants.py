"""Constants next to which float32 has no digits left: a network that adds and takes off one of them rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.onnx_files import model, pieces, saved, whole
from torch import Tensor, nn

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.onnx.reader import load_onnx
from memsr_compiler.trace.trace import trace

WHOLE = 12582912.0  # 1.5 * 2**23: next to it float32 has whole numbers only
ROUNDS = "addition of 12582912: next to so large a constant float32 has numbers 1 apart only"


class Shifted(nn.Module):
    """Features times a factor, and plus a constant that is taken off again: in a convolution's bias, or alone."""

    def __init__(self, constant: float, factor: float, in_bias: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 12, 3, padding=1)
        assert self.first.bias is not None
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(3).view(3, 3, 1, 1) * factor)
            self.first.bias.fill_(constant if in_bias else 0.0)
            self.last.weight.fill_(1 / 27)
        self.constant, self.factor, self.in_bias = constant, factor, in_bias
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = (y if self.in_bias else y + self.constant) - self.constant
        result: Tensor = self.shuffle(self.last(torch.relu(y / self.factor)))
        return result


@pytest.mark.parametrize("factor", [16.0, 1.0])
def test_an_onnx_file_that_rounds_so_is_refused(factor: float, tmp_path: Path) -> None:
    weights = {"f": np.float32(factor), "c": np.float32(WHOLE), "w": whole(4, 3, 3, 3)}
    steps = pieces(("Mul", "f"), ("Add", "c"), ("Sub", "c"), ("Div", "f"), ("Conv", "w"))
    steps[-1].attribute.append(onnx.helper.make_attribute("pads", [1, 1, 1, 1]))
    network = load_onnx(saved(model(steps, {k: np.asarray(v) for k, v in weights.items()}), tmp_path))
    with pytest.raises(UnsupportedModel, match=rf"^body\.body\.1\.Add: {ROUNDS}"):
        trace(network)


@pytest.mark.parametrize("in_bias", [False, True])
@pytest.mark.parametrize(("factor", "input_range"), [(255.0, (0.0, 1.0)), (1.0, (0.0, 255.0)), (16.0, (0.0, 1.0))])
def test_so_is_code(factor: float, input_range: tuple[float, float], in_bias: bool) -> None:
    with pytest.raises(UnsupportedModel, match=ROUNDS):
        trace(Shifted(WHOLE, factor, in_bias), input_range=input_range)


@pytest.mark.parametrize(
    ("large", "name"),
    [
        ([onnx.helper.make_node("Clip", ["x", "c"], ["t"])], "125829[0-9]{2}"),
        ([onnx.helper.make_node("Max", ["x", "c"], ["t"])], "125829[0-9]{2}"),
        ([onnx.helper.make_node("Relu", ["x"], ["r"]), onnx.helper.make_node("Mul", ["r", "c"], ["t"])], "125[0-9]{5}"),
    ],
)
def test_so_is_what_adds_large_values(large: list[onnx.NodeProto], name: str, tmp_path: Path) -> None:
    """The bound of a clamp, and features times a million, are no constants that an op adds to another value."""
    steps = pieces(("Add", "t"), ("Sub", "t"), ("Conv", "w"))
    network = load_onnx(
        saved(model([*large, *steps], {"c": np.asarray(WHOLE, np.float32), "w": whole(4, 3, 1, 1)}), tmp_path)
    )
    with pytest.raises(UnsupportedModel, match=rf"it gives values of {name}.*: next to so large a value float32 has"):
        trace(network)


class Levelled(nn.Module):
    """Takes images of 0 to 255 and gives those of 0 to 1, to which it adds a constant that it takes off again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.conv(x / 255), 2) + 49152.0 - 49152.0


def test_what_is_rounded_is_judged_by_the_result() -> None:
    """By the input's 255 levels it was next to nothing."""
    with pytest.raises(UnsupportedModel, match="addition of 49152"):
        trace(Levelled(), input_range=(0.0, 255.0))


def test_a_constant_beyond_float32_is_refused() -> None:
    with pytest.raises(
        UnsupportedModel, match=r"addition of 1e\+39: next to so large a constant .* has numbers inf ap"
    ):
        trace(Shifted(1e39, 1.0))


@pytest.mark.parametrize(
    ("constant", "factor", "input_range"),
    [(4000.0, 1.0, (0.0, 1.0)), (1e5, 255.0, (0.0, 1.0)), (1e6, 1.0, (0.0, 255.0)), (WHOLE, 2.0**16, (0.0, 1.0))],
)
def test_constants_that_leave_digits_enough_are_read(
    constant: float, factor: float, input_range: tuple[float, float]
) -> None:
    trace(Shifted(constant, factor), input_range=input_range)


def test_a_channel_whose_rounding_makes_no_difference_is_read() -> None:
    """Batch norm's of a channel that is dead, say."""
    network = Shifted(WHOLE, 1.0)
    with torch.no_grad():
        network.last.weight.zero_()
    trace(network)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_large_results_beside_an_image_are_read(mode: str) -> None:
    """Of a network that is not trained yet: with the image outside, all of its thousands were held against 0 to 1."""

    class Residual(Shifted):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.shuffle(self.last(x)) * 65536.0
            return result + nn.functional.interpolate(x, scale_factor=2.0, mode=mode)

    trace(Residual(0.0, 1.0))


def test_the_range_of_the_result_counts_too() -> None:
    """Of 0 to 65535 a half is added, next to which float32 has steps of 1/512: nothing there, though not of 0 to 1."""

    class Wide(Shifted):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.shuffle(self.last(x)) * 65535.0
            return result + 32767.5

    trace(Wide(0.0, 1.0))
