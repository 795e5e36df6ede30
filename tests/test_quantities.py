"""Quantities as people write them, wherever the library takes a number of things or of bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memsr_compiler.errors import InvalidInput
from memsr_compiler.quantities import count, say_count, size_in_bytes


@pytest.mark.parametrize(
    ("amount", "bytes_"),
    [
        ("24MB", 24_000_000),
        ("24 mb", 24_000_000),
        ("64MiB", 64 << 20),
        ("1.5GB", 1_500_000_000),
        (".5kib", 512),
        ("1e3", 1000),
        ("7", 7),
        (7, 7),
        (7.0, 7),
        (np.int64(7), 7),
    ],
)
def test_sizes(amount: Any, bytes_: int) -> None:
    size = size_in_bytes("max_memory", amount)
    assert size == bytes_ and type(size) is int


@pytest.mark.parametrize(("amount", "number"), [("1.2M", 1_200_000), ("3G", 3 * 10**9), ("800k", 800_000), (5, 5)])
def test_counts(amount: Any, number: int) -> None:
    assert count("max_params", amount) == number


@pytest.mark.parametrize(
    "wrong", ["", "MB", "24 M B", "24XB", "-3", "0", "0.4", 0, -5, 1.5, None, [3], float("nan"), float("inf"), "1e400"]
)
def test_what_is_no_size(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^max_memory .*: want a whole number from 1 up, or a size such as 40MB"):
        size_in_bytes("max_memory", wrong)


def test_bytes_are_no_count() -> None:
    with pytest.raises(InvalidInput, match=r"max_params '24MB': want .* or a number such as 800000, 1\.2M or 3G"):
        count("max_params", "24MB")


def test_one_thing_is_no_several() -> None:
    assert [say_count(number, "frame") for number in (0, 1, 2, 1234)] == [
        "0 frames",
        "1 frame",
        "2 frames",
        "1,234 frames",
    ]
    assert [say_count(number, "batch", "batches") for number in (1, 2)] == ["1 batch", "2 batches"]
