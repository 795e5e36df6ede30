"""align_channels: widths that engines like."""

from __future__ import annotations

import pytest
from helpers.graphs import apply, residual

from memsr_compiler import ir
from memsr_compiler.errors import PassError
from memsr_compiler.passes import PLAIN, align_channels


def chain() -> ir.Graph:
    graph = residual()
    for step in PLAIN[:-1]:
        graph = step(graph)
    return graph


@pytest.mark.parametrize(("multiple", "width"), [(1, 4), (4, 4), (3, 6), (8, 8), (16, 16)])
def test_widths(multiple: int, width: int) -> None:
    after = apply(align_channels, chain(), multiple=multiple)
    assert {after.type(op.name).channels for op in after if isinstance(op, ir.Relu)} == {width}
    relu = next(op for op in after if isinstance(op, ir.Relu))
    zeros = [m.positions for m in relu.meaning if m.kind == "zero"]
    assert zeros == ([tuple(range(4, width))] if width > 4 else [])


def test_text() -> None:
    assert (
        align_channels(chain()).text()
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


def test_refusal() -> None:
    with pytest.raises(PassError, match="widths cannot be aligned to 0; take a multiple of 1 or more"):
        align_channels(chain(), multiple=0)
