"""upsample_to_shuffle: a strided transposed convolution -> interleaved convolutions of its operand."""

from __future__ import annotations

import pytest
from helpers.graphs import apply, graph, integers, source

from memsr_compiler import ir
from memsr_compiler.passes import upsample_to_shuffle


def transposed(k: int, stride: int, padding: int, groups: int = 1) -> ir.Graph:
    weight, bias = integers(2, 2, k, k, seed=k), integers(2 * groups, seed=stride)
    return graph(source(), ir.ConvTranspose2d(
        name="up", inputs=("x",), weight=weight, bias=bias, stride=stride, padding=padding, groups=groups
    ))  # fmt: skip


def test_transposed_convolution() -> None:
    assert (
        apply(upsample_to_shuffle, transposed(4, 2, 1)).text()
        == """\
x: 2x1 = Input(channels=2, low=-1.0, high=1.0)
up~phases: 8x1 = Conv2d(x, weight=8x2x3x3, bias=8, groups=1, dilation=1)
up: 2x2 = PixelShuffle(up~phases, factor=2)
return up
"""
    )


@pytest.mark.parametrize(
    ("k", "stride", "padding"),
    [(1, 2, 0), (2, 2, 0), (3, 2, 1), (9, 3, 3), (9, 4, 3), (17, 2, 8), (3, 1, 1), (1, 3, 0)],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_kernels_smaller_and_larger_than_the_stride(k: int, stride: int, padding: int, groups: int) -> None:
    apply(upsample_to_shuffle, transposed(k, stride, padding, groups))
