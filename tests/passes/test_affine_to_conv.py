"""affine_to_conv: a scale and a shift a channel -> a diagonal 1x1 convolution."""

from __future__ import annotations

import torch
from helpers.graphs import apply, conv, graph, integers, source

from memsr_compiler import ir
from memsr_compiler.passes import affine_to_conv


def test_affine() -> None:
    norm = ir.Affine(name="bn", inputs=("x",), scale=integers(2, seed=1), shift=integers(2, seed=2))
    after = apply(affine_to_conv, graph(source(), norm, conv("a", "bn")))
    assert (
        after.text()
        == """\
x: 2x1 = Input(channels=2, low=-1.0, high=1.0)
bn: 2x1 = Conv2d(x, weight=2x2x1x1, bias=2, groups=1, dilation=1)
a: 2x1 = Conv2d(bn, weight=2x2x3x3, bias=2, groups=1, dilation=1)
return a
"""
    )
    made = after["bn"]
    assert isinstance(made, ir.Conv2d) and torch.equal(made.weight[:, :, 0, 0], torch.diag(norm.scale))
