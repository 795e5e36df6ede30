"""Drawings of networks and of widths: where the boxes go, what they say, and that it is well-formed."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
import torch

from memsr_compiler import ir
from memsr_compiler.ir import Carry, Concat, Conv2d, Graph, Input, PixelShuffle, Relu, Sum
from memsr_compiler.reports.graph_svg import (
    DRAWN,
    HOLDS,
    LABELLED,
    Bar,
    arcs,
    beginning,
    columns,
    draw_graph,
    draw_widths,
    kind,
    lanes,
)
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.rdn import RDN
from memsr_compiler.trace.trace import trace


def conv(name: str, x: str, channels: int = 4) -> Conv2d:
    return Conv2d(name=name, inputs=(x,), weight=torch.zeros(channels, channels, 3, 3), bias=torch.zeros(channels))


def chain(count: int) -> Graph:
    names = ["x", *(f"relu{i}" for i in range(count - 1))]
    relus = (Relu(name=b, inputs=(a,)) for a, b in pairwise(names))
    return Graph((Input(name="x", channels=4), *relus), names[-1])


SKIP = Graph(
    (
        Input(name="x", channels=4),
        conv("a", "x"),
        Relu(name="r", inputs=("a",)),
        conv("b", "r"),
        Sum(name="s", inputs=("b", "x")),
        PixelShuffle(name="y", inputs=("s",), factor=2),
    ),
    "y",
)
CARRIED = Graph(
    (
        Input(name="x", channels=4),
        conv("a", "x"),
        Carry(name="x@1", inputs=("x",)),
        Relu(name="r", inputs=("a",)),
        conv("b", "r"),
        Sum(name="s", inputs=("b", "x@1")),
    ),
    "s",
)


@pytest.mark.parametrize(
    "model", [EDSR(scale=2, blocks=2, channels=4), RDN(blocks=2, layers=3, channels=4, growth=4, scale=2)]
)
def test_operands_are_on_the_left_and_no_box_covers_another(model: torch.nn.Module) -> None:
    graph = trace(model, input_range=(0.0, 1.0)).graph
    column = columns(graph)
    lane = lanes(graph, column)
    assert all(column[i] < column[op.name] for op in graph for i in op.inputs)
    assert len({(column[name], lane[name]) for name in column}) == len(graph.ops)


def test_a_chain_is_straight_and_its_skip_an_arc() -> None:
    column = columns(SKIP)
    lane = lanes(SKIP, column)
    assert [column[op.name] for op in SKIP] == [0, 1, 2, 3, 4, 5]
    assert set(lane.values()) == {0}
    assert arcs(SKIP, column, lane) == {("x", "s")}


def test_what_ends_a_layer_stands_in_one_column_and_a_carry_in_its_own_lane() -> None:
    column = columns(CARRIED)
    lane = lanes(CARRIED, column)
    assert column["x@1"] == column["r"] == 2
    assert (lane["r"], lane["x@1"]) == (0, 1)
    assert arcs(CARRIED, column, lane) == set()


def test_a_drawing_is_well_formed_and_names_every_op() -> None:
    root = ElementTree.fromstring(draw_graph(SKIP, label="skip").svg())
    titles = [title.text or "" for title in root.iter("title")]
    assert [title.split("\n")[0] for title in titles] == [op.name for op in SKIP]
    assert titles[1] == "a\nConv2d, 4 channels\nkernel 4×4×3×3\nof x"
    assert titles[5] == "y\nPixelShuffle, 1 channels at 2 times the input's size\nof s"
    assert [text.text for text in root.iter("text")][:4] == ["in", "4", "3×3", "4"]
    assert root.get("aria-label") == "skip"


def test_names_are_escaped() -> None:
    name = "<script>\"'&\ud800"
    graph = Graph((Input(name=name, channels=1), Relu(name="r", inputs=(name,))), "r")
    root = ElementTree.fromstring(draw_graph(graph, label=name).svg())
    assert next(root.iter("title")).text == "<script>\"'&?\nInput, 1 channels"
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
    assert len(beginning(chain(DRAWN + 5), DRAWN).ops) == DRAWN
    assert beginning(SKIP, DRAWN) is SKIP


def test_every_op_has_a_kind() -> None:
    def all_ops(base: type[ir.Op]) -> set[type[ir.Op]]:
        return {base, *(op for sub in base.__subclasses__() for op in all_ops(sub))}

    for op in all_ops(ir.Op) - {ir.Op, ir.Conv2d}:
        kind(object.__new__(op))
    pointwise = Conv2d(name="p", inputs=("x",), weight=torch.zeros(1, 1, 1, 1), bias=torch.zeros(1))
    assert kind(pointwise) != kind(conv("c", "x"))


def test_bars_are_as_tall_as_levels_are_wide() -> None:
    bars = [
        Bar("input", ((HOLDS[0], 3, "x"),)),
        Bar("after layer 1", (("ReLU output", 64, "a<b"), ("padding", 36, ""))),
    ]
    root = ElementTree.fromstring(draw_widths(bars, label="widths").svg())
    heights = [float(rect.get("height", "")) for rect in root.iter("rect")]
    assert [round(h / heights[1] * 64) for h in heights] == [3, 64, 36]
    titles = [title.text for title in root.iter("title")]
    assert titles[1:] == [
        "after layer 1: 64 channels, ReLU output\na<b",
        "after layer 1: 36 channels, padding",
    ]
    assert {"3", "100", "1", "input"} <= {text.text for text in root.iter("text")}


@pytest.mark.parametrize("width", [1, 3, 4, 7, 99, 12345])
def test_any_width_can_be_drawn(width: int) -> None:
    ElementTree.fromstring(draw_widths([Bar("input", ((HOLDS[0], width, ""),))], label="").svg())
