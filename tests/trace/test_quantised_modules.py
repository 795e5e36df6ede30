"""Modules that torch prepared for 8 bits: what they are is said, and a way out that works."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memsr_compiler import compile_to_plain
from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.trace.trace import trace

quantization: Any = torch.ao.quantization
pytestmark = pytest.mark.filterwarnings("ignore")  # torch says that all of it will be removed, and calls it so itself


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 12, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.dequant(self.body(self.quant(x))), 2)


def trained_for_8_bits() -> nn.Module:
    network = Network().train()
    network.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    prepared: nn.Module = quantization.prepare_qat(network)
    prepared(torch.rand(1, 3, 8, 8))
    return prepared.eval()


def without_fake_quantisation() -> nn.Module:
    return trained_for_8_bits().apply(quantization.disable_fake_quant)


def observed() -> nn.Module:
    network = Network().eval()
    network.qconfig = quantization.default_qconfig
    prepared: nn.Module = quantization.prepare(network)
    prepared(torch.rand(1, 3, 8, 8))
    return prepared


def in_integers() -> nn.Module:
    converted: nn.Module = quantization.convert(observed())
    return converted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (trained_for_8_bits, r"quant\.activation_post_process: Fused\w+ rounds to 8 bits: .* strict=False"),
        (without_fake_quantisation, r"Fused\w+ rounds to 8 bits"),
        (
            observed,
            r"quant\.activation_post_process: \w*Observer watches values, .*; give the network as it was before",
        ),
        (in_integers, "quant: Quantize computes in 8-bit integers; give the network as it was before"),
    ],
)
def test_a_network_that_is_prepared_for_8_bits(make: Callable[[], nn.Module], message: str) -> None:
    """It was said that the network takes no image, or to write an operation of torch's own otherwise."""
    with pytest.raises(InvalidInput, match=message):
        compile_to_plain(make())


def test_the_way_out_works() -> None:
    network = Network().eval()
    loaded = network.load_state_dict(trained_for_8_bits().state_dict(), strict=False)
    assert not loaded.missing_keys
    compile_to_plain(network)


def test_an_operation_that_rounds_is_said_to() -> None:
    class Rounds(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fake_quantize_per_tensor_affine(super().forward(x), 1 / 255, 0, 0, 255)

    with pytest.raises(UnsupportedModel, match=re.escape("it rounds values to 8 bits, and a plain network is piece")):
        trace(Rounds(3, 3, 3, padding=1))


def test_what_goes_through_numpy_leaves_torch() -> None:
    """NumPy takes the numbers, and what it does with them torch does not know."""

    class Clips(nn.Conv2d):
        def forward(self, x: Tensor) -> Any:
            return np.clip(super().forward(x), 0, 1)

    with pytest.raises(UnsupportedModel, match=r"np\.clip.*takes numbers out of the image, .* for NumPy, which"):
        trace(Clips(3, 3, 3, padding=1))


def test_sums_that_could_be_quantised_are_read() -> None:
    """`FloatFunctional` computes as `+` does, in floating point; quantised, it is another class."""

    class Summed(Network):
        def __init__(self) -> None:
            super().__init__()
            self.sum: Any = torch.ao.nn.quantized.FloatFunctional()
            self.joined: Any = torch.ao.nn.quantized.FXFloatFunctional()

        def forward(self, x: Tensor) -> Tensor:
            both = self.joined.cat([x, self.sum.add_relu(x, x)], 1)
            return self.sum.mul_scalar(super().forward(both[:, 1:4]), 0.5)  # type: ignore[no-any-return]

    network = Summed().eval()
    image = torch.rand(1, 3, 5, 7)
    with torch.no_grad():
        assert torch.allclose(compile_to_plain(network)(image), network(image), atol=1e-5)
