"""Channels without use begin again."""

from __future__ import annotations

import copy

import torch
from helpers.plain_nets import build, draw_image, plain_nets
from hypothesis import given
from hypothesis import strategies as st

from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.crops import take_pixels
from memsr_compiler.training.revive import revive


def fires(net: PlainNet, x: torch.Tensor) -> list[torch.Tensor]:
    """The part of the pixels on which each channel of each layer but the last is positive."""
    parts = []
    for layer in list(net)[:-1]:
        x = layer(x)
        parts.append((x > 0).double().mean((0, 2, 3)))
    return parts


def kill(net: PlainNet, layer: int, channels: list[int]) -> None:
    with torch.no_grad():
        net[layer].weight[channels] = -net[layer].weight[channels].abs()
        net[layer].bias[channels] = -1.0


@given(plain_nets(), st.integers(1, 9), st.integers(1, 9))
def test_the_output_on_the_images_stays(net: PlainNet, height: int, width: int) -> None:
    images = [draw_image(net, height, width, seed) for seed in range(2)]
    before = [net(x).detach() for x in images]
    revive(net, images, 0)
    for x, y in zip(images, before, strict=True):
        torch.testing.assert_close(net(x), y, rtol=1e-4, atol=1e-5 * float(y.abs().max()))


def test_dead_channels_fire_on_half_of_the_pixels_and_the_others_stay() -> None:
    net = build([8, 8], [3, 3, 3])
    kill(net, 0, [2])
    kill(net, 1, [1, 5])
    x = draw_image(net, 32, 32)
    assert [int((part == 0).sum()) for part in fires(net, x)] == [1, 2]
    old = copy.deepcopy(net)
    assert revive(net, [x], 0) == 3
    parts = fires(net, x)
    assert 0.45 < float(parts[0][2]) < 0.55 and bool((abs(parts[1][[1, 5]] - 0.5) < 0.05).all())
    assert torch.equal(net[0].weight[[0, 1, 3, 4, 5, 6, 7]], old[0].weight[[0, 1, 3, 4, 5, 6, 7]])
    assert int(net[2].weight[:, [1, 5]].count_nonzero()) == 0
    again = copy.deepcopy(old)
    revive(again, [x], 0)
    assert torch.equal(again[1].weight, net[1].weight)
    revive(old, [x], 1)
    assert not torch.equal(old[1].weight, net[1].weight)


def test_linear_channels_of_the_first_layer_that_are_sums_of_others_begin_again() -> None:
    """Of 12 channels of a 1x1 kernel on RGB, all positive everywhere, 4 are left."""
    net = build([12, 6], [1, 3, 3])
    with torch.no_grad():
        net[0].bias.add_(9.0)
    x = draw_image(net, 16, 16)
    assert all(part == 1 for part in fires(net, x)[0])
    y = net(x).detach()
    assert revive(net, [x], 0) >= 8
    assert int((fires(net, x)[0] == 1).sum()) == 4
    torch.testing.assert_close(net(x), y, rtol=1e-4, atol=1e-4)


def test_a_network_whose_channels_are_all_of_use_stays() -> None:
    net = build([8, 8], [3, 3, 3])
    old = {name: value.clone() for name, value in net.state_dict().items()}
    assert revive(net, [draw_image(net, 32, 32)], 0) == 0
    assert all(torch.equal(value, old[name]) for name, value in net.state_dict().items())


def test_no_more_pixels_are_looked_at_than_it_takes() -> None:
    images = [torch.zeros(1, 3, 512, 1024)] * 5
    assert len(take_pixels(images)) == 2 and len(take_pixels([torch.zeros(1, 3, 2048, 1024)])) == 1
