"""Random plain networks, images for them, and what they make of these in torch, whole."""

from __future__ import annotations

from dataclasses import replace

import torch
from helpers.plain_nets import draw_slopes
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet

INFO = PlainInfo(1, 3, (0.0, 1.0), "", "", "", 0, "", "")


def network(seed: int, kernels: list[int], shuffles: list[int]) -> PlainNet:
    """A random plain network in float64; 3 channels in and out."""
    generator = torch.Generator().manual_seed(seed)
    layers, channels, scale = [], 3, 1
    for i, (kernel, shuffle) in enumerate(zip(kernels, shuffles, strict=True)):
        last = i == len(kernels) - 1
        made = 3 if last else int(torch.randint(1, 5, (), generator=generator))
        weight = torch.randn(made * shuffle**2, channels, kernel, kernel, generator=generator, dtype=torch.float64)
        bias = torch.randn(made * shuffle**2, generator=generator, dtype=torch.float64)
        bend = "none" if last else ("relu", "prelu", "none")[(seed + i) % 3]
        slope = draw_slopes(len(bias), seed + i).double() if bend == "prelu" else None
        layers.append(PlainLayer(weight / kernel, bias, relu=bend == "relu", shuffle=shuffle, slope=slope))
        channels, scale = made, scale * shuffle
    return PlainNet(layers, PlainInfo(**{**INFO.__dict__, "scale": scale}))


@st.composite
def networks(draw: st.DrawFn) -> PlainNet:
    depth = draw(st.integers(1, 5))
    kernels = draw(st.lists(st.sampled_from([1, 3, 5]), min_size=depth, max_size=depth))
    shuffles = draw(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=depth, max_size=depth))
    net = network(draw(st.integers(0, 1000)), kernels, shuffles)
    if shuffles[-1] == net.scale and draw(st.booleans()):
        net.info = replace(net.info, image_skip="nearest")
    return net


def whole(net: PlainNet, image: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = net(image)
    return result


def image(height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(1, channels, height, width, generator=generator, dtype=torch.float64)
