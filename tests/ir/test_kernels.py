"""Kernel algebra against torch's own operators, on small integers in float64: equal, not merely close."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.ir import kernels
from memsr_compiler.ir.interpreter import evaluate, run

fast = settings(max_examples=60, deadline=None, derandomize=True)
few = st.integers(1, 4)
odd = st.sampled_from([1, 3, 5, 7, 9])
sizes = st.tuples(st.integers(1, 5), st.integers(1, 5))  # often smaller than the kernel
seeds = st.integers(0, 2**31)


def integers(seed: int, *shape: int) -> Tensor:
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).double()


def convolved(x: Tensor, kernel: Tensor, bias: Tensor | None = None, **options: int) -> Tensor:
    reach = kernel.shape[-1] // 2 * options.get("dilation", 1)
    return F.conv2d(x, kernel, bias, padding=reach, **options)


@fast
@given(seeds, few, few, odd, st.integers(0, 2), sizes)
def test_center_pad(seed: int, c_out: int, c_in: int, k: int, more: int, size: tuple[int, int]) -> None:
    kernel, x = integers(seed, c_out, c_in, k, k), integers(seed + 1, 2, c_in, *size)
    padded = kernels.center_pad(kernel, k + 2 * more)
    assert padded.shape[-2:] == (k + 2 * more, k + 2 * more)
    assert torch.equal(convolved(x, padded), convolved(x, kernel))


@fast
@given(seeds, few, few, st.integers(1, 3), odd, st.integers(1, 3), sizes)
def test_dense(seed: int, c_out: int, c_in: int, groups: int, k: int, dilation: int, size: tuple[int, int]) -> None:
    kernel = integers(seed, c_out * groups, c_in, k, k)
    x = integers(seed + 1, 2, c_in * groups, *size)
    expected = convolved(x, kernel, groups=groups, dilation=dilation)
    assert torch.equal(convolved(x, kernels.dense(kernel, groups, dilation)), expected)


@fast
@given(seeds, few, few, few, odd, sizes, st.booleans())
def test_mix_outputs(seed: int, c_out: int, inner: int, c_in: int, k: int, size: tuple[int, int], picks: bool) -> None:
    """Lemma 3.1, a 1x1 convolution after; `picks` takes the short way for matrices that only select."""
    matrix = selecting(seed, c_out, inner) if picks else integers(seed, c_out, inner)
    kernel, x = integers(seed + 1, inner, c_in, k, k), integers(seed + 2, 2, c_in, *size)
    expected = convolved(convolved(x, kernel), matrix[:, :, None, None])
    assert torch.equal(convolved(x, kernels.mix_outputs(matrix, kernel)), expected)


@fast
@given(seeds, few, few, few, odd, sizes, st.booleans())
def test_mix_inputs(seed: int, c_out: int, inner: int, c_in: int, k: int, size: tuple[int, int], picks: bool) -> None:
    """Lemma 3.1, a 1x1 convolution without bias before, up to the border."""
    matrix = selecting(seed, c_in, inner).T if picks else integers(seed, inner, c_in)
    kernel, x = integers(seed + 1, c_out, inner, k, k), integers(seed + 2, 2, c_in, *size)
    expected = convolved(convolved(x, matrix[:, :, None, None]), kernel)
    assert torch.equal(convolved(x, kernels.mix_inputs(kernel, matrix)), expected)


def selecting(seed: int, rows: int, columns: int) -> Tensor:
    """At most one number in each row."""
    full = integers(seed, rows, columns)
    kept = torch.randint(columns, (rows,), generator=torch.Generator().manual_seed(seed))
    return full * F.one_hot(kept, columns)


@fast
@given(seeds, few, few, few, odd, sizes)
def test_a_constant_channel_folds_a_biased_1x1_right_up_to_the_border(
    seed: int, c_out: int, inner: int, c_in: int, k: int, size: tuple[int, int]
) -> None:
    """MemSR, Eq. 3 and 4 and Lemma 3.1: [1; x] zero-padded, and no bias anywhere."""
    a, a_bias = integers(seed, inner, c_in, 1, 1), integers(seed + 1, inner)
    b, b_bias = integers(seed + 2, c_out, inner, k, k), integers(seed + 3, c_out)
    x = integers(seed + 4, 2, c_in, *size)
    expected = convolved(convolved(x, a, a_bias), b, b_bias)
    padded = torch.cat([torch.ones(2, 1, *size, dtype=torch.float64), x], dim=1)
    first = torch.cat([a_bias[:, None], a[:, :, 0, 0]], dim=1)  # [1; x] -> a * x + a_bias
    folded = kernels.mix_inputs(b, first)
    folded[:, :1] += kernels.bias_rm(b_bias, k)
    assert torch.equal(convolved(padded, folded), expected)
    kernel, bias = kernels.bias_from_ones(folded)
    assert torch.equal(convolved(padded, kernel, bias), expected)
    assert not kernel[:, 0, k // 2, k // 2].any()


@fast
@given(seeds, few, few, odd, sizes)
def test_bias_rm_is_a_bias_and_bias_from_ones_takes_it_back(
    seed: int, c_out: int, c_in: int, k: int, size: tuple[int, int]
) -> None:
    """MemSR, Eq. 4: [bias_rm(b), K] on [1; x] is K on x, plus b, up to the border."""
    kernel, bias = integers(seed, c_out, c_in, k, k), integers(seed + 1, c_out)
    x = integers(seed + 2, 2, c_in, *size)
    removed = kernels.bias_rm(bias, k)
    assert removed.shape == (c_out, 1, k, k)
    both = torch.cat([removed, kernel], dim=1)
    padded = torch.cat([torch.ones(2, 1, *size, dtype=torch.float64), x], dim=1)
    assert torch.equal(convolved(padded, both), convolved(x, kernel, bias))
    back, again = kernels.bias_from_ones(both)
    assert torch.equal(again, bias) and torch.equal(back[:, 1:], kernel) and not back[:, 0].any()
    assert torch.equal(both, torch.cat([removed, kernel], dim=1))  # what it was given is as it was


@fast
@given(seeds, few, few, odd, st.integers(1, 4), sizes)
def test_polyphase(seed: int, c_out: int, c_in: int, k: int, scale: int, size: tuple[int, int]) -> None:
    kernel, x = integers(seed, c_out, c_in, k, k), integers(seed + 1, 2, c_in * scale**2, *size)
    expected = convolved(F.pixel_shuffle(x, scale), kernel)
    folded = kernels.polyphase(kernel, scale)
    assert folded.shape[-1] == 2 * -(-(k // 2) // scale) + 1
    assert torch.equal(F.pixel_shuffle(convolved(x, folded), scale), expected)


@fast
@given(seeds, few, few, st.integers(1, 2), st.integers(1, 9), st.integers(1, 4), sizes)
def test_unfold_transposed(
    seed: int, c_out: int, c_in: int, groups: int, k: int, stride: int, size: tuple[int, int]
) -> None:
    padding = max(0, -((stride - k) // 2))
    extra = stride - k + 2 * padding
    kernel, x = integers(seed, c_in * groups, c_out, k, k), integers(seed + 1, 2, c_in * groups, *size)
    expected = F.conv_transpose2d(x, kernel, None, stride, padding, extra, groups) if extra < stride else None
    if expected is None:
        return
    unfolded = kernels.unfold_transposed(kernel, stride, padding, groups)
    assert unfolded.shape[-1] % 2 == 1
    assert torch.equal(F.pixel_shuffle(convolved(x, unfolded), stride), expected)


@fast
@given(few, st.integers(1, 4), st.integers(1, 4))
def test_shuffle_order(channels: int, factor: int, scale: int) -> None:
    """The order in which a shuffled tensor is folded, against folding what torch shuffles."""
    count = channels * factor**2 * scale**2
    folded = torch.arange(count).reshape(1, count, 1, 1)
    shuffled = F.pixel_shuffle(F.pixel_shuffle(folded, scale), factor)
    expected = F.pixel_unshuffle(shuffled, scale * factor).flatten().tolist()
    assert kernels.shuffle_order(channels, factor, scale) == expected


@fast
@given(seeds, st.integers(1, 6), st.integers(1, 6))
def test_selection(seed: int, rows: int, channels: int) -> None:
    index = torch.randint(channels, (rows,), generator=torch.Generator().manual_seed(seed)).tolist()
    x = integers(seed, 1, channels, 2, 3)
    picked = convolved(x, kernels.selection(index, channels)[:, :, None, None])
    assert torch.equal(picked, x[:, index])


@fast
@given(seeds, sizes, st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([1, 3, 5])), max_size=5))
def test_a_block_convolution_is_its_dense_one(
    seed: int, size: tuple[int, int], places: list[tuple[int, int, int]]
) -> None:
    """Blocks may overlap; then they add."""
    blocks = tuple(ir.Block(row, column, integers(seed + i, 2, 3, k, k)) for i, (row, column, k) in enumerate(places))
    op = ir.BlockConv2d(name="y", inputs=("x",), channels_in=6, kernel_size=5, blocks=blocks, bias=integers(seed, 5))
    x = integers(seed + 9, 2, 6, *size)
    assert torch.equal(evaluate(op, x), convolved(x, op.dense(), op.bias))
    assert torch.equal(evaluate(op, x.float()), evaluate(op, x).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_the_interpreter_keeps_the_dtype(dtype: torch.dtype) -> None:
    zero, one = torch.zeros(4).double(), torch.ones(4).double()
    ops = (
        ir.Input(name="x", channels=4),
        ir.Conv2d(name="a", inputs=("x",), weight=integers(0, 4, 4, 3, 3), bias=one),
        ir.Affine(name="b", inputs=("a",), scale=one, shift=zero),
        ir.PRelu(name="c", inputs=("b",), slope=one / 4),
        ir.Sum(name="d", inputs=("c", "x")),
        ir.PixelShuffle(name="e", inputs=("d",), factor=2),
    )
    assert run(ir.Graph(ops, "e"), torch.ones(1, 4, 2, 2, dtype=dtype)).dtype == dtype


def test_the_interpreter_forgets_what_is_no_longer_read() -> None:
    ops: list[ir.Op] = [ir.Input(name="0", channels=1)]
    ops += [ir.Relu(name=str(i), inputs=(str(i - 1),)) for i in range(1, 5)]
    seen: list[str] = []
    y = run(ir.Graph(tuple(ops), "4"), torch.ones(1, 1, 1, 1), watch=lambda name, _: seen.append(name))
    assert seen == ["0", "1", "2", "3", "4"] and torch.equal(y, torch.ones(1, 1, 1, 1))
