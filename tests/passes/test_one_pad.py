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


def test_what_has_no_constant_is_not_written_out_again() -> None:
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), conv("p", "r", 2, 2, 1), conv("q", "r", 2, 2, 1, bias=False),
        ir.Sum(name="y", inputs=("p", "q")), conv("b", "y"),
    )  # fmt: skip
    after = apply(one_pad, before)
    assert after["y~bare"].inputs == ("p~bare", "q") and "q~bare" not in after


def test_two_readers_of_one_value_share_it_padded() -> None:
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), conv("p", "r", 2, 2, 1), conv("b", "p"), conv("c", "p", k=5),
        ir.Sum(name="y", inputs=("b", "c")),
    )  # fmt: skip
    after = apply(one_pad, before)
    assert after["b"].inputs == after["c"].inputs == ("p~padded",)


def test_a_constant_goes_through_1x1s_and_sums() -> None:
    """q(p(r)) + s(r): the constant of p mixed by q, and those of q and s."""
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), conv("p", "r", 3, 2, 1), conv("q", "p", 2, 3, 1),
        conv("s", "r", 2, 2, 1), ir.Sum(name="y", inputs=("q", "s")), conv("b", "y"),
    )  # fmt: skip
    after = apply(one_pad, before)
    p, q, s, constant = (after[name] for name in ("p~bare", "q~bare", "s~bare", "y~ones"))
    assert all(isinstance(op, ir.Conv2d) and not op.bias.any() for op in (p, q, s))
    first, second, third = before["p"], before["q"], before["s"]
    assert isinstance(first, ir.Conv2d) and isinstance(second, ir.Conv2d) and isinstance(third, ir.Conv2d)
    assert isinstance(constant, ir.Conv2d)
    assert torch.equal(constant.weight.flatten(), second.weight[:, :, 0, 0] @ first.bias + second.bias + third.bias)


def test_each_level_has_its_own_ones_made_from_the_level_below() -> None:
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), conv("p", "r", 2, 2, 1), conv("b", "p"), relu("s", "b"),
        conv("q", "s", 2, 2, 1), conv("c", "q"),
    )  # fmt: skip
    after = apply(one_pad, before)
    assert after["p~ones"].inputs == ("~ones1",) and after["~ones1~kernel"].inputs == ("x",)
    assert after["q~ones"].inputs == ("~ones2",) and after["~ones2~kernel"].inputs == ("r",)


def test_beside_the_input_there_can_be_none() -> None:
    with pytest.raises(PassError, match="p: a constant is needed beside the input, where no layer can make it"):
        one_pad(graph(source(), conv("p", "x", 2, 2, 1), conv("b", "p")))
