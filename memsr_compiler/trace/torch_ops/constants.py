"""Words for constants that take their shape from a feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.trace import spread
from memsr_compiler.trace.builder import Builder
from memsr_compiler.trace.spread import Spread
from memsr_compiler.trace.torch_ops.registry import word
from memsr_compiler.trace.torch_ops.shape import expand, select, unsqueeze
from memsr_compiler.trace.views import View


@word("full_like")
def full_like(b: Builder, x: View, fill_value: Any, **_: object) -> View:
    """A feature map of one number: 0 x + that."""
    return b.affine(x, 0.0, torch.as_tensor(fill_value, dtype=torch.float64).reshape(()))


@word("fill")
def fill(b: Builder, x: View, value: Any) -> View:
    """The same in place of a feature map, or of one of its channels."""
    whole = unsqueeze(b, x, 1) if len(x.axes) == 3 else x
    return View(full_like(b, whole, value).op, x.axes)


@word("copy")
def copy(b: Builder, x: Any, src: Any, non_blocking: bool = False) -> Any:
    """The same in place of all of a feature map, or of one of its channels: features, or a number for each channel."""
    if isinstance(src, View):
        alike = not isinstance(x, View) or len(x.axes) != 4 or len(src.axes) != 4
        return src if alike else expand(b, src, x.shape)
    of_one = len(x.axes) == 3
    whole = unsqueeze(b, x, 1) if of_one else x
    numbers = b.per_channel(src[:, None] if of_one and src.dim() == 3 else src, whole)
    if numbers is None:
        b.refuse("it writes a constant that differs from pixel to pixel", "use (1, C, 1, 1), or a number")
    return View(b.affine(whole, 0.0, numbers).op, x.axes)


@word("zeros_like")
def zeros_like(b: Builder, x: View, **_: object) -> View:
    return full_like(b, x, 0.0)


@word("ones_like")
def ones_like(b: Builder, x: View, **_: object) -> View:
    return full_like(b, x, 1.0)


@word("new_full")
def new_full(b: Builder, x: View, size: Sequence[Any], fill_value: Any, **_: object) -> View | Tensor | Spread:
    """A constant, where its size is known, or a feature map of one number, where that is as large as this one."""
    if all(isinstance(n, int) for n in size):
        return spread.fill(size, float(fill_value))
    images, channels, *space = size if len(size) == 4 else (None, None)
    if (images, *space) != (x.shape[0], *x.shape[2:]) or type(channels) is not int:
        b.refuse(
            "it makes a constant of another size than the feature map's",
            "give it (1, C, 1, 1), or x.shape; where it is filled with parts of an image, tile by tile, give the "
            "module that is run on each",
        )
    return full_like(b, select(b, x, [0] * channels), fill_value)


@word("new_zeros")
def new_zeros(b: Builder, x: View, *size: Any, **_: object) -> View | Tensor | Spread:
    return new_full(b, x, _flatten(size), 0.0)


@word("new_ones")
def new_ones(b: Builder, x: View, *size: Any, **_: object) -> View | Tensor | Spread:
    return new_full(b, x, _flatten(size), 1.0)


@word("expand_as")
def expand_as(b: Builder, x: Any, other: Any) -> Any:
    """A constant repeated to the size of a feature map, or one channel as several."""
    if isinstance(x, View):
        return expand(b, x, other.shape)
    if b.per_channel(x.value if isinstance(x, Spread) else x, other) is None:
        b.refuse("it repeats a constant that differs from pixel to pixel", "use (1, C, 1, 1), or a number")
    return spread.expand(x, other.shape)


def find_constant(b: Builder, x: View) -> Tensor | None:
    """The numbers (1, C, 1, 1) of a feature map that is the same at every pixel of every image; None if it is not."""
    op = b.ops.get(x.op)
    if not isinstance(op, ir.Affine) or bool(op.scale.any()) or x != View.of(x.op, b.channels(x), b.scale(x)):
        return None
    return op.shift.reshape(1, -1, 1, 1)


def _flatten(size: Sequence[Any]) -> list[Any]:
    return list(size[0]) if len(size) == 1 and isinstance(size[0], Sequence) else list(size)
