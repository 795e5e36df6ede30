"""Training on features less their mean: the same network, and what mixed precision takes from it."""

from __future__ import annotations

import pytest
import torch
from helpers.plain_nets import build, draw_image, plain_nets
from helpers.training import require_gradients
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler.plain.network import PlainNet
from memsr_compiler.training.losses import CentredStudent
from memsr_compiler.training.starts import input_means

FORMATS = (torch.contiguous_format, torch.channels_last)


class Squares(CentredStudent):
    """A centred student whose loss has slopes everywhere."""

    def forward(self, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        loss = (self._features(low)[1][:, None] - high).square().mean()
        return loss, loss, loss


def lift(net: PlainNet, offset: float) -> PlainNet:
    """The same function, but for borders, with all channels between layers higher by `offset`."""
    with torch.no_grad():
        for layer, reader in zip(list(net)[:-1], list(net)[1:], strict=True):
            layer.bias.add_(offset)
            reader.bias.sub_(offset * reader.weight.sum(dim=(1, 2, 3)))
    return net


@given(plain_nets(), st.integers(1, 6), st.integers(1, 6), st.sampled_from(FORMATS))
def test_features_and_output_are_the_networks(
    net: PlainNet, height: int, width: int, memory_format: torch.memory_format
) -> None:
    low = draw_image(net, height, width).double()
    means = input_means(net, [low])
    student = CentredStudent(net.double(), means)
    features, output = student._features(low.contiguous(memory_format=memory_format))
    torch.testing.assert_close(output, net(low))
    assert len(features) == len(list(net)) - 1
    value = low
    for layer, feature in zip(net, features, strict=False):
        value = layer(value)
        torch.testing.assert_close(feature, value)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_gradients_are_those_of_finite_differences(memory_format: torch.memory_format) -> None:
    net = build([5, 4], [3, 1, 3], image_skip="nearest", seed=2)
    low = draw_image(net, 3, 4).double()
    means = input_means(net, [low])
    student = Squares(net.double(), means)
    require_gradients(
        student, low.contiguous(memory_format=memory_format), torch.zeros(1, 1, 3, 6, 8).double(), share=0.0
    )


def test_mixed_precision_takes_little_from_channels_that_lie_far_above_zero() -> None:
    """The network itself loses ten times as much in bfloat16, but for borders; outputs come in the images' dtype."""
    net = lift(build([8, 8, 8], [3, 3, 3, 3], image_skip="nearest"), 64.0)
    low = draw_image(net, 16, 16)
    student = CentredStudent(net, input_means(net, [low]))
    with torch.no_grad():
        exact = net(low)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            centred, direct = student._features(low)[1], net(low).float()
    assert centred.dtype == torch.float32
    lost, lost_directly = ((y - exact)[..., 8:-8, 8:-8].square().mean().sqrt() for y in (centred, direct))
    assert lost < 0.1 * lost_directly
