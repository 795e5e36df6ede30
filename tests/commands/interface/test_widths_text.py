"""The text of widths: repeated groups are said once."""

from __future__ import annotations

import pytest

from memsr_compiler.commands.interface.output import repeated_group, widths_text


@pytest.mark.parametrize(
    ("widths", "text"),
    [
        ([], ""),
        ([3], "3"),
        ([3, 64, 64, 12], "3, 64, 64, 12"),  # 'x 2' would be no shorter
        ([3, 64, 64, 64, 12], "3, 64 x 3, 12"),
        ([3, 128, *[192, 256] * 15, 12], "3, 128, (192, 256) x 15, 12"),
        ([1, 2, 1, 2], "(1, 2) x 2"),
        ([1, 2, 3] * 4 + [1, 2], "(1, 2, 3) x 4, 1, 2"),
        ([3, *[8, *[1, 2] * 2, 9] * 5, 4], "3, (8, (1, 2) x 2, 9) x 5, 4"),
        ([5, 5, 5, 6] * 3, "(5 x 3, 6) x 3"),
        ([7] * 6, "7 x 6"),  # not (7, 7, 7) x 2
    ],
)
def test_repeated_groups_are_said_once(widths: list[int], text: str) -> None:
    assert widths_text(widths) == text


def test_the_group_that_covers_most() -> None:
    assert repeated_group([1, 2, 1, 2, 3, 1, 2, 1, 2, 3], 0) == (5, 2)
    assert repeated_group([1, 2, 1, 2, 3], 0) == (2, 2)
    assert repeated_group([1, 2, 1, 2, 3], 1) == (1, 1)
    assert repeated_group(range(9), 0) == (1, 1)


def test_a_large_network_takes_a_line() -> None:
    """RRDBNet, 23 blocks of three dense blocks."""
    block = [136, 200, 232, 264, 296, *[200, 264, 296, 328, 360] * 2]
    text = widths_text([3, 72, *block * 23, 136, 2056, 2056, 48])
    assert text == "3, 72, (136, 200, 232, 264, 296, (200, 264, 296, 328, 360) x 2) x 23, 136, 2056, 2056, 48"
