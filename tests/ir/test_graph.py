"""The graph: what it refuses, what it prints, what its hash depends on."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from helpers.networks import random_network

from memsr_compiler import ir
from memsr_compiler.errors import InvalidGraph
from memsr_compiler.ir.rewrite import replace_ops, without_unused
from memsr_compiler.trace.trace import trace

X = ir.Input(name="x", channels=4, low=0.0, high=1.0)
INF = float("inf")


def conv(name: str, operand: str, c_out: int = 4, c_in: int = 4, k: int = 3) -> ir.Conv2d:
    return ir.Conv2d(name=name, inputs=(operand,), weight=torch.zeros(c_out, c_in, k, k), bias=torch.zeros(c_out))


def test_types_and_structure() -> None:
    graph = ir.Graph((X, conv("a", "x", 8), ir.PixelShuffle(name="up", inputs=("a",), factor=2)), "up")
    assert graph.type("up") == ir.FeatureMap(2, 2) and graph.scale == 2
    assert [op.name for op in graph.users("x")] == ["a"] and graph.operands(graph["up"]) == [graph["a"]]
    assert graph.input is X and "a" in graph and "b" not in graph


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (conv("a", "x", c_in=3), "a: Conv2d: takes 3 channels, is given 4"),
        (conv("a", "x", k=2), "a: Conv2d: kernel 2x2 is not odd and square"),
        (replace(conv("a", "x"), bias=torch.zeros(3)), "a: Conv2d: bias or groups do not fit the kernel"),
        (conv("a", "y"), "a: operand y is not computed before it"),
        (conv("x", "x"), "x: two ops have this name"),
        (ir.Input(name="a", channels=1), "a graph has exactly one Input"),
        (ir.PixelShuffle(name="a", inputs=("x",), factor=3), "a: PixelShuffle: 4 channels, factor 3"),
        (
            ir.PixelUnshuffle(name="a", inputs=("x",), factor=2),
            "a: PixelUnshuffle: resolution x1 is not divisible by 2",
        ),
        (ir.Select(name="a", inputs=("x",), index=(0, 4)), "a: Select: of 4 channels"),
        (ir.Select(name="a", inputs=("x",), index=()), "a: Select: of 4 channels"),
        (ir.Clamp(name="a", inputs=("x",), low=1.0, high=0.0), "a: Clamp: bounds 1.0 > 0.0"),
        (ir.Clamp(name="a", inputs=("x",), low=INF, high=INF), "a: Clamp: bounds inf, inf leave no number"),
        (ir.Clamp(name="a", inputs=("x",), low=-INF, high=-INF), "a: Clamp: bounds -inf, -inf leave no number"),
        (ir.PRelu(name="a", inputs=("x",), slope=torch.zeros(3)), "a: PRelu: 3 slopes for 4 channels"),
        (
            ir.Affine(name="a", inputs=("x",), scale=torch.ones(4), shift=torch.ones(1)),
            "a: Affine: does not fit 4 channels",
        ),
        (
            ir.ConvTranspose2d(
                name="a", inputs=("x",), weight=torch.zeros(4, 1, 3, 3), bias=torch.zeros(1), stride=2, padding=0
            ),
            "a: ConvTranspose2d: kernel 3, stride 2, padding 0 change the size",
        ),
        (
            ir.Relu(name="a", inputs=("x",), meaning=(ir.Meaning("value", (0, 1), "x", (0, 1)),)),
            "a: Relu: 2 of 4 have a meaning",
        ),
        (
            ir.BlockConv2d(
                name="a",
                inputs=("x",),
                channels_in=4,
                kernel_size=3,
                blocks=(ir.Block(0, 3, torch.zeros(1, 2, 1, 1)),),
                bias=torch.zeros(1),
            ),
            "a: BlockConv2d: a block sticks out of the kernel",
        ),
    ],
)
def test_what_does_not_fit_is_refused(op: ir.Op, message: str) -> None:
    with pytest.raises(InvalidGraph, match=f"^{re.escape(message)}$"):
        ir.Graph((X, op), op.name)


def test_operands_of_different_types_are_refused() -> None:
    up = ir.PixelShuffle(name="up", inputs=("x",), factor=2)
    for op, message in (
        (ir.Sum(name="a", inputs=("x", "up")), "a: Sum: operands differ: 4 at x1, 1 at x2"),
        (ir.Concat(name="a", inputs=("x", "up")), "a: Concat: operands differ in resolution"),
        (ir.Maximum(name="a", inputs=("x", "up")), "a: Maximum: operands differ"),
    ):
        with pytest.raises(InvalidGraph, match=f"^{re.escape(message)}$"):
            ir.Graph((X, up, op), "a")
    with pytest.raises(InvalidGraph, match="the output y is not computed"):
        ir.Graph((X,), "y")


def test_a_graph_cannot_be_changed() -> None:
    graph = ir.Graph((X, conv("a", "x")), "a")
    with pytest.raises(FrozenInstanceError):
        graph.output = "x"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        X.channels = 3  # type: ignore[misc]
    with pytest.raises(Exception, match=r"[Ff]rozen"):
        graph.structure.add_node("b")


def test_text() -> None:
    ops = (X, ir.Select(name="s", inputs=("x",), index=(0, 1, 3, 3)), conv("a", "s"), ir.Relu(name="r", inputs=("a",)))
    assert (
        ir.Graph(ops, "r").text()
        == """\
x: 4x1 = Input(channels=4, low=0.0, high=1.0)
s: 4x1 = Select(x, index=0:2,3,3)
a: 4x1 = Conv2d(s, weight=4x4x3x3, bias=4, groups=1, dilation=1)
r: 4x1 = Relu(a)
return r
"""
    )


def test_hash_knows_weights_and_wiring_but_no_names() -> None:
    def graph(first: str, operand: str, weight: float, low: float = 0.0) -> ir.Graph:
        a = replace(conv(first, "x"), weight=torch.full((4, 4, 3, 3), weight))
        return ir.Graph((replace(X, low=low), a, ir.Sum(name="s", inputs=(first, operand))), "s")

    reference = graph("a", "x", 1.0).sha256()
    assert graph("other", "x", 1.0).sha256() == reference
    others = {graph("a", "a", 1.0).sha256(), graph("a", "x", 2.0).sha256(), graph("a", "x", 1.0, -1.0).sha256()}
    assert len(others | {reference}) == 4


def test_meanings_move_with_their_channels() -> None:
    meaning = ir.Meaning("value", (2, 3, -1), "t", (7, 8, 9))
    assert meaning.renumber({2: 0}) == ir.Meaning("value", (0, -1), "t", (7, 9))
    assert meaning.renumber({3: -1, 2: 5}) == ir.Meaning("value", (5, -1, -1), "t", (7, 8, 9))
    assert ir.Meaning("one", (1,)).renumber({1: 0}) == ir.Meaning("one", (0,))


@pytest.mark.parametrize("seed", range(20))
def test_helpers_of_passes(seed: int) -> None:
    graph = trace(random_network(seed)).graph
    assert replace_ops(graph, lambda op: [op]).text() == graph.text()
    dead = ir.Graph((*graph.ops, ir.Relu(name="dead", inputs=(graph.output,))), graph.output)
    assert without_unused(dead).text() == without_unused(graph).text()
