"""Linear channels are lowered towards zero."""

from __future__ import annotations

import copy

import torch
from helpers.plain_nets import build, draw_image, plain_nets
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.lower import (
    DERIVED_MARGIN,
    FRAMES,
    MARGIN,
    Lowered,
    choose_drops,
    lower_channels,
    lower_kernels,
)

FRAME = FRAMES[0]


def extremes(net: PlainNet, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Least and most of each channel of a layer, before its ReLU."""
    for before in list(net)[:layer]:
        x = before(x)
    x = net[layer].before_activation(x)
    return x.amin((0, 2, 3)), x.amax((0, 2, 3))


def raise_channels(net: PlainNet, layer: int, channels: list[int], by: float) -> None:
    """Raise channels far above zero; the next layer's bias makes up for it, but for the frame."""
    with torch.no_grad():
        net[layer].bias[channels] += by
        net[layer + 1].bias.sub_(by * net[layer + 1].weight[:, channels].sum((1, 2, 3)))


def add_constant(net: PlainNet) -> PlainNet:
    """Make channel 0 of layer 0 all but constant, and let it make up on the frame for channels 1 and 2, raised by 9."""
    with torch.no_grad():
        net[0].weight[0] *= 1e-3
        net[0].bias[0] = 9.0
        net[0].bias[[1, 2]] += 9.0
        net[1].weight[:, 0] = -net[1].weight[:, [1, 2]].sum(1)
    return net


@given(plain_nets(), st.integers(1, 9), st.integers(1, 9))
def test_the_output_stays_but_for_the_frame(net: PlainNet, height: int, width: int) -> None:
    for layer in range(len(net.layers) - 1):
        if net[layer].shuffle == 1:
            raise_channels(net, layer, [0], 9.0)
    images = [draw_image(net, height + 20, width + 20, seed) for seed in range(2)]
    before = [net(x).detach() for x in images]
    lower_channels(net, images)
    frame = 10 * net.scale
    for x, y in zip(images, before, strict=True):
        inside = (..., slice(frame, -frame), slice(frame, -frame))
        torch.testing.assert_close(net(x)[inside], y[inside], rtol=1e-4, atol=1e-4 * float(y.abs().max()))


def test_with_a_channel_that_makes_up_for_them_all_are_lowered_and_the_frame_stays() -> None:
    net = add_constant(build([6], [3, 3]))
    x = draw_image(net, 24, 24)
    low = copy.deepcopy(net)
    (lowered,) = lower_channels(low, [x])
    assert lowered.layer == 1 and lowered.channels >= 3 and 5.0 < lowered.most < 9.0
    least, most = extremes(low, 0, x)
    assert bool((least[:3] > 0).all()) and bool((most[:3] < extremes(net, 0, x)[1][:3] - 5).all())
    torch.testing.assert_close(low(x), net(x), rtol=0, atol=0.02)
    alone = copy.deepcopy(net)
    raise_channels(alone, 0, [1], -lowered.most)
    assert float((alone(x) - net(x)).detach().abs().max()) > 0.5


def raise_one(by: float) -> PlainNet:
    """A network on 0..255 of which one channel is raised, and nothing makes up for it on the frame."""
    net = build([6], [3, 3], input_range=(0.0, 255.0))
    raise_channels(net, 0, [1], by)
    return net


def test_where_the_frame_must_change_all_are_lowered_if_training_mends_it() -> None:
    x = draw_image(raise_one(0.0), 96, 96)
    net = raise_one(1000.0)
    with torch.no_grad():
        net[1].weight.mul_(0.02)  # so that the frame is moved by little
        net[1].bias.mul_(0.02)
    before = net(x).detach()
    assert lower_channels(net, [x])
    least, most = extremes(net, 0, x)
    torch.testing.assert_close(least[1], MARGIN * (most - least)[1], rtol=1e-3, atol=0)
    moved = (net(x) - before).detach()
    assert 0.01 < float(moved.square().mean().sqrt()) < 2 and float(moved[..., 2:-2, 2:-2].abs().max()) < 1e-3


def test_a_network_whose_frame_would_change_by_more_stays_bit_for_bit() -> None:
    net = raise_one(1000.0)
    old = copy.deepcopy(net.state_dict())
    assert lower_channels(net, [draw_image(net, 24, 24)]) == []
    assert all(torch.equal(value, old[name]) for name, value in net.state_dict().items())


def test_without_a_frame_a_channel_is_lowered_to_the_margin_and_the_others_stay() -> None:
    """A next layer of 1x1 reads nothing beyond the image."""
    net = build([6], [3, 1])
    raise_channels(net, 0, [1], 9.0)
    x = draw_image(net, 24, 24)
    old = net[0].bias.detach().clone()
    before = net(x).detach()
    (lowered,) = lower_channels(net, [x])
    changed = net[0].bias != old
    assert lowered == Lowered(1, int(changed.sum()), float((old - net[0].bias.detach())[1])) and changed[1]
    least, most = extremes(net, 0, x)
    torch.testing.assert_close(least[1], MARGIN * (most - least)[1], rtol=1e-4, atol=0)
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-4)


def test_constant_channels_stay() -> None:
    net = build([6], [3, 1])
    with torch.no_grad():
        net[0].weight[2] = 0
        net[0].bias[2] = 9.0
    x = draw_image(net, 24, 24)
    lower_channels(net, [x])
    assert float(net[0].bias.detach()[2]) == 9.0


def test_kernels_are_lowered_and_more_is_left_below_them() -> None:
    net = add_constant(build([6], [3, 3]))
    x = draw_image(net, 24, 24)
    kernels = [(layer.weight.detach().double(), layer.bias.detach().double()) for layer in net]
    lowered = lower_kernels(kernels, [x])
    assert all(kind.dtype == torch.float64 for kernel in lowered for kind in kernel)
    assert all(torch.equal(new, old) for (new, _), (old, _) in zip(lowered, kernels, strict=True))
    low = copy.deepcopy(net)
    with torch.no_grad():
        for layer, (_, bias) in zip(low, lowered, strict=True):
            layer.bias.copy_(bias)
    least, most = extremes(low, 0, x)
    assert bool((most[:3] < extremes(net, 0, x)[1][:3] - 5).all())
    assert bool((least[:3] > (DERIVED_MARGIN - 0.01) * (most - least)[:3]).all())
    torch.testing.assert_close(low(x), net(x), rtol=0, atol=0.02)


def cost(share: Tensor, room: Tensor, kernel: Tensor) -> float:
    """The sum that drops are to make small, as its documentation says it, for a kernel of 3x3."""
    drops = share * room
    sides = [kernel[:, :, 0].sum(2), kernel[:, :, 2].sum(2), kernel[..., 0].sum(2), kernel[..., 2].sum(2)]
    frame = sum(float((side @ drops).square().sum()) for side in sides)
    return float((kernel.square().sum((0, 2, 3)) * (room - drops).square()).sum()) + FRAME * frame


def test_no_other_drops_are_better() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 5, 3, 3, generator=generator, dtype=torch.float64)
    kernel[:, 0] = 0.01 * kernel[:, 0] - kernel[:, 1:4].sum(1) * 4 / 9
    room = torch.tensor([9.0, 4.0, 4.0, 4.0, 0.0], dtype=torch.float64)
    drops = choose_drops(room, kernel, FRAME)
    assert bool((drops >= 0).all() and (drops <= room).all()) and float(drops[4]) == 0
    share = torch.where(room > 0, drops / room.clamp_min(1), 0)
    best = cost(share, room, kernel)
    for _ in range(200):
        near = (share + 0.02 * torch.randn(5, generator=generator, dtype=torch.float64)).clamp(0, 1)
        assert cost(near, room, kernel) > best - 1e-6 * abs(best)
    assert best < 0.9 * cost(torch.zeros_like(share), room, kernel)
