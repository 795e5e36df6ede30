"""split_stages: one graph for each resolution."""

from __future__ import annotations

import pytest
import torch
from helpers.graphs import SIZES, add, conv, graph, integers, relu, source

from memsr_compiler import ir
from memsr_compiler.errors import StagesCannotBeKept
from memsr_compiler.ir.interpreter import run
from memsr_compiler.passes.split_stages import split_stages


def up(name: str, operand: str, factor: int = 2) -> ir.PixelShuffle:
    return ir.PixelShuffle(name=name, inputs=(operand,), factor=factor)


def test_two_stages() -> None:
    before = graph(source(), conv("a", "x", 8), up("u", "a"), relu("r", "u"), conv("b", "r"))
    first, second = split_stages(before)
    assert (first.starts, first.ends, second.starts, second.ends) == (("x",), ("u",), ("u",), ("b",))
    assert (
        second.graph.text()
        == """\
u: 2x1 = Input(channels=2, low=-inf, high=inf)
r: 2x1 = Relu(u)
b: 2x1 = Conv2d(r, weight=2x2x3x3, bias=2, groups=1, dilation=1)
return b
"""
    )
    for height, width in SIZES:
        x = integers(1, 2, height, width)
        assert torch.equal(run(second.graph, run(first.graph, x)), run(before, x))


def test_several_tensors_rise_side_by_side() -> None:
    before = graph(
        source(),
        conv("a", "x", 8),
        conv("b", "x", 4),
        up("u", "a"),
        up("v", "b"),
        conv("c", "u", 1, 2),
        add("y", "c", "v"),
    )
    first, second = split_stages(before)
    assert first.ends == second.starts == ("u", "v")
    for height, width in SIZES:
        x = integers(1, 2, height, width)
        assert torch.equal(run(second.graph, run(first.graph, x)), run(before, x))


def test_without_a_shuffle_there_is_one() -> None:
    (only,) = split_stages(graph(source(), conv("a", "x")))
    assert only.starts == ("x",) and only.ends == ("a",)


def test_refusals() -> None:
    down = ir.PixelUnshuffle(name="down", inputs=("u",), factor=2)
    with pytest.raises(StagesCannotBeKept, match=r"down: goes back to a lower resolution.*use --tail fold"):
        split_stages(graph(source(), conv("a", "x", 8), up("u", "a"), down))
    skipping = graph(
        source(), conv("a", "x", 8), up("u", "a"), conv("b", "u", 8), up("v", "b"), conv("c", "x", 32), up("w", "c", 4),
        add("y", "v", "w"),
    )  # fmt: skip
    with pytest.raises(StagesCannotBeKept, match=r"w: rises from resolution 1 to 4 while others stop at 2"):
        split_stages(skipping)
