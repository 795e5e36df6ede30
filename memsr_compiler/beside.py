"""Work beside what computes: a thread that reads ahead, one that writes behind, as many items between as is said."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

PATIENCE = 0.1  # seconds, after which a thread that waits looks whether it is still wanted


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made in a thread of its own while the one before is worked on; what that raises is raised.

    At most two are there besides the one that is worked on.
    """
    with ReadAhead(items, 1) as ahead:
        yield from ahead


class ReadAhead(AbstractContextManager["ReadAhead[Item]"], Generic[Item]):
    """The items of an iterator, which runs in a thread of its own, `room` of them ahead at most."""

    def __init__(self, items: Iterator[Item], room: int) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(room)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reading ahead", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # an interrupt: it may have begun all the same
            self._stopped.set()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        while (held := self._queue.get()) is not None:
            if isinstance(held, BaseException):
                raise held
            yield held[0]

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put((item,)):
                    break
            close = getattr(self._items, "close", None)
            if close is not None:  # a generator, whose files are closed where they were opened
                close()
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, held: tuple[Item] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(held, timeout=PATIENCE)
                return True
            except queue.Full:
                continue
        return False


class WriteBehind(AbstractContextManager["WriteBehind[Item]"], Generic[Item]):
    """Work on items that is done in a thread of its own, in their order, `room` of them waiting at most."""

    def __init__(self, work: Callable[[Item], None], room: int) -> None:
        self._work = work
        self._queue: queue.Queue[tuple[Item] | None] = queue.Queue(room)
        self._error: BaseException | None = None
        self._over = threading.Event()  # a join that is interrupted may take the thread for one that has ended
        self._thread = threading.Thread(target=self._write, name="writing behind", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._queue.put(None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do what has been put; an error of the work is raised where there is no other.

        What interrupts that lets go of what waits; what is at work comes to its end, and nothing is at work afterwards.
        """
        try:
            self._finish()
        except BaseException:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
            self._finish()
            raise
        if error is None and self._error is not None:
            raise self._error

    def put(self, item: Item) -> None:
        """Raises what the work on an earlier item has raised."""
        self._offer((item,))
        if self._error is not None:
            raise self._error

    def _finish(self) -> None:
        self._offer(None)
        self._over.wait()
        self._thread.join()

    def _offer(self, held: tuple[Item] | None) -> None:
        while self._error is None:
            try:
                self._queue.put(held, timeout=PATIENCE)
                return
            except queue.Full:
                continue

    def _write(self) -> None:
        try:
            while (held := self._queue.get()) is not None:
                self._work(held[0])
        except BaseException as error:
            self._error = error
        finally:
            self._over.set()
