"""Runs of programs that end before they have made many gigabytes, or computed for minutes.

A file of a few kilobytes can ask for either.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

_MOST = 1 << 30
"""Numbers that all operations of a run make and read: 4 GiB in float32 of either, at most, if none are given up."""
_MOST_SUMS = 1 << 40
"""Products and sums in matrix products and convolutions."""


class TooMany(Exception):
    """An operation would read, make or compute more numbers than a run may.

    name      of the operation
    numbers   how many
    """

    def __init__(self, name: str, numbers: int) -> None:
        super().__init__(name, numbers)
        self.name = name
        self.numbers = numbers


class Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises TooMany before an operation makes too many numbers: their shapes are computed first, without any."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shapes = FakeTensorMode()
        self._left, self._sums_left = _MOST, _MOST_SUMS

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not func.is_view:
            numbers, sums = self._count(func, args, kwargs)
            self._left -= numbers
            self._sums_left -= sums
            if min(self._left, self._sums_left) < 0:
                raise TooMany(func._schema.name.partition("::")[2], numbers if self._left < 0 else sums)
        return func(*args, **kwargs)

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
        """How many numbers an operation reads and makes, and how many products and sums it takes.

        Where values decide what it makes, that is no more than what it reads.
        """
        args, kwargs = tree_map_only(Tensor, self._shapes.from_tensor, (args, kwargs))
        read = _count_numbers((args, kwargs))
        try:
            with self._shapes, _in_silence():
                made = func(*args, **kwargs)
            count = flop_registry.get(func.overloadpacket)
            return read + _count_numbers(made), 0 if count is None else int(count(*args, **kwargs, out_val=made))
        except Exception:  # what torch itself raises, the run will
            return read, 0


@contextmanager
def _in_silence() -> Iterator[None]:
    """Keep to itself what torch logs, with a traceback, of shapes that do not fit; it raises it, too."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    was = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = was


def _count_numbers(tensors: Any) -> int:
    return sum(leaf.numel() for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor))
