"""How many of torch's threads work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """One while it lasts, or while what it decorates runs.

    Reading, compiling and checking are very many operations on few numbers each.  More threads gain nothing there,
    and where the processor has other work too, each operation waits until the last of them has had its turn: minutes
    instead of seconds.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
