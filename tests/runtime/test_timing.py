"""Plain networks are timed on the image that they are told."""

from __future__ import annotations

import pytest

from memsr_compiler.errors import InvalidInput
from memsr_compiler.runtime.timing import make_timer
from memsr_compiler.student.widths.latency import random_stack

SHAPES = [(32, 3, 3, 3), *[(32, 32, 3, 3)] * 3, (12, 32, 3, 3)]


def test_a_larger_image_takes_longer() -> None:
    timer = make_timer("cpu", threads=1, rounds=2)
    net = random_stack(SHAPES, 2)
    small, large = timer(net, (16, 8)), timer(net, (160, 160))
    assert 0 < small < large  # 200 times the work


def test_a_provider_that_is_none() -> None:
    with pytest.raises(InvalidInput, match="want one of cpu"):
        make_timer("tpu")  # type: ignore[arg-type]
