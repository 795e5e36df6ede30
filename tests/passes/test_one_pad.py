"""one_pad: constants that zero padding would notice come from a channel of ones."""

from __future__ import annotations

import pytest
import torch
from helpers.graphs import apply, conv, graph, relu, source

from memsr_compiler import ir
from memsr_compiler.errors import PassError
from memsr_compiler.passes import one_pad


def biased() -> ir.Graph:
    return graph(source(), conv("a", "x"), relu("r", "a"), conv("p", "r", 2, 2, 1), conv("b", "p"))


def test_a_biased_1x1_before_a_3x3() -> None:
    after = apply(one_pad, biased())
    assert (
        after.text()
        == """\
x: 2x1 = Input(channels=2, low=-1.0, high=1.0)
a: 2x1 = Conv2d(x, weight=2x2x3x3, bias=2, groups=1, dilation=1)
r: 2x1 = Relu(a)
~ones1~kernel: 1x1 = Conv2d(x, weight=1x2x1x1, bias=1, groups=1, dilation=1)
~ones1: 1x1 = Relu(~ones1~kernel, one [1])
p~ones: 2x1 = Conv2d(~ones1, weight=2x1x1x1, bias=2, groups=1, dilation=1)
p~bare: 2x1 = Conv2d(r, weight=2x2x1x1, bias=2, groups=1, dilation=1)
p~padded: 2x1 = Sum(p~ones, p~bare)
b: 2x1 = Conv2d(p~padded, weight=2x2x3x3, bias=2, groups=1, dilation=1)
return b
"""
    )
    ones, bare = after["~ones1~kernel"], after["p~bare"]
    assert isinstance(ones, ir.Conv2d) and isinstance(bare, ir.Conv2d)
    assert not ones.weight.any() and torch.equal(ones.bias, torch.ones(1).double()) and not bare.bias.any()


@pytest.mark.parametrize("second", [conv("b", "p", k=1), relu("b", "p")], ids=["pointwise", "relu"])
def test_only_where_it_is_needed(second: ir.Op) -> None:
    before = graph(source(), conv("a", "x"), relu("r", "a"), conv("p", "r", 2, 2, 1), second)
    assert apply(one_pad, before).text() == before.text()


def test_no_constant_no_channel() -> None:
    before = graph(source(), conv("a", "x"), relu("r", "a"), conv("p", "r", 2, 2, 1, bias=False), conv("b", "p"))
    assert apply(one_pad, before).text() == before.text()


def test_two_readers_share_it() -> None:
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), conv("p", "r", 2, 2, 1), conv("q", "r", 2, 2, 1), conv("b", "p"),
        conv("c", "q"), ir.Sum(name="y", inputs=("b", "c")),
    )  # fmt: skip
    assert [op.name for op in apply(one_pad, before) if isinstance(op, ir.Relu)] == ["r", "~ones1"]


def test_beside_the_input_there_can_be_none() -> None:
    with pytest.raises(PassError, match="p: a constant is needed beside the input, where no layer can make it"):
        one_pad(graph(source(), conv("p", "x", 2, 2, 1), conv("b", "p")))
