"""dense_conv: groups and dilation written out as zeros."""

from __future__ import annotations

from helpers.graphs import apply, conv, graph, source

from memsr_compiler.passes import dense_conv


def test_groups_and_dilation() -> None:
    before = graph(source(4), conv("a", "x", 4, 4, groups=2), conv("b", "a", 2, 4, dilation=2), conv("c", "b"))
    after = apply(dense_conv, before)
    assert (
        after.text()
        == """\
x: 4x1 = Input(channels=4, low=-1.0, high=1.0)
a: 4x1 = Conv2d(x, weight=4x4x3x3, bias=4, groups=1, dilation=1)
b: 2x1 = Conv2d(a, weight=2x4x5x5, bias=2, groups=1, dilation=1)
c: 2x1 = Conv2d(b, weight=2x2x3x3, bias=2, groups=1, dilation=1)
return c
"""
    )
    assert after["c"] is before["c"]


def test_depthwise_1x1_with_dilation() -> None:
    after = apply(dense_conv, graph(source(3), conv("a", "x", 6, 3, 1, groups=3, dilation=4)))
    assert "weight=6x3x1x1" in after.text()
