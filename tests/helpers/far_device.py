"""A device that is not the processor, without one: tensors that must not meet those on the processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

FAR = torch.device("meta")  # stands for the device; nothing is ever computed on the real one

_TO_CPU = (Tensor.cpu, Tensor.tolist, Tensor.item, Tensor.numpy)
_BY_INDEX = (Tensor.__getitem__, Tensor.__setitem__)  # an index may lie on the processor


class Far(Tensor):
    """A tensor on the far device."""


class FarDevice(TorchFunctionMode):
    """While it lasts `x.to(FAR)` takes a tensor to the far device, and only `.cpu()` brings it back.

    An operation on tensors of both raises AssertionError, as CUDA would refuse it; single numbers may mix.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return FAR if isinstance(args[0], Far) else func(*args)
        given = list(_tensors([*args, *kwargs.values()]))
        far = any(isinstance(x, Far) for x in given)
        values = [*args, *kwargs.values()]
        place = next((x for x in values if isinstance(x, torch.device)), None)
        if func is Tensor.to:
            like = next((x for x in values[1:] if isinstance(x, Tensor)), None)
            dtype = next(
                (x for x in values if isinstance(x, torch.dtype)), (like if like is not None else args[0]).dtype
            )
            goes = isinstance(like, Far) if like is not None else place == FAR if place is not None else far
            return _put(func(_near(args[0]), dtype), goes)
        near = given[:1] if func in _BY_INDEX else given
        mixed = {isinstance(x, Far) for x in near if x.dim() > 0}
        assert len(mixed) < 2, f"{getattr(func, '__name__', func)} of tensors on two devices"
        kwargs = {k: v for k, v in kwargs.items() if not (k == "device" and v == FAR)}
        if func is torch.autograd.grad:  # by the very tensors that are in its graph
            return _put(func(*args, **kwargs), far)
        result = func(*_near(list(args)), **{k: _near(v) for k, v in kwargs.items()})
        return result if func in _TO_CPU else _put(result, far or place == FAR)


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _near(value: Any) -> Any:
    if isinstance(value, Far):
        return value.as_subclass(Tensor)
    if isinstance(value, (list, tuple)):
        return type(value)(_near(x) for x in value)
    return value


def _put(value: Any, far: bool) -> Any:
    if isinstance(value, Tensor):
        return value.as_subclass(Far) if far else value
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size) and far:
        parts = [_put(x, far) for x in value]
        return parts if isinstance(value, list) else tuple(parts)
    return value
