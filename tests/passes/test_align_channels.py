"""align_channels: widths that engines like."""

from __future__ import annotations

import pytest
import torch
from helpers.graphs import apply, conv, graph, prelu, random_chain, residual, source
from hypothesis import given, settings
from hypothesis import strategies as st

from memsr_compiler import ir
from memsr_compiler.errors import PassError
from memsr_compiler.passes import PLAIN, align_channels
from memsr_compiler.passes.drop_channels import chain


def narrow() -> ir.Graph:
    graph = residual()
    for step in PLAIN[:-1]:
        graph = step(graph)
    return graph


@pytest.mark.parametrize(("multiple", "width"), [(1, 4), (4, 4), (3, 6), (8, 8), (16, 16)])
def test_widths(multiple: int, width: int) -> None:
    after = apply(align_channels, narrow(), multiple=multiple)
    assert {after.type(op.name).channels for op in after if isinstance(op, ir.Relu)} == {width}
    relu = next(op for op in after if isinstance(op, ir.Relu))
    zeros = [m.positions for m in relu.meaning if m.kind == "zero"]
    assert zeros == ([tuple(range(4, width))] if width > 4 else [])


def test_text() -> None:
    assert (
        align_channels(narrow()).text()
        == """\
x: 2x1 = Input(channels=2, low=0.0, high=1.0)
~layer1: 8x1 = BlockConv2d(x, channels_in=2, kernel_size=3, 1 blocks, bias=8)
~layer1.relu: 8x1 = Relu(~layer1, positive a[2], negative a[2], value r[2], zero [4])
~layer2: 8x1 = BlockConv2d(~layer1.relu, channels_in=8, kernel_size=3, 2 blocks, bias=8)
~layer2.relu: 8x1 = Relu(~layer2, positive y[2], negative y[2], value s[2], zero [4])
z: 2x1 = BlockConv2d(~layer2.relu, channels_in=8, kernel_size=3, 2 blocks, bias=2)
return z
"""
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 3, 4, 8]))
def test_each_level_is_padded_by_its_own_width_with_zeros_that_nobody_reads(seed: int, multiple: int) -> None:
    before = random_chain(seed)
    after = apply(align_channels, before, multiple=multiple)
    old_convs, wide = (chain(g)[0] for g in (before, after))
    for old, new, reader in zip(old_convs, wide, wide[1:], strict=False):
        width = len(old.bias)
        assert len(new.bias) == -(-width // multiple) * multiple
        assert not new.dense()[width:].any() and not new.bias[width:].any()
        assert not reader.dense()[:, width:].any()
        assert torch.equal(new.bias[:width], old.bias)
    assert len(wide[-1].bias) == len(old_convs[-1].bias)


def test_refusal() -> None:
    with pytest.raises(PassError, match="widths cannot be aligned to 0; take a multiple of 1 or more"):
        align_channels(narrow(), multiple=0)


@pytest.mark.parametrize(("slopes", "padded"), [((1.0, 1.0), 1.0), ((1.0, 0.5), 0.0)])
def test_a_level_without_activation_stays_one(slopes: tuple[float, ...], padded: float) -> None:
    before = graph(source(), conv("a", "x"), prelu("p", "a", *slopes), conv("y", "p"))
    for step in PLAIN[:-1]:
        options = {"carry": "pass"} if step.name in ("skip-to-conv", "insert-relu") else {}
        before = step(before, **options)
    after = apply(align_channels, before, multiple=4)
    (bend,) = (op for op in after if isinstance(op, ir.PRelu))
    assert bend.slope.tolist() == [*slopes, padded, padded]
