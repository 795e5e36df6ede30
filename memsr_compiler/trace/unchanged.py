"""Whether tensors of numbers stay as they are once a graph names them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Unchanged(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes whether code changes a weight or a constant that was used: `y = y + x * k; k *= 0.5`.

    While torch.fx traces, a graph has it by name alone, so each use would get the numbers of the last.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.changed = False
        self._used: dict[int, Tensor] = {}  # by their memory; held, so that no other gets it

    def use(self, tensor: Tensor) -> None:
        self._used[_memory_of(tensor)] = tensor

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        named = zip(func._schema.arguments, args, strict=False)
        operands = [*named, *((a, given[a.name]) for a in func._schema.arguments if a.name in given)]
        written = [v for a, v in operands if a.alias_info is not None and a.alias_info.is_write]
        tensors = (v for v in tree_leaves(written) if isinstance(v, Tensor))  # of lists: torch._foreach_mul_
        self.changed = self.changed or any(_memory_of(v) in self._used for v in tensors)
        return func(*args, **given)


def _memory_of(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)
