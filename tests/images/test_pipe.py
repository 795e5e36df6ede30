"""Items that are read ahead: the same, in time, and nothing stays behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from memsr_compiler.images.pipe import read_ahead


def test_items_are_the_same_and_the_next_is_made_meanwhile() -> None:
    made = threading.Semaphore(0)
    threads = set()

    def items() -> Iterator[int]:
        for i in range(5):
            threads.add(threading.current_thread())
            made.release()
            yield i

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert made.acquire(timeout=10) and made.acquire(timeout=10)  # the second one, while the first is worked on
    assert list(ahead) == [1, 2, 3, 4] and list(read_ahead(iter(()))) == []
    assert threading.current_thread() not in threads


def test_what_is_raised_comes_behind_what_was_made() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(ahead)


def test_who_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    ahead = read_ahead(iter(range(1000)))
    assert next(ahead) == 0
    ahead.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
