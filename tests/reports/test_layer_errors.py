"""Errors as two lines: drawn whatever the numbers are."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from memsr_compiler.reports.layer_errors import draw_errors


@pytest.mark.parametrize("rows", [[("1", 0.0, 0.0)], [("1", math.nan, math.inf)], [("1", 1e-9, 2e-9), ("2", 0.9, 1.0)]])
def test_any_errors_can_be_drawn(rows: list[tuple[str, float, float]]) -> None:
    root = ElementTree.fromstring(draw_errors(rows, label="").svg())
    known = sum(math.isfinite(value) for _, *values in rows for value in values)
    assert len(list(root.iter("circle"))) == known
    assert all(0 <= float(dot.get("cy", "")) <= 200 for dot in root.iter("circle"))
