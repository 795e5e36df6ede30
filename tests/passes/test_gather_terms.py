"""gather_terms: pointwise values as sums of matrix * leaf."""

from __future__ import annotations

import pytest
from helpers.graphs import add, apply, conv, graph, relu, source

from memsr_compiler import ir
from memsr_compiler.errors import PassError
from memsr_compiler.passes import gather_terms


def test_concat_conv_sum() -> None:
    cat = ir.Concat(name="cat", inputs=("x", "r"))
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), cat, conv("b", "cat", 2, 4, 1), add("y", "b", "x"), conv("c", "y")
    )
    after = apply(gather_terms, before, idempotent=False)
    assert (
        after.text()
        == """\
x: 2x1 = Input(channels=2, low=-1.0, high=1.0)
a: 2x1 = Conv2d(x, weight=2x2x3x3, bias=2, groups=1, dilation=1)
r: 2x1 = Relu(a)
y~<x>: 2x1 = Conv2d(x, weight=2x2x1x1, bias=2, groups=1, dilation=1)
y~<r>: 2x1 = Conv2d(r, weight=2x2x1x1, bias=2, groups=1, dilation=1)
y~~sum: 2x1 = Sum(y~<x>, y~<r>)
y: 2x1 = Conv2d(y~~sum, weight=2x2x1x1, bias=2, groups=1, dilation=1)
c: 2x1 = Conv2d(y, weight=2x2x3x3, bias=2, groups=1, dilation=1)
return c
"""
    )
    assert after["y~<x>"].part == ir.Part("y", ("x",), ("r",))
    assert after["y~~sum"].part == ir.Part("y", ("x", "r"), ())


def test_a_narrow_1x1_joins_the_convolution_below() -> None:
    before = graph(source(), conv("a", "x", 6), conv("b", "a", 3, 6, 1), relu("r", "b"))
    assert [op.name for op in apply(gather_terms, before)] == ["x", "b", "r"]


def test_what_cancels_leaves_no_term() -> None:
    minus = conv("m", "x", 2, 2, 1)
    minus.weight.zero_()
    minus.weight[[0, 1], [0, 1]] = -1
    minus.bias.zero_()
    before = graph(source(), minus, add("y", "x", "m"), relu("r", "y"), conv("c", "r"))
    assert [op.name for op in apply(gather_terms, before)] == ["x", "y", "r", "c"]


def test_several_tensors_side_by_side_are_looked_at_by_their_names() -> None:
    """The input of a kept stage is no tensor of the teacher; a part of a sum may not name it as its source."""
    stage = ir.Input(name="stage~in2", channels=4)
    first = ir.Select(name="p", inputs=("stage~in2",), index=(0, 1))
    second = ir.Select(name="q", inputs=("stage~in2",), index=(2, 3))
    before = graph(stage, first, second, conv("a", "p"), relu("r", "a"), add("y", "r", "q"), conv("c", "y"))
    after = apply(gather_terms, before)
    assert {s for op in after if op.part for s in (*op.part.sources, *op.part.rest)} <= {"r", "q"}


def test_what_it_does_not_read() -> None:
    with pytest.raises(PassError, match="c: gather-terms does not read Clamp; run the passes before it"):
        gather_terms(graph(source(), ir.Clamp(name="c", inputs=("x",), low=0.0, high=1.0)))
