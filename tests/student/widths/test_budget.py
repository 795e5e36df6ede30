"""Widths as they are told, or by theta."""

from __future__ import annotations

from functools import partial

import pytest

from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.statistics.survey import Survey, eq15_error, spectrum
from memsr_compiler.student.widths.budget import Budget, choose_widths
from memsr_compiler.student.widths.share_limit import narrow_stepwise, output_errors


def test_theta_is_the_smallest_width_below_the_error(seen: tuple[LeveledTeacher, Survey]) -> None:
    levels, features = seen
    widths = choose_widths(levels, features, Budget(theta=0.1), 1)
    for width, moments in zip(widths, features.features, strict=True):
        assert eq15_error(spectrum(moments).square(), width) < 0.1
        assert width == 1 or eq15_error(spectrum(moments).square(), width - 1) >= 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "in one way, not nothing"),
        ({"theta": 0.1, "width": 8}, "theta and width"),
        ({"theta": 0.0}, "between 0 and 1"),
        ({"theta": 1.0}, "between 0 and 1"),
        ({"width": 8, "size": (0, 5)}, "has no pixel"),
        ({"width": 8, "size": 5}, r"want \(width, height\)"),
        ({"width": 0}, "a width of 0 is no layer"),
        ({"width": 8.0}, "width=8.0: want a whole number, not float"),
        ({"width": True}, "want a whole number"),
        ({"widths": (8, -1)}, "a width of -1 is no layer"),
        ({"widths": 8}, "widths=8: want a list"),
        ({"theta": "0.1"}, "theta='0.1': want a number"),
        ({"theta": float("nan")}, "want a number"),
        ({"max_params": -1}, "leaves room for no student"),
        ({"max_memory": 1e6}, "want a whole number"),
    ],
)
def test_budgets_that_are_none(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Budget(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 1000}, "a width of 1000 is not between 1 and"),
        ({"widths": (8, 8)}, "2 widths are given, and the student has 7"),
        ({"max_params": 10}, r"limit of 10 is below .*: [\d,]+"),
        ({"max_memory": 10}, r"limit of 10 is below .*: [\d,]+"),
    ],
)
def test_budgets_that_cannot_be_met(
    seen: tuple[LeveledTeacher, Survey], options: dict[str, object], message: str
) -> None:
    levels, features = seen
    budget = Budget(**options)  # type: ignore[arg-type]
    told = budget.limit is None
    widths = (
        partial(choose_widths, levels, features) if told else partial(narrow_stepwise, levels, output_errors(features))
    )
    with pytest.raises(InvalidInput, match=message):
        widths(budget, 8)
