"""How many of torch's threads work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def some_threads(count: int | None) -> Iterator[None]:
    """So many while it lasts; None: as many as there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """One while it lasts, or while what it decorates runs.

    Reading, compiling and checking are very many operations on few numbers each.  More threads gain nothing there,
    and where the processor has other work too, each operation waits until the last of them has had its turn: minutes
    instead of seconds.
    """
    with some_threads(1):
        yield
