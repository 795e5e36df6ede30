"""gather_terms: pointwise values as sums of matrix * leaf."""

from __future__ import annotations

import pytest
import torch
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


def test_a_convolution_that_others_read_stays_as_it_is() -> None:
    """Joined, it would be computed twice: in b, and for r."""
    before = graph(
        source(), conv("a", "x", 6), conv("b", "a", 3, 6, 1), relu("r", "a"), conv("c", "r", 3, 6), add("y", "b", "c")
    )
    after = apply(gather_terms, before, idempotent=False)
    assert [(op.name, op.inputs) for op in after][1:3] == [("a", ("x",)), ("r", ("a",))]
    assert after["y~<a>"].inputs == ("a",)


def test_a_sum_that_others_read_is_a_leaf() -> None:
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), add("y", "r", "x"), conv("b", "y"), relu("s", "b"),
        add("z", "s", "y"), conv("c", "z"),
    )  # fmt: skip
    assert apply(gather_terms, before)["z"].inputs == ("s", "y")


def test_a_sum_that_one_sum_reads_is_taken_apart() -> None:
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), conv("b", "r"), relu("s", "b"), add("y", "r", "x"),
        add("z", "s", "y"), conv("c", "z"),
    )  # fmt: skip
    after = apply(gather_terms, before)
    assert after["z"].inputs == ("s", "r", "x") and "y" not in after


def test_a_selection_is_looked_through_whoever_reads_it() -> None:
    """Its channels are multiples of a leaf's: as cheap to read there."""
    swap = ir.Select(name="p", inputs=("r",), index=(1, 0))
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), swap, conv("b", "p"), relu("s", "b"), add("y", "s", "p"),
        conv("c", "y"),
    )  # fmt: skip
    after = apply(gather_terms, before, idempotent=False)
    assert after["y~<r>"].inputs == ("r",) and after["p"].inputs == ("r",)


def test_what_mixes_channels_is_no_selection() -> None:
    """One row picks, the other mixes, and two read it: it stays a value of its own."""
    mix = conv("p", "r", k=1, bias=False)
    mix.weight[:, :, 0, 0] = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), mix, conv("b", "p"), relu("s", "b"), add("y", "s", "p"),
        conv("c", "y"),
    )  # fmt: skip
    assert apply(gather_terms, before)["y"].inputs == ("s", "p")


def test_a_mixture_is_not_taken_into_one_that_widens() -> None:
    """Six channels of p = M r + N x: as terms they would be six of r and six of x; p itself has two."""
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), conv("m", "r", k=1), conv("n", "x", k=1), add("p", "m", "n"),
        conv("wide", "p", 6, 2, 1), relu("s", "wide"), conv("c", "s", 2, 6),
    )  # fmt: skip
    after = apply(gather_terms, before, idempotent=False)
    assert after["wide"].inputs == ("p",)


def test_a_bias_inside_is_mixed_by_what_reads_it() -> None:
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), conv("m", "r", k=1), add("p", "m", "x"), conv("q", "p", k=1),
        relu("s", "q"),
    )  # fmt: skip
    after = apply(gather_terms, before, idempotent=False)
    assert "p" not in after and "m" not in after
    mixed, outer = before["m"], before["q"]
    assert isinstance(mixed, ir.Conv2d) and isinstance(outer, ir.Conv2d) and mixed.bias.any()
    last = after["q"]
    assert isinstance(last, ir.Conv2d) and torch.equal(last.bias, outer.weight[:, :, 0, 0] @ mixed.bias + outer.bias)


def test_a_term_that_cancels_is_gone() -> None:
    """y = x + r - x."""
    minus = conv("m", "x", k=1, bias=False)
    minus.weight[:, :, 0, 0] = -torch.eye(2)
    before = graph(source(), conv("a", "x"), relu("r", "a"), minus, add("y", "x", "r", "m"), conv("c", "y"))
    after = apply(gather_terms, before)
    assert after["y"].inputs == ("r",)


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
