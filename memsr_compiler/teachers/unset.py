"""Own code that computes with numbers which it draws as it is built, and no checkpoint sets."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from memsr_compiler.errors import InvalidInput
from memsr_compiler.torch_helpers import compiling_nothing, one_thread, walk
from memsr_compiler.trace.kept.held_values import leaving_nothing
from memsr_compiler.trace.samples import possible_channels

_SIDE = 16  # of the image on which networks are compared, in pixels


@dataclass(frozen=True)
class Seen:
    """Results of a network for an image of so many channels, and the tensors that it holds beside its parameters."""

    channels: int
    results: list[Tensor]
    held: dict[str, Tensor]


@compiling_nothing()
@one_thread()  # since several sum in another order
@torch.no_grad()
def see(network: nn.Module) -> Seen:
    """Run a network on an image of the likeliest number of channels that it takes; no results: it takes none."""
    for channels in possible_channels(network):
        image = torch.linspace(0, 1, channels * _SIDE**2).view(1, channels, _SIDE, _SIDE)
        try:
            given = leaving_nothing(network)(image)
        except Exception:  # whatever its own code raises
            continue
        results = [result.detach() for result in tree_leaves(given) if isinstance(result, Tensor)]
        return Seen(channels, results, _list_unset(network))
    return Seen(0, [], {})


def require_all_set(network: nn.Module, again: Seen, arch: str, built: str) -> None:
    """Raises InvalidInput where a network gives another result each time it is built and given the same weights.

    again   of one that was built anew, with the same weights, in the same mode
    built   how that was, in words
    A network that gives another result at each run is left to its reader, which says more.
    """
    first, second = see(network), see(network)
    if differ(first, second) or not differ(first, again):
        return
    unset = (path for path, tensor in first.held.items() if not _is_same(tensor, again.held.get(path, tensor)))
    where = "".join(f" ({path})" for path in islice(unset, 1))
    raise InvalidInput(
        f"--arch {arch}: computes with random numbers that it draws as it is built{where}, and the checkpoint does not "
        f"set: {built}, with the same weights, it gives two results. Keep them as parameters or buffers, modules in an "
        "nn.ModuleList, and compute in forward what is made of weights."
    )


def differ(one: Seen, other: Seen) -> bool:
    """Whether two networks give two results for one image."""
    return one.channels == other.channels and not all(map(_is_same, one.results, other.results))


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other.to(one.dtype), equal_nan=True)


def _list_unset(network: nn.Module) -> dict[str, Tensor]:
    return {
        f"{path}.{name}" if path else name: value
        for path, module in walk(network)
        for name, value in (*vars(module).items(), *module._buffers.items())
        if isinstance(value, Tensor)
    }
