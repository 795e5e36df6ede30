"""Amounts and sizes as people write them."""

from __future__ import annotations

import pytest

from memsr_compiler.commands.interface.quantities import WrongValue, parse_bytes, parse_count


@pytest.mark.parametrize(
    ("text", "amount"), [("800000", 800_000), ("1.2M", 1_200_000), ("3G", 3 * 10**9), ("5k", 5_000), ("1e6", 10**6)]
)
def test_counts(text: str, amount: int) -> None:
    assert parse_count(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [("40MB", 40_000_000), ("40 MiB", 40 << 20), ("1.5gb", 1_500_000_000), ("2GiB", 2 << 30), ("7KB", 7000), ("9", 9)],
)
def test_sizes(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "MB", "4 0MB", "-1MB", "inf", "nan", "1e400", "0x10", "٣MB", "1.2.3M", "0.1B"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(WrongValue, match="a size such as 40MB"):
        parse_bytes(text)
