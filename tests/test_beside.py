"""Threads beside the network: order, room, errors, and that they end."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from memsr_compiler.beside import ReadAhead, WriteBehind, read_ahead


def write(work: Callable[[int], None], number: int, interrupt: BaseException | None = None) -> None:
    with WriteBehind(work, 1) as behind:
        for i in range(number):
            behind.put(i)
        if interrupt is not None:
            raise interrupt


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in ("reading ahead", "writing behind")]


def test_items_come_in_order_and_no_more_than_there_is_room_for() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    with ReadAhead(make(), 2) as ahead:
        read = []
        for item in ahead:
            time.sleep(0.005)
            read.append(item)
            assert len(made) - len(read) <= 3 + 1  # waiting, in the thread's hands, and the one that was just made
    assert read == list(range(20)) and running() == []


def test_an_error_of_the_reader_is_raised_where_its_item_would_be() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    read = []
    with pytest.raises(ValueError, match="no more"), ReadAhead(make(), 2) as ahead:
        read += list(ahead)
    assert running() == []


def test_a_reader_that_nobody_reads_any_more_closes_its_files() -> None:
    closed = threading.Event()

    def make() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    with ReadAhead(make(), 1) as ahead:
        next(iter(ahead))
    assert closed.is_set() and running() == []


def test_work_is_done_in_order_and_to_its_end() -> None:
    done: list[int] = []
    with WriteBehind(done.append, 2) as behind:
        for i in range(10):
            behind.put(i)
    assert done == list(range(10)) and running() == []


def test_an_error_of_the_work_is_raised_once() -> None:
    def work(item: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(work, 10)
    with pytest.raises(OSError, match="disk full"):
        write(work, 1)  # told at the end
    assert running() == []


def test_what_interrupts_lets_the_work_be_completed() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.02)
        done.append(item)

    with pytest.raises(KeyboardInterrupt):
        write(work, 3, KeyboardInterrupt())
    assert done == [0, 1, 2] and running() == []


@pytest.mark.skipif(sys.platform == "win32", reason="waits that Ctrl-C ends")
def test_what_interrupts_twice_leaves_nothing_at_work() -> None:
    """The encoder is its thread's alone until that has ended: nobody else may complete the part meanwhile."""
    done: list[int] = []
    at_work = threading.Event()

    def work(item: int) -> None:
        at_work.set()
        if item == 0:
            threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        time.sleep(0.4)
        done.append(item)
        at_work.clear()

    def interrupt() -> None:
        with WriteBehind(work, 2) as behind:
            for i in range(3):
                behind.put(i)
            at_work.wait()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [0] and not at_work.is_set()


@pytest.mark.parametrize("begin", [lambda: ReadAhead(iter(range(9)), 1), lambda: WriteBehind(print, 1)])
def test_an_interrupt_while_the_thread_begins_leaves_none(
    monkeypatch: pytest.MonkeyPatch, begin: Callable[[], object]
) -> None:
    launch = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        launch(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begin()
    deadline = time.monotonic() + 10
    while running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running() == []


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
