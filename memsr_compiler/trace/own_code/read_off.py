"""Numbers that code reads off tensors: weights have them, and images have none where no pixel is computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_BYTES: Any = Tensor.nbytes.__get__  # type: ignore[attr-defined]
READ_OFF = frozenset([Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__int__, Tensor.__bool__])


def no_pixels(sizes: Any = None) -> Any:
    """A FakeTensorMode, in which operations compute shapes alone, and those fail of which torch knows no shape.

    For these it would compute the numbers of as large an image as there is, gigabytes.
    sizes   its ShapeEnv, where sides are symbols
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(shape_env=sizes, allow_non_fake_inputs=True, allow_fallback_kernels=False)


@contextmanager
def without_reports() -> Iterator[None]:
    """Keep torch's log from reporting what fails among fake tensors, where failing is an answer."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


_ONE_BY_ONE = frozenset([Tensor.apply_, Tensor.map_, Tensor.map2_])


class KnownNumbers(TorchFunctionMode):
    """Lets code read numbers off weights among fake tensors, and sizes in bytes off images whose sides are symbols.

    Raises RuntimeError for functions that are called with each number of a tensor: where there are none, torch crashes.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

        if func in _ONE_BY_ONE:
            raise RuntimeError("a function of its own is called with each number of a tensor")
        if func in READ_OFF and not isinstance(args[0], FakeTensor):
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        if func == _BYTES:  # of which torch makes no symbol
            return args[0].element_size() * args[0].numel()
        return func(*args, **(kwargs or {}))
