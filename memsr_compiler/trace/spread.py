"""Constants that are spread over the image, or over a batch of them, while a network is being read.

Beside a feature map `torch.ones(n, 1, h, w)` is one number.  What adds its pixels up makes another number of it at each
size, or for each number of images, and the few that a network is run with may not tell: a clamp hides it from them.
So a tensor of one pixel does not stand for it alone: only what does the same to every number takes that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from memsr_compiler.trace.views import Batch, DependsOnBatch, DependsOnSize, Size

_SIDES = {"h": 10007, "w": 10009}  # lengths of axes in tensors without numbers; primes, which no others are
_IMAGES = 10037
_LONG = (*_SIDES.values(), _IMAGES)
_FILLED = ("zeros", "ones", "empty", "full", "new_zeros", "new_ones", "new_empty", "new_full")
_REPEATED = ("expand", "broadcast_to", "repeat", "tile")
MAKERS = (*_FILLED, *_REPEATED)
"""Operations that spread a constant over so many pixels and images as they are told."""
_RESHAPES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten")
_LAYOUT = (
    *_RESHAPES, "expand_as", "unsqueeze", "squeeze", "permute", "transpose", "swapaxes", "swapdims", "movedim",
    "moveaxis", "flip", "getitem", "__getitem__", "index", "slice", "select", "narrow", "chunk", "split",
    "split_with_sizes", "unbind", "index_select", "cat", "concat", "stack", "sum",
)  # fmt: skip
"""Operations on axes, which may have any length but those of the image: these have to be there afterwards, whole."""
_MEANS = ("mean", "amax", "amin")
"""Operations on axes that give for one number the same as for many."""
_OF_EACH = ("linear", "matmul", "mm", "addmm", "embedding", "conv2d", "convolution", "layer_norm", "softmax")
"""Operations on axes that do the same to each image of a batch."""
_BESIDE = (
    "add", "sub", "subtract", "rsub", "mul", "multiply", "div", "truediv", "divide", "true_divide", "lerp", "addcmul",
    "maximum", "minimum", "max", "min", "clamp", "clip", "clamp_min", "clamp_max", "where", "masked_fill", "gt", "ge",
    "lt", "le",
)  # fmt: skip
"""Operations of one number each, which a feature map may be among the operands of."""
_CASTS = (
    "clone", "contiguous", "detach", "alias", "to", "_to_copy", "float", "double", "half", "bfloat16", "bool", "int",
    "long", "cpu", "cuda", "lift_fresh_copy", "type", "type_as", "requires_grad",
)  # fmt: skip
_POINTWISE = (
    *_BESIDE, "addcdiv", "pow", "neg", "negative", "abs", "absolute", "sqrt", "rsqrt", "square", "reciprocal", "exp",
    "log", "sigmoid", "tanh", "softplus", "relu", "relu6", "leaky_relu", "hardtanh", "sign", "floor", "ceil", "round",
    "eq", "ne", "logical_and", "logical_or", "logical_not", "and", "or", "invert",
    "bitwise_and", "bitwise_or", "bitwise_not", "fill", "zero", "zeros_like", "ones_like", "full_like",
    "empty_like",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Spread:
    """A constant as high or wide as the image, or as long as the batch, and the same at all these places.

    value   the numbers at one of these places: of length 1 along such axes
    like    a tensor without numbers that has such axes, as long as no other is
    """

    value: Tensor
    like: Tensor


def concerns(name: str, operands: Sequence[Any]) -> bool:
    """Whether an operation on constants takes one that is spread, or spreads one."""
    return any(isinstance(v, Spread) or (name in MAKERS and _is_long(v)) for v in _leaves(operands))


def is_by_count(result: Any, operands: Sequence[Any]) -> bool:
    """Whether an operation took numbers out of constants by the number of images."""
    return any(isinstance(v, Batch) for v in _leaves(operands)) and any(isinstance(v, Tensor) for v in _leaves(result))


def compute(name: str, run: Callable[[Any, Any], Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The result of an operation on constants, some of which are spread; a tensor where all of it is known.

    run   gives the result of the operation for other operands
    Raises DependsOnSize or DependsOnBatch where that may hang on how far they are spread, and whatever torch raises.
    """
    if name == "dim":
        return args[0].value.dim()
    known = name in (*MAKERS, *_LAYOUT, *_MEANS, *_CASTS, *_POINTWISE)
    if not (known or _is_of_each(name, args, kwargs)) or kwargs.get("out") is not None:
        refuse([args, kwargs])
    if name in _FILLED:
        return _fill(name, run, args, kwargs)
    told = name in _REPEATED or name in _LAYOUT  # lengths and places on axes
    value = run(*_map((args, kwargs), lambda v: _at_one_place(v, told)))
    if name in _CASTS:
        return Spread(value, args[0].like.to(value.dtype)) if isinstance(args[0], Spread) else value
    where = {k: v for k, v in kwargs.items() if k != "device"}
    like = run(*_map((args, where), lambda v: _without_numbers(v, told)))
    values, likes = ((value,), (like,)) if isinstance(value, Tensor) else (value, like)
    if len(values) != len(likes) or not all(isinstance(v, Tensor) for v in (*values, *likes)):
        refuse([args, kwargs])
    given = (v.like for v in _leaves([args, kwargs]) if isinstance(v, Spread) and name not in _MEANS)
    needed = _count_long(given)
    for one, its in zip(values, likes, strict=True):
        if lost := needed - _count_long([its]):
            refuse([args, kwargs], lost)
        if one.shape != _shape_at_one_place(its.shape):
            refuse([args, kwargs])
    if name in _RESHAPES and not _keeps_long_axes(args[0].like.shape, like.shape):
        refuse([args, kwargs])
    made = tuple(_spread(one, its) for one, its in zip(values, likes, strict=True))
    return made[0] if isinstance(value, Tensor) else made


def expand(constant: Tensor | Spread, shape: Sequence[int | Size]) -> Tensor | Spread:
    """A constant repeated to this shape.  Raises RuntimeError where it does not fit."""
    result: Tensor | Spread = compute("expand", lambda args, _: args[0].expand(args[1]), [constant, list(shape)], {})
    return result


def fill(shape: Sequence[int | Size], value: float) -> Tensor | Spread:
    """A constant of one number."""
    lengths = [_length(n) for n in shape]
    made = torch.full(_shape_at_one_place(lengths), value, dtype=torch.float64)
    return _spread(made, torch.empty(lengths, dtype=torch.float64, device="meta"))


def beside(name: str, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]] | None:
    """Operands of an operation that takes a feature map too, with numbers for what is spread; None where none may be.

    What gives the first of them back, or writes over all of it, is given that as it is.
    """
    if name in _BESIDE:
        mapped: tuple[list[Any], dict[str, Any]] = _map((args, kwargs), lambda v: _at_one_place(v, False))
        return mapped
    if name in (*_CASTS, "expand_as", "copy"):
        return [args[0], *_map(args[1:], lambda v: _at_one_place(v, False))], kwargs
    if name == "slice_scatter" and not any(isinstance(v, Spread) for v in _leaves([args[1:], kwargs])):
        return args, kwargs
    return None


def ask(constant: Spread, name: str) -> Any:
    """An attribute of a constant.  Raises DependsOnSize or DependsOnBatch for its shape, and what hangs on that."""
    if name not in ("dtype", "device", "layout", "ndim", "is_cuda", "requires_grad", "data"):
        refuse([constant])
    return constant if name == "data" else getattr(constant.value, name)


def refuse(operands: Any, lost: Iterable[int] = _LONG) -> NoReturn:
    """Raise the error of what hangs on how far constants are spread, along axes of these lengths."""
    values = list(_leaves(operands))
    lengths = {n for v in values if isinstance(v, Spread) for n in v.like.shape}.intersection(lost)
    if any(isinstance(v, Size) for v in values) or lengths.intersection(_SIDES.values()):
        raise DependsOnSize("it computes with the height or width of the image, over which a constant is spread")
    raise DependsOnBatch("it computes with the number of images")


def _fill(name: str, run: Callable[[Any, Any], Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A constant of one number, with its size before it, or alone."""
    given, named = [v for v in args if not isinstance(v, (Tensor, Spread))], dict(kwargs)
    if name in ("full", "new_full"):
        given = [named["size"] if "size" in named else given[0]]
        others = [args[1 + name.startswith("new_") :], {k: v for k, v in named.items() if k != "size"}]
        if any(_is_long(v) or isinstance(v, Spread) for v in _leaves(others)):
            refuse(others)
    elif "size" in named:
        given = [named["size"]]
    sizes = [_length(n) for n in _leaves(given)]
    value = run(*_map((args, named), lambda v: _at_one_place(v, True)))
    return _spread(value, torch.empty(sizes, dtype=value.dtype, device="meta"))


def _is_of_each(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation does the same to each image of the one operand that is one for each."""
    likes = [v.like for v in _leaves([args, kwargs]) if isinstance(v, Spread)]
    if name not in _OF_EACH or len(likes) != 1 or [n for n in likes[0].shape if n in _LONG] != [_IMAGES]:
        return False
    if name != "softmax":
        return True
    axis = kwargs["dim"] if "dim" in kwargs else (*args, None)[1]
    return isinstance(axis, int) and likes[0].shape[axis] != _IMAGES


def _spread(value: Tensor, like: Tensor) -> Tensor | Spread:
    return Spread(value.detach(), like) if _count_long([like]) else value


def _at_one_place(value: Any, told: bool) -> Any:
    if isinstance(value, Spread):
        return value.value
    return 1 if told and _is_long(value) else value


def _without_numbers(value: Any, told: bool) -> Any:
    if isinstance(value, Spread):
        return value.like
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return _length(value) if told and _is_long(value) else value


def _is_long(value: Any) -> bool:
    return isinstance(value, (Size, Batch))


def _length(size: Any) -> int:
    if isinstance(size, Size):
        return _SIDES[size.symbol]
    return _IMAGES if isinstance(size, Batch) else int(size)


def _count_long(tensors: Any) -> Counter[int]:
    """Counts of the axes of each such length, in that of the tensors that has the most."""
    most = Counter[int]()
    for tensor in tensors:
        most |= Counter(n for n in tensor.shape if n in _LONG)
    return most


def _shape_at_one_place(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(1 if n in _LONG else n for n in shape)


def _keeps_long_axes(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a reshape leaves such axes where they are: at the beginning, or the end, of all that is reshaped."""
    left, right = list(before), list(after)
    for at in (0, -1):
        while left and right and left[at] == right[at]:
            del left[at], right[at]
    return not any(n in _LONG for n in left)


def _map(values: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(values, (tuple, list)):
        mapped = [_map(v, change) for v in values]
        return mapped if isinstance(values, list) else tuple(mapped)
    if isinstance(values, dict):
        return {k: _map(v, change) for k, v in values.items()}
    if isinstance(values, slice):
        return slice(*(_map(v, change) for v in (values.start, values.stop, values.step)))
    return change(values)


def _leaves(values: Any) -> Iterator[Any]:
    if isinstance(values, (tuple, list)):
        for v in values:
            yield from _leaves(v)
    elif isinstance(values, dict):
        yield from _leaves(list(values.values()))
    elif isinstance(values, slice):
        yield from (values.start, values.stop, values.step)
    else:
        yield values
