"""merge_parallel: a level's ReLUs side by side, what is between two levels one kernel."""

from __future__ import annotations

import pytest
import torch
from helpers.graphs import apply, conv, graph, relu, residual, source

from memsr_compiler import ir
from memsr_compiler.errors import PassError
from memsr_compiler.passes import fuse_1x1, insert_relu, merge_parallel, one_pad, skip_to_conv


def fused() -> ir.Graph:
    return fuse_1x1(one_pad(insert_relu(skip_to_conv(residual()))))


def test_a_chain() -> None:
    after = apply(merge_parallel, fused(), idempotent=False)
    assert (
        after.text()
        == """\
x: 2x1 = Input(channels=2, low=0.0, high=1.0)
~layer1: 6x1 = BlockConv2d(x, channels_in=2, kernel_size=3, 2 blocks, bias=6)
~layer1.relu: 6x1 = Relu(~layer1, positive a[2], negative a[2], value r[2])
~layer2: 6x1 = BlockConv2d(~layer1.relu, channels_in=6, kernel_size=3, 4 blocks, bias=6)
~layer2.relu: 6x1 = Relu(~layer2, positive y[2], negative y[2], value s[2])
z: 2x1 = BlockConv2d(~layer2.relu, channels_in=6, kernel_size=3, 2 blocks, bias=2)
return z
"""
    )
    second = after["~layer2.relu"]
    assert isinstance(second, ir.Relu) and [m.positions for m in second.meaning] == [(0, 1), (2, 3), (4, 5)]


def test_the_dense_kernel_is_eq_1_and_2() -> None:
    """Rows below each other for outputs, columns side by side for inputs, zeros where nothing is read."""
    before = graph(
        source(),
        conv("a", "x"),
        relu("r", "a"),
        conv("b", "x", k=1),
        relu("s", "b"),
        conv("c", "s", k=5),
        relu("t", "c"),
        conv("d", "r"),
        relu("u", "d"),
        conv("y1", "t"),
        conv("y2", "u"),
        ir.Sum(name="y", inputs=("y1", "y2")),
    )
    after = apply(merge_parallel, before, idempotent=False)
    second = after["~layer2"]
    assert isinstance(second, ir.BlockConv2d)
    kernel = second.dense()
    assert kernel.shape == (4, 4, 5, 5)
    assert torch.equal(kernel[:2, 2:], before["c"].weight) and not kernel[:2, :2].any()  # type: ignore[attr-defined]
    assert torch.equal(kernel[2:, :2, 1:4, 1:4], before["d"].weight) and not kernel[2:, 2:].any()  # type: ignore[attr-defined]


def test_the_same_input_stacks_outputs() -> None:
    """MemSR, Eq. 2: rows below each other, of kernels of different sizes, their biases too."""
    before = graph(
        source(), conv("a", "x", 1), conv("b", "x", 3, k=5), relu("r", "a"), relu("s", "b"), conv("c", "r", 2, 1),
        conv("d", "s", 2, 3), ir.Sum(name="y", inputs=("c", "d")),
    )  # fmt: skip
    after = apply(merge_parallel, before, idempotent=False)
    first, a, b = after["~layer1"], before["a"], before["b"]
    assert isinstance(first, ir.BlockConv2d) and isinstance(a, ir.Conv2d) and isinstance(b, ir.Conv2d)
    assert torch.equal(first.dense()[:1, :, 1:4, 1:4], a.weight) and torch.equal(first.dense()[1:], b.weight)
    assert torch.equal(first.bias, torch.cat([a.bias, b.bias]))
    last, c, d = after["y"], before["c"], before["d"]
    assert isinstance(last, ir.BlockConv2d) and isinstance(c, ir.Conv2d) and isinstance(d, ir.Conv2d)
    assert torch.equal(last.dense(), torch.cat([c.weight, d.weight], dim=1))  # x + y = [I I][x; y]
    assert torch.equal(last.bias, c.bias + d.bias)


def test_refusals() -> None:
    two = graph(
        source(),
        conv("a", "x"),
        relu("r", "a"),
        conv("b", "r"),
        relu("s", "b"),
        conv("c", "r"),
        conv("d", "s"),
        ir.Sum(name="y", inputs=("c", "d")),
    )
    with pytest.raises(PassError, match="y: reads r past a ReLU; run skip-to-conv first"):
        merge_parallel(two)
    uneven = (*two.ops[:-3], conv("c", "r"), conv("d", "s"), ir.Sum(name="y", inputs=("c", "d")), relu("t", "y"))
    with pytest.raises(PassError, match="y: reads r past a ReLU; run skip-to-conv first"):
        merge_parallel(graph(*uneven, conv("e", "t")))
    with pytest.raises(PassError, match="x: is not a sum of convolutions; run fuse-1x1 first"):
        merge_parallel(graph(source(), relu("s", "x"), relu("t", "s"), conv("y", "t")))


def test_slopes_stand_side_by_side() -> None:
    steps = insert_relu(skip_to_conv(residual(), carry="pass"), carry="pass")
    after = apply(merge_parallel, fuse_1x1(one_pad(steps)), idempotent=False)
    assert (
        after.text()
        == """\
x: 2x1 = Input(channels=2, low=0.0, high=1.0)
~layer1: 4x1 = BlockConv2d(x, channels_in=2, kernel_size=3, 2 blocks, bias=4)
~layer1.relu: 4x1 = PRelu(~layer1, slope=4, value a[2], value r[2])
~layer2: 4x1 = BlockConv2d(~layer1.relu, channels_in=4, kernel_size=3, 4 blocks, bias=4)
~layer2.relu: 4x1 = PRelu(~layer2, slope=4, value y[2], value s[2])
z: 2x1 = BlockConv2d(~layer2.relu, channels_in=4, kernel_size=3, 2 blocks, bias=2)
return z
"""
    )
    first = after["~layer1.relu"]
    assert isinstance(first, ir.PRelu) and first.slope.tolist() == [1, 1, 0, 0]


def test_a_level_of_nothing_but_carried_values_is_linear() -> None:
    """The constant 1 among them, which a 1x1 convolution's bias asks for, has a slope of 1 too."""
    before = graph(source(), conv("a", "x"), conv("b", "a", k=1), conv("y", "b"))
    steps = insert_relu(skip_to_conv(before, carry="pass"), carry="pass")
    after = apply(merge_parallel, fuse_1x1(one_pad(steps)), idempotent=False)
    (level,) = (op for op in after if isinstance(op, ir.ACTIVATIONS))
    assert "one" in {m.kind for m in level.meaning} or len(level.meaning) == 1
    assert isinstance(level, ir.PRelu) and bool((level.slope == 1).all())
