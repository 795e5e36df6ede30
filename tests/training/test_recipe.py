"""Recipes: what is not possible is told."""

from __future__ import annotations

import pytest

from memsr_compiler.errors import InvalidInput
from memsr_compiler.training.recipe import Recipe


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"rate": float("nan")}, {"warm_up": 1.0}, {"average": 1.0}, {"steps": 0}, {"clip": -1.0}]
)
def test_recipes_that_are_none(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        Recipe(**wrong)  # type: ignore[arg-type]


def test_a_batch_is_shared_equally_or_not_at_all() -> None:
    assert Recipe(batch=6).share_of(3) == 2
    with pytest.raises(InvalidInput, match="a batch of 6 patches cannot be shared by 4 processes equally"):
        Recipe(batch=6).share_of(4)
