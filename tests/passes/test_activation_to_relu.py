"""activation_to_relu: every activation in ReLU form, the ReLUs named n#k."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.graphs import apply, conv, graph, prelu, source

from memsr_compiler import ir
from memsr_compiler.passes import activation_to_relu


def clamp(low: float, high: float) -> ir.Graph:
    return graph(source(), ir.Clamp(name="act", inputs=("x",), low=low, high=high))


def test_prelu() -> None:
    after = apply(
        activation_to_relu, graph(source(), ir.PRelu(name="act", inputs=("x",), slope=torch.tensor([0.25, -1.0])))
    )
    assert (
        after.text()
        == """\
x: 2x1 = Input(channels=2, low=-1.0, high=1.0)
act#0: 2x1 = Relu(x)
act~minus: 2x1 = Conv2d(x, weight=2x2x1x1, bias=2, groups=1, dilation=1)
act#1: 2x1 = Relu(act~minus)
act~slope: 2x1 = Conv2d(act#1, weight=2x2x1x1, bias=2, groups=1, dilation=1)
act: 2x1 = Sum(act#0, act~slope)
return act
"""
    )


def test_clamp_on_both_sides() -> None:
    assert (
        apply(activation_to_relu, clamp(0.0, 6.0)).text()
        == """\
x: 2x1 = Input(channels=2, low=-1.0, high=1.0)
act~above: 2x1 = Conv2d(x, weight=2x2x1x1, bias=2, groups=1, dilation=1)
act#0: 2x1 = Relu(act~above)
act~beyond: 2x1 = Conv2d(x, weight=2x2x1x1, bias=2, groups=1, dilation=1)
act#1: 2x1 = Relu(act~beyond)
act~less: 2x1 = Conv2d(act#1, weight=2x2x1x1, bias=2, groups=1, dilation=1)
act~steps: 2x1 = Sum(act#0, act~less)
act: 2x1 = Conv2d(act~steps, weight=2x2x1x1, bias=2, groups=1, dilation=1)
return act
"""
    )


@pytest.mark.parametrize(
    ("low", "high", "relus"),
    [(-1.0, math.inf, 1), (-math.inf, 1.0, 1), (-math.inf, math.inf, 0), (-2.0, 1.0, 2), (1.0, 1.0, 2)],
)
def test_clamp_takes_one_relu_a_bound(low: float, high: float, relus: int) -> None:
    after = apply(activation_to_relu, clamp(low, high))
    assert sum(isinstance(op, ir.Relu) for op in after) == relus


def test_maximum() -> None:
    after = apply(activation_to_relu, graph(source(), conv("a", "x"), ir.Maximum(name="act", inputs=("x", "a"))))
    assert (
        after.text()
        == """\
x: 2x1 = Input(channels=2, low=-1.0, high=1.0)
a: 2x1 = Conv2d(x, weight=2x2x3x3, bias=2, groups=1, dilation=1)
act~minus: 2x1 = Conv2d(x, weight=2x2x1x1, bias=2, groups=1, dilation=1)
act~more: 2x1 = Sum(a, act~minus)
act#0: 2x1 = Relu(act~more)
act: 2x1 = Sum(x, act#0)
return act
"""
    )
    apply(activation_to_relu, graph(source(), ir.Maximum(name="act", inputs=("x", "x"))))


def test_a_prelu_is_kept_for_the_prelu_form() -> None:
    before = graph(source(), prelu("p", "x", 0.5, -1.0), ir.Clamp(name="y", inputs=("p",), low=0.0, high=1.0))
    after = apply(activation_to_relu, before, keep_prelu=True)
    assert after["p"] is before["p"] and not any(isinstance(op, ir.Clamp) for op in after)
    assert not any(isinstance(op, ir.PRelu) for op in activation_to_relu(before))
