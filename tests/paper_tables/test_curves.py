"""Figure 6: lines, their names beside them, and nothing on top of anything."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

from paper.curves import FLOOR, LINE, TOP, Curve, draw_curves, spread

CURVES = (
    Curve("first", ((0, 25.0), (50, 33.9), (100, 34.0))),
    Curve("first, balanced", ((0, 30.0), (50, 33.0), (100, 33.5)), dashed=True),
    Curve("<second>", ((0, 12.0), (50, 28.0))),
)


def test_names_are_a_line_apart_and_above_the_floor() -> None:
    assert spread([50.0, 100.0]) == [50.0, 100.0]
    assert spread([50.0, 51.0, 52.0]) == [50.0, 50.0 + LINE, 50.0 + 2 * LINE]
    crowded = spread([float(FLOOR)] * 5)
    assert crowded[-1] == FLOOR
    assert all(below - above == LINE for above, below in itertools.pairwise(crowded))


def test_a_line_for_each_run_dashed_in_the_colour_of_its_pair() -> None:
    drawing = ET.fromstring(draw_curves(CURVES, "Figure 6"))
    first, balanced, second = drawing.findall(".//{*}polyline")
    assert first.get("stroke") == balanced.get("stroke") != second.get("stroke")
    assert [line.get("stroke-dasharray") for line in (first, balanced, second)] == [None, "4 3", None]
    words = [text.text for text in drawing.findall(".//{*}text")]
    assert words[-3:] == ["first: 34.00", "first, balanced: 33.50", "<second>: 28.00"]
    assert str(first.get("points")).endswith(f",{TOP:.1f}")  # 34 dB is the highest
    assert str(second.get("points")).endswith(f",{FLOOR:.1f}")  # 28 dB is where the lowest ends


def test_runs_that_ended_at_once_are_drawn_too() -> None:
    assert "only: 9.00" in draw_curves([Curve("only", ((0, 9.0),))], "Figure 6")
