"""Times of packets: rising where they are decoded, never after they are shown."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("av", reason="films need the extra [video]")

from memsr_compiler.video.join import choose_decode_times


def test_packets_in_the_order_of_frames_are_decoded_when_they_are_shown() -> None:
    assert choose_decode_times([0, 40, 90], [0, 1, 2], 40) == [0, 40, 90]


def test_one_frame_is_enough_to_wait_for_where_one_comes_before_its_turn() -> None:
    assert choose_decode_times([0, 40, 80, 120], [0, 2, 1, 3], 40) == [-40, 0, 40, 80]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_any_order(steps: list[int], chance: object) -> None:
    times = [sum(steps[: i + 1]) for i in range(len(steps))]
    order = list(range(len(times)))
    chance.shuffle(order)  # type: ignore[attr-defined]
    decoded = choose_decode_times(times, order, 7)
    assert len(decoded) == len(order) and all(a < b for a, b in itertools.pairwise(decoded))
    assert all(at <= times[number] for at, number in zip(decoded, order, strict=True))
