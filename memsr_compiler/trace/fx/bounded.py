"""Runs of programs that end before they have made many gigabytes: a file of a few kilobytes can ask for those."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

_MOST = 1 << 30
"""Numbers in all tensors of a run: 4 GiB in float32, if none of them were given up on the way."""


class TooMany(Exception):
    """An operation would make more numbers than a run may.

    name      of the operation
    numbers   how many it makes
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
        self._left = _MOST

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not func.is_view:
            numbers = self._count(func, args, kwargs)
            self._left -= numbers
            if self._left < 0:
                raise TooMany(func._schema.name.partition("::")[2], numbers)
        return func(*args, **kwargs)

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """How many numbers an operation makes; 0 where values decide that: then they are no more than those given."""
        args, kwargs = tree_map_only(Tensor, self._shapes.from_tensor, (args, kwargs))
        try:
            with self._shapes:
                made = func(*args, **kwargs)
        except Exception:  # what torch itself raises, the run will
            return 0
        return sum(leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, Tensor))
