"""fuse_1x1: chains of 1x1 convolutions and sums -> one convolution from each ReLU to each ReLU."""

from __future__ import annotations

import pytest
import torch
from helpers.graphs import add, apply, conv, graph, relu, residual, source

from memsr_compiler import ir
from memsr_compiler.errors import PassError
from memsr_compiler.passes import fuse_1x1, insert_relu, one_pad, skip_to_conv


def test_before_and_after_a_larger_kernel() -> None:
    before = graph(
        source(), conv("p", "x", 3, 2, 1, bias=False), conv("a", "p", 4, 3), conv("q", "a", 2, 4, 1), relu("r", "q"),
        conv("s", "r", 5, 2, 1), conv("t", "s", 2, 5, 1),
    )  # fmt: skip
    assert (
        apply(fuse_1x1, before).text()
        == """\
x: 2x1 = Input(channels=2, low=-1.0, high=1.0)
r~sum: 2x1 = Conv2d(x, weight=2x2x3x3, bias=2, groups=1, dilation=1)
r: 2x1 = Relu(r~sum)
t: 2x1 = Conv2d(r, weight=2x2x1x1, bias=2, groups=1, dilation=1)
return t
"""
    )


def test_parallel_ways_with_one_source_become_one_kernel() -> None:
    before = graph(source(), conv("a", "x", k=3), conv("b", "x", k=5), add("y", "a", "b", "x"), relu("r", "y"))
    after = apply(fuse_1x1, before)
    assert [op.name for op in after] == ["x", "r~sum", "r"] and "weight=2x2x5x5" in after.text()


def test_a_carried_level() -> None:
    after = apply(fuse_1x1, one_pad(insert_relu(skip_to_conv(residual()))))
    assert [type(after[op.inputs[0]]) for op in after if isinstance(op, ir.Relu)] == [
        ir.Conv2d,
        ir.Conv2d,
        ir.Sum,
        ir.Sum,
    ]


def test_the_ones_centre_tap_becomes_a_bias() -> None:
    padded = one_pad(graph(source(), conv("a", "x"), relu("r", "a"), conv("p", "r", 2, 2, 1), conv("b", "p")))
    after = apply(fuse_1x1, padded)
    (term,) = (op for op in after if isinstance(op, ir.Conv2d) and op.inputs == ("~ones1",))
    assert not term.weight[:, 0, 1, 1].any() and term.weight.any()


def test_a_term_that_cancels_is_left_out() -> None:
    minus = conv("m", "r", 2, 2, 1, bias=False)
    minus.weight.copy_(-torch.eye(2)[:, :, None, None])
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), minus, add("y", "r", "m"), relu("s", "x"), add("z", "y", "s")
    )
    assert [op.name for op in apply(fuse_1x1, before) if isinstance(op, ir.Conv2d)] == ["r~sum", "s~sum", "z"]


def test_refusals() -> None:
    biased = graph(source(), conv("a", "x"), relu("r", "a"), conv("p", "r", 2, 2, 1), conv("b", "p"))
    biased["p"].bias.fill_(1.0)  # type: ignore[attr-defined]
    with pytest.raises(PassError, match="b: reads a constant that zero padding would cut at the border"):
        fuse_1x1(biased)
    with pytest.raises(PassError, match="b: reads another a with no ReLU between; run skip-to-conv first"):
        fuse_1x1(graph(source(), conv("a", "x", bias=False), conv("b", "a")))
