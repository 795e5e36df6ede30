"""Runs of programs that end before they have made many gigabytes, or computed for minutes.

A file of a few kilobytes can ask for either.  What operations make whose results values decide (`nonzero`) is no more
than they read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from memsr_compiler.errors import InvalidInput
from memsr_compiler.torch_helpers import is_whole

_MOST = 1 << 30
"""Numbers that all operations of a run make and read: 4 GiB in float32 of either, at most, if none are given up."""
_MOST_SUMS = 1 << 40
"""Products and sums in matrix products and convolutions, and numbers that pools look at."""

_A, _P = torch.ops.aten, torch.ops.prims
DIVIDING = frozenset((
    _A.div, _A.div_, _A.divide, _A.divide_, _A.floor_divide, _A.floor_divide_, _A.remainder, _A.remainder_, _A.fmod,
    _A.fmod_, _P.div, _P.remainder, _P.fmod,
))  # fmt: skip
"""Of whole numbers, the least by -1 ends the process: it has no quotient."""


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
    """Raises TooMany before an operation makes too many numbers: their shapes are computed first, without any.

    InvalidInput before one divides whole numbers that have no quotient, which would end the process.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shapes = FakeTensorMode()
        self._left, self._sums_left = _MOST, _MOST_SUMS

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in DIVIDING:
            _require_quotients(func, (*args, *kwargs.values())[:2])
        if not func.is_view:
            numbers, sums = self._count(func, args, kwargs)
            self._left -= numbers
            self._sums_left -= sums
            if min(self._left, self._sums_left) < 0:
                raise TooMany(func._schema.name.partition("::")[2], numbers if self._left < 0 else sums)
        return func(*args, **kwargs)

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
        """Count the numbers that an operation reads and makes, and the products and sums that it takes.

        Where values decide what it makes, that is no more than what it reads.
        """
        args, kwargs = tree_map_only(Tensor, self._shapes.from_tensor, (args, kwargs))
        read = _count_numbers((args, kwargs))
        try:
            with self._shapes, in_silence():
                made = func(*args, **kwargs)
            count = flop_registry.get(func.overloadpacket)
            sums = _count_looks(func, args, made) if count is None else int(count(*args, **kwargs, out_val=made))
            return read + _count_numbers(made), sums
        except Exception:  # what torch itself raises, the run will
            return read, 0


@contextmanager
def in_silence() -> Iterator[None]:
    """Keep to itself what torch logs, with a traceback, of shapes that do not fit; it raises it, too."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    was = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = was


def _require_quotients(func: Any, operands: tuple[Any, ...]) -> None:
    dividend, divisor = (torch.as_tensor(operand) for operand in operands)
    if not (is_whole(dividend) and is_whole(divisor)) or dividend.dtype == torch.bool:
        return
    if bool((divisor == -1).any()) and bool((dividend == torch.iinfo(dividend.dtype).min).any()):
        name = func._schema.name.partition("::")[2]
        raise InvalidInput(f"its operation {name} divides the least whole number by -1; it is damaged")


def _count_looks(func: Any, args: tuple[Any, ...], made: Any) -> int:
    """Count the numbers that a pool looks at, a kernel for each that it makes; 0 of what has no kernel."""
    named = zip(func._schema.arguments, args, strict=False)
    kernel = next((value for argument, value in named if argument.name == "kernel_size"), ())
    return math.prod(kernel) * _count_numbers(made) if kernel else 0


def _count_numbers(tensors: Any) -> int:
    return sum(leaf.numel() for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor))
