"""Axes of charts."""

from __future__ import annotations

import pytest

from memsr_compiler.reports.axes import choose_step, choose_whole_step


def test_grid_lines_are_round_and_about_five() -> None:
    for highest in (0.0021, 0.4, 1.0, 7.3, 99.0, 12345.0):
        each = choose_step(highest)
        assert 1 <= highest / each <= 5
        assert float(f"{each:.0e}") == pytest.approx(each, rel=1e-12)
    assert [choose_whole_step(n) for n in (1, 3, 4, 7, 99, 250)] == [1, 1, 1, 2, 20, 50]
