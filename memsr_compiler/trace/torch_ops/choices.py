"""Words for choices pixel by pixel, as PReLU becomes them in core ATen: `where(x > 0, x, a * x)`.

They are read where both choices are straight lines of what is compared, and meet where it is the number that it is
compared with: any other choice jumps, or hangs on the sign of another feature map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.trace.builder import Builder
from memsr_compiler.trace.torch_ops.activation import clamp, prelu, relu
from memsr_compiler.trace.torch_ops.constants import find_constant
from memsr_compiler.trace.torch_ops.pointwise import linear
from memsr_compiler.trace.torch_ops.registry import word
from memsr_compiler.trace.torch_ops.unsupported import JUMPS
from memsr_compiler.trace.views import View

MASK = (
    "it asks whether a feature map is above a number, which is read where torch.where chooses by it; write it as a "
    "clamp, a maximum or a PReLU"
)
_OTHER_SIGN = (
    "it chooses between values that are no straight lines of the feature map by which it chooses; write it as a clamp, "
    "a maximum or a PReLU"
)


@dataclass(frozen=True, eq=False)
class Above:
    """Whether a feature map is above a number, or one for each channel; where it is that, the answer may be either.

    below   whether it is asked to be under it
    """

    x: View
    bound: Tensor
    below: bool


@word("gt", "greater", "ge", "greater_equal")
def above(b: Builder, x: Any, y: Any) -> Above:
    return _compare(b, x, y, below=False)


@word("lt", "less", "le", "less_equal")
def below(b: Builder, x: Any, y: Any) -> Above:
    return _compare(b, x, y, below=True)


def _compare(b: Builder, x: Any, y: Any, *, below: bool) -> Above:
    x, y = (v if not isinstance(v, View) or (c := find_constant(b, v)) is None else c for v in (x, y))
    if not isinstance(x, View):
        x, y, below = y, x, not below
    bound = b.per_channel(y, x) if isinstance(x, View) and isinstance(y, (int, float, Tensor)) else None
    if bound is None or not bool(torch.isfinite(bound).all()):
        b.give_up(MASK)
    return Above(x, bound, below)


@word("masked_fill")
def masked_fill(b: Builder, x: Any, mask: Any, value: Any) -> View:
    return where(b, mask, value, x)


@word("where")
def where(b: Builder, *operands: Any, condition: Any = None, x: Any = None, y: Any = None) -> View:
    """As of torch, and as a method of the second operand: x.where(condition, y)."""
    left = [v for v in (*operands, x, y) if v is not None]
    masks: list[Any] = [v for v in left if isinstance(v, Above)] or [v for v in left if _is_constant_mask(v)]
    mask = masks[0] if condition is None and masks else condition
    left = [v for v in left if v is not mask]
    if len(left) != 2 or any(isinstance(v, Above) for v in left):
        b.give_up(MASK)
    if _is_constant_mask(mask):
        return _choose_once(b, mask, left)
    if not isinstance(mask, Above):
        b.give_up(MASK)
    over, under = (_find_line(b, v, mask) for v in (reversed(left) if mask.below else left))
    if over is None or under is None:
        b.give_up(_OTHER_SIGN)
    bound = mask.bound.expand(b.channels(mask.x))
    # Torch takes the bound of `x <= 0.3 ? 0.3 : x` to float32, and keeps the choice 0.3 so: that is where they meet.
    for scale, shift in (over, under):
        bound = torch.where((scale == 0) & (shift == bound.float().double()), shift, bound)
    if not torch.equal(over[0] * bound + over[1], under[0] * bound + under[1]):
        b.refuse(*JUMPS)
    return _bend(b, mask.x, bound, over, under)


def _is_constant_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bool


def _choose_once(b: Builder, mask: Tensor, choices: list[Any]) -> View:
    """One of the two for all pixels, which has to be of the shape of both: a feature map of as many channels."""
    chosen, other = choices if bool(mask.flatten()[0]) else reversed(choices)
    if not isinstance(chosen, View) or mask.numel() != 1 or mask.dim() > len(chosen.axes):
        b.give_up("it chooses by a constant, which is read of one number, and where a feature map is what it chooses")
    if isinstance(other, View) and (b.channels(other), b.scale(other)) != (b.channels(chosen), b.scale(chosen)):
        b.give_up("it chooses between feature maps of two shapes; choose outside the network")
    if isinstance(other, Tensor) and b.per_channel(other, chosen) is None:
        b.give_up("it chooses between a feature map and a constant of another shape; choose outside the network")
    return chosen


def _find_line(b: Builder, value: Any, mask: Above) -> tuple[Tensor, Tensor] | None:
    """The scale and shift (C,) that make a value of what is compared; None where it is none of its straight lines."""
    width, source = b.channels(mask.x), b.feature(mask.x)
    scale, shift = torch.ones(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    if isinstance(value, View) and (constant := find_constant(b, value)) is not None:
        value = constant if constant.numel() == width else None
    if isinstance(value, (int, float, Tensor)):
        constant = b.per_channel(value, mask.x)
        if constant is None or not bool(torch.isfinite(constant).all()):
            return None
        return 0 * scale, constant.expand(width)
    if not isinstance(value, View):
        return None
    name = b.feature(value)
    while name != source:
        op = b.ops[name]
        if not isinstance(op, ir.Affine):
            return None
        scale, shift, name = scale * op.scale, scale * op.shift + shift, op.inputs[0]
    return scale, shift


def _bend(b: Builder, x: View, bound: Tensor, over: tuple[Tensor, Tensor], under: tuple[Tensor, Tensor]) -> View:
    """Two straight lines of x that meet at a bound: the first above it, the other under it."""
    (slope, shift), (other_slope, other_shift) = over, under
    as_it_is = bool((slope == 1).all()) and not bool(shift.any())
    if as_it_is and not bool(torch.stack([bound, other_shift]).any()):
        return prelu(b, x, other_slope)
    if as_it_is and not bool(other_slope.any()) and bool((bound == bound[0]).all()):
        return clamp(b, x, bound[0])
    line = b.affine(x, other_slope, other_shift)
    if torch.equal(slope, other_slope):
        return line
    rest = b.affine(relu(b, b.affine(x, 1.0, -bound)), slope - other_slope, 0.0)
    if not bool(torch.stack([other_slope, other_shift]).any()):
        return rest
    bent: View = linear(b, line, 1.0, rest, 1.0)
    return bent
