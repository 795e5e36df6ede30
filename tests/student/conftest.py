"""A teacher, surveyed, for several tests of students."""

from __future__ import annotations

import pytest
from helpers.levels import CALIBRATION, leveled

from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.statistics.survey import Survey, survey


@pytest.fixture(scope="session")
def seen() -> tuple[LeveledTeacher, Survey]:
    """A small teacher, and the survey of it."""
    levels = leveled()
    return levels, survey(levels, CALIBRATION)
