"""What a network takes, as a person tells it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memsr_compiler import Takes
from memsr_compiler.errors import InvalidInput


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "scale=0: want 2, 3 or 4"),
        (("2",), "scale='2': want a whole number, not str"),
        ((float("nan"),), "scale=nan: want a whole number"),
        ((True,), "scale=True: want a whole number"),
        ((2, 0), "takes 0 channels; photographs have 3"),
        ((2, True), "takes True channels"),
        ((2, [3]), r"takes \[3\] channels"),
        ((2, 3, (1, 0)), "input range 1 0 is empty"),
        ((2, 3, (0, float("nan"))), "input range 0 nan is empty or infinite"),
        ((2, 3, 255), "input_range=255: want the lowest and the highest value"),
    ],
)
def test_what_no_network_takes(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Takes(*arguments)


def test_numbers_of_any_kind_are_kept_as_pythons_own() -> None:
    takes = Takes(np.int64(2), np.int64(3), [0, 255])  # type: ignore[arg-type]
    assert takes == Takes(2, 3, (0.0, 255.0))
    assert repr(takes.scale) == "2" and repr(takes.channels) == "3"
