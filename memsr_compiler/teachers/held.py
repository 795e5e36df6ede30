"""Attributes of a network, and whether loading by its own code took all of a file and left nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

from memsr_compiler.teachers.wrappers import Weights, read_notes, some
from memsr_compiler.torch_helpers import copy_module, list_weights, walk

Load: TypeAlias = Callable[[nn.Module, Weights], None]
_COUNTER = "num_batches_tracked"  # of training steps, which evaluation does not use


def list_held(network: nn.Module) -> Iterator[nn.Module | Tensor | float | str]:
    """The network and all in it: modules, also those in lists, tensors, numbers and texts."""
    waiting: list[object] = [network]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, (Tensor, int, float, str)):
            yield each
        elif isinstance(each, (nn.Module, dict, list, tuple, set)) and id(each) not in seen:
            seen.add(id(each))
            if isinstance(each, nn.Module):
                yield each
                each = vars(each)
            waiting += each.values() if isinstance(each, dict) else each


def list_saved(network: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that a state dict holds, by their names."""
    passing = {
        f"{path}.{name}" if path else name
        for path, module in walk(network)
        for name in module._non_persistent_buffers_set
    }
    return {name: tensor for name, tensor in list_weights(network).items() if name not in passing}


@torch.no_grad()
def say_passed_over(blank: nn.Module, loaded: nn.Module, state: Weights, load: Load) -> str:
    """Words on what a network's own code passed over as it loaded weights; "": nothing.

    blank   the network before; copies of it are loaded again, with NaN in them, or with NaN in a tensor of the file
    """
    named, saved = loaded.state_dict(), list_saved(loaded)
    alike = {key for key, tensor in state.items() if _is_same(tensor, named.get(key))}
    if alike >= {key for key in (*state, *saved) if not key.endswith(_COUNTER)}:
        return ""
    if left := [name for name in _list_left(blank, state, load) if name not in alike]:
        return f"its load_state_dict() leaves {some(left)} as it was"
    others = {_digest(tensor) for name, tensor in saved.items() if name not in alike}  # which it may have renamed
    values = _list_values(loaded)
    untaken = [
        key
        for key, tensor in state.items()
        if not (key in alike or _is_count(tensor) or _digest(tensor) in others)
        and _is_same_list(values, _load_other(blank, state, key, load))
    ]
    return f"its load_state_dict() passes over {some(untaken)}, which the file holds" if untaken else ""


def _list_left(blank: nn.Module, state: Weights, load: Load) -> list[str]:
    """Names of what is as it was before, in whole or in part, when a copy of the network is loaded."""
    trial = copy_module(blank, None)
    for tensor in list_saved(trial).values():
        tensor.copy_(_change(tensor))
    before = {name: tensor.clone() for name, tensor in list_saved(trial).items()}
    load(trial, state)
    after = list_saved(trial).items()
    return [name for name, tensor in after if not name.endswith(_COUNTER) and _is_left(tensor, before.get(name))]


def _is_left(tensor: Tensor, before: Tensor | None) -> bool:
    return bool(tensor.isnan().any()) if tensor.is_floating_point() else _is_same(tensor, before)


def _load_other(blank: nn.Module, state: Weights, key: str, load: Load) -> list[Tensor | float | str]:
    """All that a copy of the network holds when other numbers are loaded in one tensor; []: it takes none."""
    trial = copy_module(blank, None)
    try:
        load(trial, Weights({**state, key: _change(state[key])}, read_notes(state)))
    except Exception:  # whatever the network's code raises, which has looked at it
        return []
    return _list_values(trial)


def _change(tensor: Tensor) -> Tensor:
    """Other numbers: NaN, which is seen in whatever is made of it, and where there is none the next ones."""
    if tensor.is_floating_point():
        return torch.full_like(tensor, math.nan)
    return tensor.logical_not() if tensor.dtype == torch.bool else tensor + 1


def _list_values(network: nn.Module) -> list[Tensor | float | str]:
    return [each for each in list_held(network) if not isinstance(each, nn.Module)]


def _is_same_list(values: list[Tensor | float | str], others: list[Tensor | float | str]) -> bool:
    return len(values) == len(others) and all(map(_is_same, values, others))


def _is_same(one: object, other: object) -> bool:
    """Whether two numbers or texts are one, or two tensors but for their type."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return type(one) is type(other) and one == other
    return one.shape == other.shape and torch.equal(one.to(other.dtype), other)


def _digest(tensor: Tensor) -> int:
    """Hash of its numbers, whatever its shape and type."""
    return hash((tensor.float() if tensor.is_floating_point() else tensor).numpy().tobytes())


def _is_count(tensor: Tensor) -> bool:
    return tensor.numel() <= 1 and not tensor.is_floating_point()
