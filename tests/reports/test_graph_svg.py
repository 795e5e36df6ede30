"""Drawings of networks: what the boxes say, and that they are well-formed."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import torch
from helpers.drawn_graphs import SKIP, conv

from memsr_compiler import ir
from memsr_compiler.ir import Concat, Conv2d, Graph, Input, Relu
from memsr_compiler.reports.graph_layout import take_beginning
from memsr_compiler.reports.graph_svg import DRAWN, LABELLED, classify_op, draw_graph


def chain(count: int) -> Graph:
    names = ["x", *(f"relu{i}" for i in range(count - 1))]
    relus = (Relu(name=b, inputs=(a,)) for a, b in pairwise(names))
    return Graph((Input(name="x", channels=4), *relus), names[-1])


def test_a_drawing_is_well_formed_and_names_every_op() -> None:
    root = ElementTree.fromstring(draw_graph(SKIP, label="skip").svg())
    titles = [title.text or "" for title in root.iter("title")]
    assert [title.split("\n")[0] for title in titles] == [op.name for op in SKIP]
    assert titles[1] == "a\nConv2d, 4 channels\nkernel 4×4×3×3\nof x"
    assert titles[5] == "y\nPixelShuffle, 1 channel at 2 times the input's size\nof s"
    assert [text.text for text in root.iter("text")][:4] == ["in", "4", "3×3", "4"]
    assert root.get("aria-label") == "skip"


def test_names_are_escaped() -> None:
    name = "<script>\"'&\ud800"
    graph = Graph((Input(name=name, channels=1), Relu(name="r", inputs=(name,))), "r")
    root = ElementTree.fromstring(draw_graph(graph, label=name).svg())
    assert next(root.iter("title")).text == "<script>\"'&?\nInput, 1 channel"
    assert root.get("aria-label") == "<script>\"'&?"


def test_many_operands_are_counted() -> None:
    ops = [conv(f"c{i}", "x") for i in range(9)]
    graph = Graph((Input(name="x", channels=4), *ops, Concat(name="y", inputs=tuple(o.name for o in ops))), "y")
    root = ElementTree.fromstring(draw_graph(graph, label="").svg())
    assert [title.text for title in root.iter("title")][
        -1
    ] == "y\nConcat, 36 channels\nof c0, c1, c2, c3, c4, c5 and 3 more"


def test_a_long_network_is_drawn_small_and_a_very_long_one_in_part() -> None:
    small = ElementTree.fromstring(draw_graph(chain(LABELLED + 1), label="").svg())
    assert not list(small.iter("text"))
    assert len(list(small.iter("title"))) == LABELLED + 1
    assert len(take_beginning(chain(DRAWN + 5), DRAWN).ops) == DRAWN
    assert take_beginning(SKIP, DRAWN) is SKIP


def test_every_op_has_a_kind() -> None:
    def all_ops(base: type[ir.Op]) -> set[type[ir.Op]]:
        return {base, *(op for sub in base.__subclasses__() for op in all_ops(sub))}

    for op in all_ops(ir.Op) - {ir.Op, ir.Conv2d}:
        classify_op(object.__new__(op))
    pointwise = Conv2d(name="p", inputs=("x",), weight=torch.zeros(1, 1, 1, 1), bias=torch.zeros(1))
    assert classify_op(pointwise) != classify_op(conv("c", "x"))
