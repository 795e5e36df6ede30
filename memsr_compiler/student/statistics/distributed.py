"""Statistics over several processes: each takes its share of the batches, and the sums are added up.

Where torch.distributed has not been set up, a share is all and a sum is itself.  Every process ends with the same
numbers, so what follows is computed by all of them alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from memsr_compiler.sharing import count_processes
from memsr_compiler.student.statistics.moments import Moments, Regression

Item = TypeVar("Item")


@contextmanager
def join_processes() -> Iterator[None]:
    """Join the processes that torchrun, or `accelerate launch`, has started, while it lasts; one is alone."""
    several = count_processes() > 1 and not dist.is_initialized()
    if several:
        dist.init_process_group("gloo")
    try:
        yield
    finally:
        if several:
            dist.destroy_process_group()


def _count_joined() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Items that fall to this process."""
    return items if _count_joined() == 1 else items[dist.get_rank() :: _count_joined()]


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of every process's value, which is on the CPU."""
    return _reduce(value, dist.ReduceOp.SUM if dist.is_available() else None)


def min_over_processes(value: Tensor) -> Tensor:
    """Smallest of the processes' values, entry by entry."""
    return _reduce(value, dist.ReduceOp.MIN if dist.is_available() else None)


def sum_moments(own: Moments) -> Moments:
    """Moments of the samples of all processes."""
    if _count_joined() == 1:
        return own
    count = int(sum_over_processes(torch.tensor(own.count)))
    return Moments(count, sum_over_processes(own.total), sum_over_processes(own.products))


def sum_regression(own: Regression) -> Regression:
    """Regression of the samples of all processes."""
    if _count_joined() == 1:
        return own
    return Regression(sum_moments(own.inputs), sum_over_processes(own.total), sum_over_processes(own.cross))


def _reduce(value: Tensor, how: object) -> Tensor:
    if _count_joined() == 1:
        return value
    total = value.detach().clone().contiguous()
    dist.all_reduce(total, op=how)
    return total
