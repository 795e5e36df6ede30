"""drop_channels: dead, zero and equal channels go, and the meanings of the others stay."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from helpers.graphs import apply, conv, graph, integers, random_chain, relu, source
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.errors import PassError
from memsr_compiler.ir.interpreter import run
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.passes import drop_channels
from memsr_compiler.passes.drop_channels import chain


def dense(name: str, operand: str, weight: Tensor, bias: Tensor) -> ir.BlockConv2d:
    return ir.BlockConv2d(
        name=name, inputs=(operand,), channels_in=weight.shape[1], kernel_size=weight.shape[-1],
        blocks=(ir.Block(0, 0, weight),), bias=bias,
    )  # fmt: skip


def two_layers(first: Tensor, bias: Tensor, second: Tensor) -> ir.Graph:
    width = len(bias)
    every = tuple(range(width))
    held = ir.Relu(name="l1.relu", inputs=("l1",), meaning=(ir.Meaning("value", every, "r", every),))
    return graph(source(), dense("l1", "x", first, bias), held, dense("y", "l1.relu", second, integers(1)))


def three_layers(first: Tensor, bias: Tensor, second: Tensor, second_bias: Tensor, third: Tensor) -> ir.Graph:
    """The same with a second level, of two channels."""
    every = ir.Meaning("value", (0, 1), "s", (0, 1))
    held = ir.Relu(name="l2.relu", inputs=("l2",), meaning=(every,))
    first_level = two_layers(first, bias, second[:1]).ops[:-1]
    return graph(
        *first_level, dense("l2", "l1.relu", second, second_bias), held, dense("y", "l2.relu", third, integers(1))
    )


def meaning(after: ir.Graph) -> ir.Meaning:
    op = after["l1.relu"]
    assert isinstance(op, ir.Relu)
    return op.meaning[0]


def weights(width: int) -> tuple[Tensor, Tensor, Tensor]:
    first = integers(width, 2, 3, 3, seed=5) * 2 + 1  # odd, so never zero
    second = integers(1, width, 3, 3, seed=6) * 2 + 1
    return first, integers(width, seed=7), second


def test_dead() -> None:
    first, bias, second = weights(4)
    second[:, 1] = 0
    after = apply(drop_channels, two_layers(first, bias, second))
    assert (
        after.text()
        == """\
x: 2x1 = Input(channels=2, low=-1.0, high=1.0)
l1: 3x1 = BlockConv2d(x, channels_in=2, kernel_size=3, 1 blocks, bias=3)
l1.relu: 3x1 = Relu(l1, value r[3])
y: 1x1 = BlockConv2d(l1.relu, channels_in=3, kernel_size=3, 1 blocks, bias=1)
return y
"""
    )
    assert meaning(after) == ir.Meaning("value", (0, 1, 2), "r", (0, 2, 3))


@pytest.mark.parametrize("constant", [0.0, -2.0])
def test_always_zero(constant: float) -> None:
    """Its meaning stays, at position -1: what it means is still needed, to say that it is zero."""
    first, bias, second = weights(4)
    first[2], bias[2] = 0, constant
    assert meaning(apply(drop_channels, two_layers(first, bias, second))) == ir.Meaning(
        "value", (0, 1, -1, 2), "r", (0, 1, 2, 3)
    )


def test_a_constant_above_zero_stays() -> None:
    first, bias, second = weights(4)
    first[2], bias[2] = 0, 2.0
    assert meaning(apply(drop_channels, two_layers(first, bias, second))).positions == (0, 1, 2, 3)


def test_equal() -> None:
    first, bias, second = weights(5)
    first[3], bias[3] = first[1], bias[1]
    first[4], bias[4] = first[1], bias[1]
    after = apply(drop_channels, two_layers(first, bias, second))
    assert meaning(after) == ir.Meaning("value", (0, 1, 2, 1, 1), "r", (0, 1, 2, 3, 4))


def test_of_equal_constants_one_stays() -> None:
    """Their marks are equal to the last bit, as those of kernels, which are rounded, need not be."""
    first, bias, second = weights(5)
    first[[1, 3, 4]], bias[[1, 3, 4]] = 0, 2.0
    after = apply(drop_channels, two_layers(first, bias, second))
    assert meaning(after) == ir.Meaning("value", (0, 1, 2, 1, 1), "r", (0, 1, 2, 3, 4))


def test_one_channel_stays_if_all_could_go() -> None:
    first, bias, second = weights(3)
    after = apply(drop_channels, two_layers(first, bias, 0 * second))
    assert after.type("l1").channels == 1
    after = apply(drop_channels, two_layers(0 * first, 0 * bias, second))
    assert after.type("l1").channels == 1


def test_a_reader_that_goes_takes_what_only_it_read_along() -> None:
    """Of the second level nobody reads channel 1, and only that reads channel 2 of the first."""
    first, bias, _ = weights(3)
    second, third = integers(2, 3, 3, 3, seed=8) * 2 + 1, integers(1, 2, 1, 1, seed=9) * 2 + 1
    second[0, 2], third[0, 1] = 0, 0
    after = apply(drop_channels, three_layers(first, bias, second, integers(2), third))
    assert (after.type("l1").channels, after.type("l2").channels) == (2, 1)


def test_equal_channels_make_equal_channels() -> None:
    """The second level's rows differ only in which of two equal channels they read."""
    first, bias, _ = weights(2)
    first[1], bias[1] = first[0], bias[0]
    second, third = torch.zeros(2, 2, 3, 3).double(), integers(1, 2, 1, 1, seed=9) * 2 + 1
    second[0, 0] = second[1, 1] = integers(3, 3, seed=4)
    after = apply(drop_channels, three_layers(first, bias, second, torch.ones(2).double(), third))
    assert (after.type("l1").channels, after.type("l2").channels) == (1, 1)


def test_a_row_whose_weights_on_equal_channels_cancel_is_always_zero() -> None:
    """Blocks side by side, then one over the other: no block is zero by itself."""
    first, bias, _ = weights(3)
    first[2], bias[2] = first[1], bias[1]
    second, third = integers(2, 3, 3, 3, seed=8) * 2 + 1, integers(1, 2, 1, 1, seed=9) * 2 + 1
    second[0, 0], second[0, 2] = 0, -second[0, 1]
    after = apply(drop_channels, three_layers(first, bias, second, -torch.ones(2).double(), third))
    assert (after.type("l1").channels, after.type("l2").channels) == (2, 1)
    held = after["l2.relu"]
    assert isinstance(held, ir.Relu) and held.meaning == (ir.Meaning("value", (-1, 0), "s", (0, 1)),)


def test_a_small_row_beside_a_large_one_is_not_zero() -> None:
    """Beside a kernel of 10^12 the marks of the others are as good as zero."""
    first, _, second = weights(4)
    first[0] *= 1e12
    after = apply(drop_channels, two_layers(first, -torch.ones(4).double(), second))
    assert meaning(after).positions == (0, 1, 2, 3)


def test_equal_channels_that_cancel_in_every_reader_stay_as_one_for_the_proof() -> None:
    """Two layers of widths 2 and 1; the certificate needs the channel to say that a row is zero because of it."""
    first, second, third = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, 3), (3, 2), (2, 1)))
    teacher = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
    with torch.no_grad():
        for i, p in enumerate(teacher.double().parameters()):
            p.copy_(integers(*p.shape, seed=i) / 4 + 1 / 8)
        for p in first.parameters():
            p[2] = p[1]
        second.weight[:, 2] = -second.weight[:, 1]
        assert second.bias is not None
        second.weight[0, 0], second.bias[0] = 0, -1
    plain = compile_to_plain(teacher, align=1)
    assert [len(layer.bias) for layer in plain.checkable()] == [2, 1, 1]


def test_rows_that_are_close_but_not_equal_stay() -> None:
    """Beside a bias of 10^12 the marks of the others are as good as equal."""
    first, bias, second = weights(4)
    bias[0] = 1e12
    after = apply(drop_channels, two_layers(first, bias, second))
    assert meaning(after).positions == (0, 1, 2, 3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**31))
def test_what_is_left_is_read_differs_and_lives(seed: int) -> None:
    """On chains with dead, zero and equal channels planted, their kernels in several blocks."""
    before = random_chain(seed)
    after = apply(drop_channels, before)
    convs, relus = chain(after)
    as_drawn = {id(conv) for conv in chain(before)[0]}  # a block of zeros may be drawn; nothing was dropped there
    for made, reader in pairwise(convs):
        rows = torch.cat([made.dense().flatten(1), made.bias[:, None]], dim=1)
        if len(rows) > 1:
            assert len(torch.unique(rows, dim=0)) == len(rows)
            assert reader.dense().transpose(0, 1).flatten(1).any(1).all()
            assert (made.dense().flatten(1).any(1) | (made.bias > 0)).all()
        assert all(b.kernel.any() for conv in (made, reader) if id(conv) not in as_drawn for b in conv.blocks)
    values: dict[str, Tensor] = {}
    x = integers(2, before.input.channels, 4, 3, seed=seed % 100)
    run(before, x, watch=lambda name, value: values.update({f"before {name}": value}))
    run(after, x, watch=lambda name, value: values.update({f"after {name}": value}))
    for op in relus:
        was, now = values[f"before {op.name}"], values[f"after {op.name}"]
        for m in op.meaning:
            for position, channel in zip(m.positions, m.channels, strict=True):
                held = now[:, position] if position >= 0 else 0 * now[:, 0]
                assert torch.equal(held, was[:, channel])


def test_refusals() -> None:
    with pytest.raises(PassError, match="y: drop-channels does not read Conv2d; run the passes before it"):
        drop_channels(graph(source(), conv("y", "x")))
    fork = (
        dense("a", "x", integers(1, 2, 1, 1), integers(1)), relu("r", "a"), relu("s", "a"),
        dense("c", "s", integers(1, 1, 1, 1), integers(1)), dense("b", "r", integers(1, 1, 1, 1), integers(1)),
    )  # fmt: skip
    with pytest.raises(PassError, match="b: not a chain of convolution and ReLU; run merge-parallel first"):
        drop_channels(graph(source(), *fork))
    with pytest.raises(PassError, match="r: not a chain of convolution and ReLU; run merge-parallel first"):
        drop_channels(graph(source(), dense("a", "x", integers(1, 2, 1, 1), integers(1)), relu("r", "a")))


def bent_layers(first: Tensor, bias: Tensor, second: Tensor, *slopes: float) -> ir.Graph:
    """The same with a PReLU."""
    before = two_layers(first, bias, second)
    held = before["l1.relu"]
    assert isinstance(held, ir.Relu)
    slope = torch.tensor(slopes, dtype=torch.float64)
    bend = ir.PRelu(name=held.name, inputs=held.inputs, slope=slope, meaning=held.meaning)
    return graph(*(bend if op is held else op for op in before))


def left(after: ir.Graph) -> tuple[list[float], tuple[int, ...]]:
    op = after["l1.relu"]
    assert isinstance(op, ir.PRelu)
    return op.slope.tolist(), op.meaning[0].positions


def test_behind_a_slope() -> None:
    """A constant below zero is something there; rows are equal if their slopes are."""
    first, bias, second = weights(5)
    first[1:3], bias[1], bias[2] = 0.0, -1.0, -1.0
    first[4], bias[4] = first[3], bias[3]
    after = apply(drop_channels, bent_layers(first, bias, second, 1.0, 0.5, 0.0, 0.25, 0.5))
    assert left(after) == ([1, 0.5, 0.25, 0.5], (0, 1, -1, 2, 3))
    same = apply(drop_channels, bent_layers(first, bias, second, 1.0, 0.5, 0.0, 0.25, 0.25))
    assert left(same) == ([1, 0.5, 0.25], (0, 1, -1, 2, 2))
    near = drop_channels(bent_layers(first, bias, second, 1.0, 0.5, 0.0, 0.25, 0.25 + 1e-12))
    assert left(near) == ([1, 0.5, 0.25, 0.25 + 1e-12], (0, 1, -1, 2, 3))
    second[:, 0] = 0
    assert left(apply(drop_channels, bent_layers(first, bias, second, 1.0, 0.5, 0.0, 0.25, 0.25)))[0] == [0.5, 0.25]
