"""Balanced channels: the same network bit for bit, rows and columns of one size."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from helpers.networks import random_network
from helpers.plain_files import tiny
from hypothesis import given
from hypothesis import strategies as st

from memsr_compiler import check_certificate, compile_to_plain
from memsr_compiler.errors import ExportError
from memsr_compiler.plain.balance import balance_channels
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet

INFO = PlainInfo(2, 3, (0.0, 1.0), "none", "", "", 3, "nearest", "memsr_compiler test")


def uneven(seed: int, widths: list[int], empty: float = 0.1) -> PlainNet:
    """A network in which channels are of very different sizes, and a part of them is empty."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    channels = [3, *widths, 12]
    for i, (c_in, c_out) in enumerate(pairwise(channels)):
        sizes = torch.exp(4 * torch.randn(c_out, generator=generator))
        sizes[torch.rand(c_out, generator=generator) < empty] = 0
        weight = torch.randn(c_out, c_in, 3, 3, generator=generator) * sizes[:, None, None, None]
        last = i == len(widths)
        bias = torch.randn(c_out, generator=generator)
        layers.append(PlainLayer(weight, bias, relu=not last, shuffle=2 if last else 1))
    return PlainNet(layers, INFO).eval()


@given(st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_the_network_stays_bit_for_bit(seed: int, widths: list[int]) -> None:
    net = uneven(seed, widths)
    balanced = balance_channels(net)
    x = torch.rand(1, 3, 7, 5)
    with torch.no_grad():
        assert torch.equal(net(x), balanced(x))
    assert balanced.info == net.info


@given(st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_rows_and_columns_have_one_norm(seed: int, widths: list[int]) -> None:
    balanced = balance_channels(uneven(seed, widths))
    weights = [layer.weight.detach().double() for layer in balanced]
    for above, below in pairwise(weights):
        row, column = above.flatten(1).norm(dim=1), below.transpose(0, 1).flatten(1).norm(dim=1)
        felt = (row > 0) & (column > 0)
        ratio = (row / column)[felt].log2().abs()
        assert not felt.any() or float(ratio.max()) <= 2  # a factor is off by sqrt(2), a neighbour's by as much


@pytest.mark.parametrize("layers", [13, 35])
def test_a_long_chain_settles(layers: int) -> None:
    """Deep networks whose last layers have all of the size, as a teacher's own units give them."""
    net = uneven(2, [8] * layers, empty=0)
    with torch.no_grad():
        for i, layer in enumerate(net):
            layer.weight *= 1.3 ** (i - layers // 2)
    weights = [layer.weight.detach().double() for layer in balance_channels(net)]
    for above, below in pairwise(weights):
        row, column = above.flatten(1).norm(dim=1), below.transpose(0, 1).flatten(1).norm(dim=1)
        felt = (row > 0) & (column > 0)
        assert float((row / column)[felt].log2().abs().max()) <= 2
    norms = torch.tensor([float(weight.norm()) for weight in weights[1:-1]])
    assert float((norms.max() / norms.min()).log2()) <= 4  # neighbours of one size are not enough


def test_twice_changes_nothing_more() -> None:
    once = balance_channels(uneven(0, [6, 5]))
    assert balance_channels(once).sha256() == once.sha256()


def test_a_certificate_says_so() -> None:
    teacher = random_network(3).eval()
    net = compile_to_plain(teacher, input_range=(0.0, 255.0))
    balanced = balance_channels(net)
    assert balanced.certificate is not None
    check_certificate(teacher, balanced, input_range=(0.0, 255.0))


def test_a_network_of_two_resolutions_is_balanced_within_each() -> None:
    net = tiny()
    first = PlainLayer(torch.randn(8, 1, 3, 3) * 100, torch.zeros(8), relu=True, shuffle=2)
    second = PlainLayer(torch.randn(4, 2, 3, 3), torch.zeros(4), relu=False, shuffle=2)
    two = PlainNet([first, second], replace(net.info, scale=4, image_skip=""))
    assert torch.equal(balance_channels(two)[0].weight, first.weight)


def test_what_would_leave_the_dtype_is_refused() -> None:
    layers = [
        PlainLayer(torch.full((1, 1, 1, 1), 1e-30), torch.full((1,), 1e30), relu=True),
        PlainLayer(torch.full((1, 1, 1, 1), 1e30), torch.zeros(1), relu=False),
    ]
    with pytest.raises(ExportError, match="leave the range"):
        balance_channels(PlainNet(layers, replace(INFO, scale=1, channels=1, image_skip="")))
