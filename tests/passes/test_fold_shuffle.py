"""fold_shuffle: everything at the input's resolution, one pixel shuffle at the end."""

from __future__ import annotations

import pytest
from helpers.graphs import add, apply, conv, graph, prelu, relu, source

from memsr_compiler import ir
from memsr_compiler.errors import PassError
from memsr_compiler.passes import fold_shuffle


def up(name: str, operand: str, factor: int = 2) -> ir.PixelShuffle:
    return ir.PixelShuffle(name=name, inputs=(operand,), factor=factor)


def test_a_tail_at_high_resolution() -> None:
    select = ir.Select(name="s", inputs=("b",), index=(2, 0))
    before = graph(source(), conv("a", "x", 8), up("up", "a"), relu("r", "up"), conv("b", "r", 3, 2, 5), select)
    assert (
        apply(fold_shuffle, before, idempotent=False).text()
        == """\
x: 2x1 = Input(channels=2, low=-1.0, high=1.0)
a: 8x1 = Conv2d(x, weight=8x2x3x3, bias=8, groups=1, dilation=1)
up: 8x1 = Select(a, index=0:8)
r: 8x1 = Relu(up)
b: 12x1 = Conv2d(r, weight=12x8x3x3, bias=12, groups=1, dilation=1)
s: 8x1 = Select(b, index=8:12,0:4)
s~pixels: 2x2 = PixelShuffle(s, factor=2)
return s~pixels
"""
    )


def test_two_stages_and_back() -> None:
    down = ir.PixelUnshuffle(name="down", inputs=("r",), factor=2)
    before = graph(
        source(), conv("a", "x", 16), up("u", "a"), conv("b", "u", 8, 4), up("v", "b", 2), relu("r", "v"), down,
        conv("c", "down", 4, 8), add("y", "c", "u"),
    )  # fmt: skip
    after = apply(fold_shuffle, before, idempotent=False)
    assert after.type("v") == ir.FeatureMap(2 * 16) and after.type("down") == ir.FeatureMap(8 * 4)
    assert [type(op) for op in after].count(ir.PixelShuffle) == 1


def test_resolutions_by_different_factors() -> None:
    """By 2, by 3, and back by 3: a convolution, a selection and a shuffle at each resolution."""
    down = ir.PixelUnshuffle(name="down", inputs=("c",), factor=3)
    rise = (
        source(), conv("a", "x", 8), up("u", "a"), conv("b", "u", 18), up("v", "b", 3), conv("c", "v", 2, 2, 5),
    )  # fmt: skip
    fall = (*rise, down, ir.Select(name="s", inputs=("down",), index=(17, 0, 5)), conv("d", "s", 2, 3))
    for before, scale in ((graph(*rise), 6), (graph(*fall), 2)):
        after = apply(fold_shuffle, before, idempotent=False)
        assert after.scale == scale and after.type("v") == ir.FeatureMap(2 * 36)
        assert all(after.type(op.name).scale == 1 for op in after if op.name != after.output)


def test_without_a_shuffle_nothing_changes() -> None:
    before = graph(source(), conv("a", "x"), relu("r", "a"))
    assert apply(fold_shuffle, before).text() == before.text()


def test_what_it_does_not_read() -> None:
    clamp = ir.Clamp(name="c", inputs=("x",), low=0.0, high=1.0)
    with pytest.raises(PassError, match="c: fold-shuffle does not read Clamp; run the passes before it"):
        fold_shuffle(graph(source(), clamp))


def test_slopes_of_pixels_that_are_folded() -> None:
    before = graph(
        source(), conv("a", "x", 8), ir.PixelShuffle(name="s", inputs=("a",), factor=2), prelu("p", "s", 0.5, -1.0),
        conv("y", "p"),
    )  # fmt: skip
    after = apply(fold_shuffle, before, idempotent=False)
    bend = after["p"]
    assert isinstance(bend, ir.PRelu) and bend.slope.tolist() == [0.5] * 4 + [-1.0] * 4
