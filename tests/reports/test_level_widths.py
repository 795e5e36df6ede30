"""Bars of what levels hold."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from memsr_compiler.reports.level_contents import HOLDS, Bar
from memsr_compiler.reports.level_widths import draw_widths


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
