"""Own code that computes with numbers which it draws as it is built, and no checkpoint sets."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.trace.held_values import leaving_nothing
from memsr_compiler.trace.samples import possible_channels

_SIDE = 16  # of the image on which networks are compared, in pixels


@torch.no_grad()
def require_all_set(network: nn.Module, again: nn.Module, arch: str) -> None:
    """Raises InvalidInput where a network gives another result each time it is built and given the same weights.

    again   built anew, with the same weights, in the same mode
    A network that gives another result at each run is left to its reader, which says more.
    """
    for channels in possible_channels(network):
        image = torch.linspace(0, 1, channels * _SIDE**2).view(1, channels, _SIDE, _SIDE)
        try:
            first, second, other = (leaving_nothing(module)(image.clone()) for module in (network, network, again))
            chance, differ = not _is_same(first, second), not _is_same(first, other)
        except Exception:  # whatever its own code raises
            continue
        if differ and not chance:
            where = next(_list_unset(network, again), "")
            raise InvalidInput(
                f"--arch {arch}: computes with random numbers that it draws as it is built{where}, and the checkpoint "
                "does not set: built twice, with the same weights, it gives two results. Keep them as parameters or "
                "buffers, modules in an nn.ModuleList, and compute in forward what is made of weights."
            )
        return


def _is_same(a: object, b: object) -> bool:
    return not (isinstance(a, Tensor) and isinstance(b, Tensor)) or torch.allclose(a, b, equal_nan=True)


def _list_unset(network: nn.Module, again: nn.Module) -> Iterator[str]:
    """Words on tensors in which the two differ."""
    modules = dict(again.named_modules())
    for path, module in network.named_modules():
        other = vars(modules[path]) if path in modules else {}
        for name, value in (*vars(module).items(), *module.named_buffers(recurse=False)):
            there = other.get(name, other.get("_buffers", {}).get(name))
            if isinstance(value, Tensor) and isinstance(there, Tensor) and not torch.equal(value, there):
                yield f" ({path}.{name})" if path else f" ({name})"
