"""Statistics over several processes: each takes its share of the batches, and the sums are added up.

Where torch.distributed has not been set up, a share is all and a sum is itself.  Every process ends with the same
numbers, so what follows is computed by all of them alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from memsr_compiler.student.statistics.moments import Moments, Regression

Item = TypeVar("Item")


@contextmanager
def joined() -> Iterator[None]:
    """While it lasts the processes that torchrun, or `accelerate launch`, has started know each other; one is alone."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if several:
        dist.init_process_group("gloo")
    try:
        yield
    finally:
        if several:
            dist.destroy_process_group()


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Those that fall to this process."""
    return items if _processes() == 1 else items[dist.get_rank() :: _processes()]


def summed(value: Tensor) -> Tensor:
    """Of all processes, on the CPU."""
    return _reduced(value, dist.ReduceOp.SUM if dist.is_available() else None)


def smallest(value: Tensor) -> Tensor:
    """Entry by entry."""
    return _reduced(value, dist.ReduceOp.MIN if dist.is_available() else None)


def moments(own: Moments) -> Moments:
    """Of the samples of all processes."""
    if _processes() == 1:
        return own
    count = int(summed(torch.tensor(own.count)))
    return Moments(count, summed(own.total), summed(own.products))


def regression(own: Regression) -> Regression:
    """Of the samples of all processes."""
    if _processes() == 1:
        return own
    return Regression(moments(own.inputs), summed(own.total), summed(own.cross))


def _reduced(value: Tensor, how: object) -> Tensor:
    if _processes() == 1:
        return value
    total = value.detach().clone().contiguous()
    dist.all_reduce(total, op=how)
    return total
