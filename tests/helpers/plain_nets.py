"""Plain networks drawn at random, of every shape that there is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st

from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet


def build(
    widths: Sequence[int],
    kernels: Sequence[int],
    *,
    scale: int = 2,
    channels: int = 3,
    input_range: tuple[float, float] = (0.0, 1.0),
    image_skip: str = "",
    early: int = 1,
    activations: Sequence[str] = (),
    seed: int = 0,
) -> PlainNet:
    """A plain network of random weights.

    widths    inner ones;   kernels   one more of these
    early     part of the scale that the first layer enlarges by
    activations  of the inner layers, "relu", "prelu" or "none"; none given: all ReLU
    """
    generator = torch.Generator().manual_seed(seed)
    shuffles = [1] * len(kernels)
    shuffles[0] *= early
    shuffles[-1] *= scale // early
    layers = []
    c_in = channels
    for i, (width, k, shuffle) in enumerate(zip([*widths, channels], kernels, shuffles, strict=True)):
        weight = torch.randn(width * shuffle**2, c_in, k, k, generator=generator) / (c_in * k * k) ** 0.5
        bias = torch.randn(width * shuffle**2, generator=generator) * 0.1 * input_range[1]
        bend = (*(activations or ["relu"] * len(widths)), "none")[i]
        slope = draw_slopes(len(bias), seed + i) if bend == "prelu" else None
        layers.append(PlainLayer(weight, bias, relu=bend == "relu", shuffle=shuffle, slope=slope))
        c_in = width
    info = PlainInfo(
        scale,
        channels,
        input_range,
        "pass" if activations else "auto",
        "none",
        "",
        1,
        image_skip,
        "memsr_compiler test",
    )
    return PlainNet(layers, info).eval()


def draw_slopes(channels: int, seed: int) -> torch.Tensor:
    """Slopes (C, 1, 1) of a PReLU: 0, 1, and others of both signs."""
    few = torch.tensor([0.0, 1.0, 0.25, -0.5, 1.5])
    return few[torch.randint(len(few), (channels, 1, 1), generator=torch.Generator().manual_seed(seed))]


@st.composite
def plain_nets(draw: st.DrawFn, *, prelu: bool = False) -> PlainNet:
    """Up to four layers, kernels 1, 3, 5, scales 1 to 4, grey or colour, with an image that is repeated or without.

    prelu   in either form
    """
    widths = draw(st.lists(st.integers(1, 9), max_size=3))
    scale = draw(st.integers(1, 4))
    image_skip = draw(st.sampled_from(["", "nearest"]))
    early = 2 if scale == 4 and not image_skip and widths and draw(st.booleans()) else 1
    return build(
        widths,
        [draw(st.sampled_from([1, 3, 5])) for _ in range(len(widths) + 1)],
        scale=scale,
        channels=draw(st.sampled_from([1, 3])),
        input_range=draw(st.sampled_from([(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])),
        image_skip=image_skip,
        early=early,
        activations=[draw(st.sampled_from(["relu", "prelu", "none"])) for _ in widths if prelu],
        seed=draw(st.integers(0, 1000)),
    )


def draw_image(net: PlainNet, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """An image (1, C, height, width) of noise in the network's range."""
    low, high = net.info.input_range
    noise = torch.rand(1, net.info.channels, height, width, generator=torch.Generator().manual_seed(seed))
    return noise * (high - low) + low
