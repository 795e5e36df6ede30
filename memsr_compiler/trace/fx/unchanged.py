"""Whether tensors of numbers stay as they are once a graph names them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Unchanged(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes whether code changes a weight or a constant that was used: `y = y + x * k; k *= 0.5`.

    While torch.fx traces, a graph has it by name alone, so each use would get the numbers of the last.  What the graph
    itself writes into one has not been written yet, so code that uses it otherwise would get the numbers of before.
    held   tensors of the network itself
    """

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.changed = False
        self._held = {_memory_of(tensor): tensor for tensor in held}
        self._used: dict[int, Tensor] = {}  # by their memory; held, so that no other gets it
        self._written: dict[int, Tensor] = {}

    def use(self, tensor: Tensor) -> None:
        self._used[_memory_of(tensor)] = tensor

    def write(self, tensor: Tensor) -> None:
        """Note a tensor that the graph writes into."""
        self._written[_memory_of(tensor)] = tensor

    def is_written(self, tensor: Tensor) -> bool:
        """Whether the graph writes into a tensor, so that its numbers are those of before."""
        return _memory_of(tensor) in self._written

    def is_new(self, tensor: Tensor) -> bool:
        """Whether code has made a tensor itself, of which the graph knows nothing yet."""
        return not any(_memory_of(tensor) in known for known in (self._held, self._used, self._written))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        named = zip(func._schema.arguments, args, strict=False)
        operands = [*named, *((a, given[a.name]) for a in func._schema.arguments if a.name in given)]
        written = [v for a, v in operands if a.alias_info is not None and a.alias_info.is_write]
        tensors = (v for v in tree_leaves(written) if isinstance(v, Tensor))  # of lists: torch._foreach_mul_
        self.changed = self.changed or any(_memory_of(v) in self._used for v in tensors)
        if self._written and not _is_view(func):
            given_tensors = (v for v in tree_leaves((args, given)) if isinstance(v, Tensor))
            self.changed = self.changed or any(_memory_of(v) in self._written for v in given_tensors)
        return func(*args, **given)


def _is_view(func: Any) -> bool:
    """Whether an operation gives a view, and reads no number."""
    aliases = [returned.alias_info for returned in func._schema.returns]
    return bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)


def _memory_of(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)
