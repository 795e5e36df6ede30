"""Places of ops in a drawing."""

from __future__ import annotations

import pytest
import torch
from helpers.drawn_graphs import SKIP, conv

from memsr_compiler.ir import Carry, Graph, Input, Relu, Sum
from memsr_compiler.reports.graph_layout import find_arcs, place_columns, place_lanes
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.rdn import RDN
from memsr_compiler.trace.trace import trace

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
    column = place_columns(graph)
    lane = place_lanes(graph, column)
    assert all(column[i] < column[op.name] for op in graph for i in op.inputs)
    assert len({(column[name], lane[name]) for name in column}) == len(graph.ops)


def test_a_chain_is_straight_and_its_skip_an_arc() -> None:
    column = place_columns(SKIP)
    lane = place_lanes(SKIP, column)
    assert [column[op.name] for op in SKIP] == [0, 1, 2, 3, 4, 5]
    assert set(lane.values()) == {0}
    assert find_arcs(SKIP, column, lane) == {("x", "s")}


def test_what_ends_a_layer_stands_in_one_column_and_a_carry_in_its_own_lane() -> None:
    column = place_columns(CARRIED)
    lane = place_lanes(CARRIED, column)
    assert column["x@1"] == column["r"] == 2
    assert (lane["r"], lane["x@1"]) == (0, 1)
    assert find_arcs(CARRIED, column, lane) == set()
