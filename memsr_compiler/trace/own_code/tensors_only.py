"""Whether a network's code takes anything but tensors out of tensors while it runs.

Code of known forms that does not can decide by nothing: what it does to one image, it does to every other.  What is
asked of any tensor counts, weights among them, since images can be written into those; by whatever way it is asked, as
torch itself tells of it.
"""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from memsr_compiler.torch_helpers import list_weights
from memsr_compiler.trace.own_code.own_files import OURS, TORCH, is_foreign, lies_in

_THE_SAME_OF_ALL = frozenset((
    "device", "dtype", "element_size", "get_device", "is_complex", "is_cpu", "is_cuda", "is_floating_point", "is_meta",
    "is_mps", "is_quantized", "is_sparse", "layout", "type",
))  # fmt: skip
"""What a tensor is asked, and is the same of every image."""
_AXES = ("dim", "ndim", "ndimension")
_CHANNELS = (1, -3)
_MACHINERY = tuple(os.path.join(TORCH, *name.split("/")) for name in (
    "overrides.py", "_tensor.py", "functional.py", "nn/functional.py"
))  # fmt: skip
"""Files of torch with functions of Python's which it calls for whoever asks a tensor."""


class OnlyTensors(TorchFunctionMode):
    """Notes foreign code that takes sizes, numbers or texts out of tensors; `asker`: the first, by name, "" without.

    Which of two tensors are one is heard too: where torch gives a tensor itself, since it is laid out as it is to be,
    code gets another of the same numbers, so that Python has to ask whether they are equal (`x in [y]`, `[x] == [y]`),
    and is told that they are.
    The number of channels and of axes of the image itself may be asked: networks are read for one.  Of what is made of
    it the one may be one of its sides, turned, and the other may hang on whether a side is one pixel.
    passed   whether a line, by its frame, may ask for what it wants: it refuses images, `assert x.shape[1] == 3`
    """

    def __init__(self, model: nn.Module, passed: Callable[[FrameType], bool]) -> None:
        super().__init__()
        self.asker = ""
        self._passed = passed
        self._is_program = isinstance(model, fx.GraphModule)
        self._of_one: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        equal = name_of(func) == "__bool__" and args[0] is self._of_one
        result = True if equal else func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._of_one = result if name_of(func) == "__eq__" and _are_one(*args) else self._of_one
            return _set_apart(result) if _gives_itself(func, result, args, kwargs or {}) else result
        if not (self.asker or result is None or name_of(func) in _THE_SAME_OF_ALL):
            frame = _find_asker()
            of_image = _is_image(next(iter(args), None)) and _is_known(func, args, kwargs or {}, frame)
            known = of_image or not self._is_heard(frame) or _takes_tensors(result, frame)
            if not known and not self._passed(frame):
                self.asker = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)  # of Python 3.11
        return result

    def _is_heard(self, frame: FrameType) -> bool:
        """Whether code is the network's: that of programs within it too, but not of one that is all of it, and read."""
        name = frame.f_code.co_filename
        return is_foreign(name) or (name.startswith("<eval_with_key>") and not self._is_program)


def mark_image(image: Tensor) -> Tensor:
    """A copy of an image that is to be given to a network, and known as that."""
    copied = image.clone()
    vars(copied)[_SHAPE] = image.shape
    return copied


def _is_image(value: Any) -> bool:
    """Whether a value is the image, as it was given."""
    return isinstance(value, Tensor) and vars(value).get(_SHAPE) == value.shape


_SHAPE = "_shape_of_the_image"


def _gives_itself(func: Any, result: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation gives a tensor that it was given, and changed nothing in it: at other sizes it may copy it.

    A parameter is left what it is, which code may keep as one.
    """
    given = any(result is value for value in (*args, *kwargs.values()))
    in_place = name_of(func).endswith("_") or kwargs.get("inplace") or kwargs.get("out") is not None
    return given and not (in_place or isinstance(result, nn.Parameter))


def _set_apart(tensor: Tensor) -> Tensor:
    """Another tensor of the same numbers, in the same memory; itself where it has none, as sparse ones."""
    try:
        other: Tensor = torch.ops.aten.alias(tensor)
    except RuntimeError:
        return tensor
    vars(other).update(vars(tensor))
    return other


def _are_one(tensor: Tensor, other: Any) -> bool:
    """Whether two tensors may be one that was set apart: the same numbers in the same memory."""
    try:
        alike = isinstance(other, Tensor) and (tensor.shape, tensor.stride()) == (other.shape, other.stride())
        return alike and tensor.data_ptr() == other.data_ptr()
    except RuntimeError:  # they have none, as those of torch.vmap
        return False


def has_marked_tensors(model: nn.Module) -> bool:
    """Whether some parameter or buffer has attributes that somebody gave it, of which copies of it know nothing."""
    return any(bool(vars(t)) for t in list_weights(model).values())


def _find_asker() -> FrameType:
    """The code that asks: what called torch, but for what of ours hears of it, and what torch has in Python."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if name not in _MACHINERY and not (frame.f_code.co_name == "__torch_function__" and lies_in(name, (OURS,))):
            break
        frame = frame.f_back
    return frame


def _takes_tensors(result: Any, frame: FrameType) -> bool:
    """Whether a tuple is of tensors, and code takes so many, or one, in the step after this: `a, b = x.chunk(2, 1)`.

    How many there are may hang on a side.
    """
    of_tensors = isinstance(result, (tuple, list)) and all(isinstance(value, Tensor) for value in result)
    first, second = _steps_after(frame)
    taken = first.opname == "UNPACK_SEQUENCE" or (_loads_number(first) and _is_subscript(second))
    named = hasattr(result, "_fields") or type(result).__module__ == "torch.return_types"
    return of_tensors and (taken or named)


def _is_known(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], frame: FrameType) -> bool:
    """Whether what code takes of the image is the number of its channels or axes: `x.size(1)`, `x.shape[1]`."""
    name = name_of(func)
    if name == "size":
        return next(iter((*args[1:], *kwargs.values())), None) in _CHANNELS
    first, second = _steps_after(frame)
    return name in _AXES or (
        name == "shape" and _loads_number(first) and first.argval in _CHANNELS and _is_subscript(second)
    )


def _steps_after(frame: FrameType) -> tuple[dis.Instruction, dis.Instruction]:
    """The two steps that follow on where code is; there are as many behind whatever asks, since a function returns."""
    steps = [step for step in dis.get_instructions(frame.f_code) if step.opname not in ("CACHE", "EXTENDED_ARG")]
    after = [step for step in steps if step.offset > frame.f_lasti]
    return after[0], after[min(1, len(after) - 1)]


def _loads_number(step: dis.Instruction) -> bool:
    return step.opname in ("LOAD_CONST", "LOAD_SMALL_INT") and isinstance(step.argval, int)


def _is_subscript(step: dis.Instruction) -> bool:
    return step.opname == "BINARY_SUBSCR" or (step.opname == "BINARY_OP" and step.argrepr == "[]")


def name_of(func: Any) -> str:
    """The name of a function, or of the attribute that it gets."""
    owner = getattr(func, "__self__", None)
    return str(getattr(owner if func.__name__ == "__get__" else func, "__name__", ""))
