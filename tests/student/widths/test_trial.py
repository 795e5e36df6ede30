"""Trials on some of the crops."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.levels import edsr, reported, smooth_images

from memsr_compiler.student.crops import batches
from memsr_compiler.student.data_aware import Student, derive_data_aware
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.shrink import shrink
from memsr_compiler.student.statistics.survey import survey
from memsr_compiler.student.widths import trial
from memsr_compiler.student.widths.trial import PREFERENCES


@pytest.mark.parametrize("avoided", PREFERENCES)
def test_as_many_relus_as_come_nearest(monkeypatch: pytest.MonkeyPatch, avoided: float) -> None:
    """Whichever way of choosing them gives the better student of some crops, on others."""
    teacher = LeveledTeacher.of(edsr(), (0.0, 1.0))
    inputs = batches(smooth_images(8), samples=32, crop=16)
    seen, widths = survey(teacher, inputs), (6,) * (len(teacher.levels) - 1)
    derived = derive_data_aware

    def spoilt(*given: Any, preference: float) -> Student:
        """A student whose output is far off, where this is the way to be avoided."""
        student = derived(*given, preference=preference)
        weight, bias = student.kernels[-1]
        return Student((*student.kernels[:-1], (weight, bias + 10 * (preference == avoided))), student.relus)

    monkeypatch.setattr(trial, "derive_data_aware", spoilt)
    assert trial.find_preference(teacher, inputs, seen, widths) != avoided


def test_a_limit_is_spent_on_fewer_layers_where_that_is_nearer() -> None:
    """And on all of them where the limit leaves room for the whole teacher."""
    teacher, inputs = edsr(), smooth_images(6)
    every = len(LeveledTeacher.of(teacher, (0.0, 1.0)).levels)
    small, large = (shrink(teacher, max_params=n, calibration=inputs, refit=0) for n in (4_000, 10**6))
    assert reported(small).cost.parameters <= 4_000 and len(small.layers) < every == len(large.layers)
    assert reported(large).choice is None and reported(small).choice is not None
    kept = shrink(teacher, max_params=8_000, layers=every, calibration=inputs, refit=0)
    assert len(kept.layers) == every and reported(kept).cost.parameters <= 8_000


def test_depths_fall_to_one() -> None:
    assert trial._depths(12) == [12, 9, 7, 5, 4, 3, 2, 1]
    assert trial._depths(1) == [1] and trial._depths(0) == [0]
