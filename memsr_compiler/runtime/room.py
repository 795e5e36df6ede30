"""Memory that a run of a module takes, counted before it runs, and how much of it there is.

The module is run on tensors without values (torch's device "meta"): every result that is alive counts, from when it
is made to when nothing holds it any more.  What an operation takes inside is not seen, so a run takes at least that.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.info import Takes
from memsr_compiler.torch_helpers import copy_module, list_weights, prepare

SMALL = 1 << 16
"""Pixels of an image for which nothing is counted: that takes longer, and no network that is run here takes a GiB."""

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all results that are alive, and the most that there were.

    outside   tensors that are there before the run
    """

    def __init__(self, outside: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive: Any = WeakIdKeyDictionary()
        for tensor in outside:
            self._alive[tensor.untyped_storage()] = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._alive.setdefault(storage, storage.nbytes())
        self.peak = max(self.peak, sum(self._alive.values()))
        return result


def least_memory(module: nn.Module, shape: tuple[int, ...]) -> int | None:
    """Bytes of all results that are alive at the worst moment of a run in float32; None where that cannot be told.

    shape   of the image: (N, C, H, W); the image itself does not count
    """
    network = prepare(copy_module(module, torch.float32), "meta")
    image = torch.empty(shape, device="meta")
    ledger = _Ledger((image, *list_weights(network).values()))
    try:
        with torch.no_grad(), ledger:
            network(image)
    except Exception:  # of a network that looks at values, say
        return None
    return ledger.peak


def available_memory(device: str = "cpu") -> int | None:
    """Bytes that can be had without another program's losing any; None where the system does not say."""
    if device != "cpu":
        return torch.cuda.mem_get_info(device)[0]
    known = [amount for amount in (_system_memory(), _group_memory(), _address_space()) if amount is not None]
    return min(known, default=None)


def require_memory(module: nn.Module, shape: tuple[int, ...], device: str = "cpu") -> None:
    """Raise InvalidInput, with how much it takes, where a run takes more memory than there is."""
    height, width = shape[-2:]
    if height * width > SMALL and (there := available_memory(device)) is not None:
        _compare(type(module).__name__, least_memory(module, shape) or 0, there, width, height)


def require_room(
    name: str,
    takes: Takes,
    size: tuple[int, int],
    *,
    live: int = 0,
    item_bytes: tuple[int, int] = (4, 4),
    device: str = "cpu",
) -> None:
    """The same for a network in an engine that cannot be asked: its image and result, or its live feature maps.

    size        width and height of its image
    live        values a pixel of that which it holds at the worst moment, at least
    item_bytes  of the values that it takes and gives, and of those between its layers
    """
    width, height = size
    seen = device == "cpu" or torch.cuda.is_available()  # an engine may have a GPU that torch does not know
    if width * height > SMALL and seen and (there := available_memory(device)) is not None:
        ends = takes.channels * (1 + takes.scale**2) * item_bytes[0]
        _compare(name, max(ends, live * item_bytes[1]) * width * height, there, width, height)


def _compare(name: str, needed: int, there: int, width: int, height: int) -> None:
    if needed > there:
        raise InvalidInput(
            f"{name} takes at least {needed / 2**30:,.1f} GiB of memory for an image of {width}x{height}, and "
            f"{there / 2**30:,.1f} GiB are free; give smaller images, a smaller --size say, or more memory"
        )


def _system_memory() -> int | None:
    try:
        lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        return sum(int(lines[key].split()[0]) for key in ("MemAvailable", "SwapFree")) << 10
    except (OSError, KeyError, ValueError):
        return None


def _group_memory() -> int | None:
    """Bytes that a container may still take; its cache of files is given back when it is needed."""
    try:
        limit, taken = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        return max(limit - taken + int(statistics["inactive_file"]), 0)
    except (OSError, KeyError, ValueError):  # "max": no limit
        return None


def _address_space() -> int | None:
    """Bytes that `ulimit -v` leaves."""
    if sys.platform == "win32":
        return None
    import resource  # which Windows has not

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return None
    return None if limit == resource.RLIM_INFINITY else max(limit - taken, 0)
