"""A limit is met, and used."""

from __future__ import annotations

from helpers.levels import CALIBRATION

from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.statistics.survey import Survey
from memsr_compiler.student.widths.budget import Budget, full_widths, student_cost
from memsr_compiler.student.widths.forecast import forecast
from memsr_compiler.student.widths.share_limit import propose_widths


def test_a_limit_is_met_and_used(seen: tuple[LeveledTeacher, Survey]) -> None:
    levels, features = seen
    expected = forecast(levels, CALIBRATION, features, 2)
    full = full_widths(levels, 2)
    whole, least = student_cost(levels, full), student_cost(levels, [2] * len(full))
    for share in (0.2, 0.5, 0.9):
        limits = (
            ("max_params", least.parameters + int(share * (whole.parameters - least.parameters))),
            ("max_macs", 200 * (least.macs_per_pixel + int(share * (whole.macs_per_pixel - least.macs_per_pixel)))),
            ("max_memory", least.memory(20, 10) + int(share * (whole.memory(20, 10) - least.memory(20, 10)))),
        )
        for name, limit in limits:
            budget = Budget(size=(10, 20), **{name: limit})  # type: ignore[arg-type]
            for widths in propose_widths(levels, features, expected, budget, 2):
                assert budget.measure(levels, widths) <= limit
                assert all(w % 2 == 0 and 2 <= w <= most for w, most in zip(widths, full, strict=True))
                wider = [[*widths[:i], w + 2, *widths[i + 1 :]] for i, w in enumerate(widths)]
                assert max(budget.measure(levels, w) for w in wider) > limit  # not all of it could be had
