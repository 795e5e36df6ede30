"""Whether a network's code takes anything but tensors out of tensors while it runs.

Code of known forms that does not can decide by nothing: what it does to one image, it does to every other.  What is
asked of any tensor counts, weights among them, since images can be written into those; by whatever way it is asked, as
torch itself tells of it.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from memsr_compiler.trace.own_files import OURS, is_foreign, lies_in

_THE_SAME_OF_ALL = frozenset((
    "device", "dim", "dtype", "element_size", "get_device", "is_complex", "is_cpu", "is_cuda", "is_floating_point",
    "is_leaf", "is_meta", "is_mps", "is_quantized", "is_sparse", "layout", "ndim", "ndimension", "requires_grad",
    "type",
))  # fmt: skip
"""What a tensor is asked, and is the same of every image."""
_CHANNELS = (1, -3)


class OnlyTensors(TorchFunctionMode):
    """Notes foreign code that takes sizes, numbers or texts out of tensors; `asker`: the first, by name, "" without.

    The number of channels of the image itself may be asked: networks are read for one.  That of what is made of it may
    be one of its sides, turned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asker = ""
        self._image: Tensor | None = None
        self._shape = torch.Size()

    @contextmanager
    def hearing(self, model: nn.Module) -> Iterator[None]:
        """In the context, what this network is given is the image."""
        hook = model.register_forward_pre_hook(self._take_image)
        try:
            with self:
                yield
        finally:
            hook.remove()

    def _take_image(self, _: nn.Module, given: tuple[Any, ...]) -> None:
        self._image = next((value for value in given if isinstance(value, Tensor)), None)
        self._shape = torch.Size() if self._image is None else self._image.shape

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not (self.asker or _is_of_tensors(result) or name_of(func) in _THE_SAME_OF_ALL):
            frame = _find_asker()
            channels = self._is_image(next(iter(args), None)) and _takes_channels(func, args, kwargs or {}, frame)
            if is_foreign(frame.f_code.co_filename) and not channels:
                self.asker = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)  # of Python 3.11
        return result

    def _is_image(self, value: Any) -> bool:
        """Whether a value is the image, as it was given."""
        return value is self._image and value is not None and value.shape == self._shape


def has_own_tensors(model: nn.Module) -> bool:
    """Whether some parameter or buffer is of a kind that is not torch's, with methods of its own, perhaps."""
    return any(type(t).__module__.split(".")[0] != "torch" for t in (*model.parameters(), *model.buffers()))


def _is_of_tensors(result: Any) -> bool:
    return all(value is None or isinstance(value, Tensor) for value in tree_leaves(result))


def _find_asker() -> FrameType:
    """The code that asks: what called torch, but for what of ours hears of it."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_name == "__torch_function__":
        if not lies_in(frame.f_code.co_filename, (OURS,)):
            break
        frame = frame.f_back
    return frame


def _takes_channels(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], frame: FrameType) -> bool:
    """Whether all that code takes is the number of channels: `x.size(1)`, or `x.shape[1]`, in the step after this."""
    if name_of(func) == "size":
        return next(iter((*args[1:], *kwargs.values())), None) in _CHANNELS
    steps = [step for step in dis.get_instructions(frame.f_code) if step.opname not in ("CACHE", "EXTENDED_ARG")]
    after = [step for step in steps if step.offset > frame.f_lasti][:2]
    if name_of(func) != "shape" or len(after) < 2 or after[0].argval not in _CHANNELS:
        return False
    return after[1].opname == "BINARY_SUBSCR" or (after[1].opname == "BINARY_OP" and after[1].argrepr == "[]")


def name_of(func: Any) -> str:
    """The name of a function, or of the attribute that it gets."""
    owner = getattr(func, "__self__", None)
    return str(getattr(owner if func.__name__ == "__get__" else func, "__name__", ""))
