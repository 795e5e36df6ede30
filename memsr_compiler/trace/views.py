"""A tensor while a network is being read: an op of the graph, and how its axes are looked at.

Reshapes, permutations and views move no data in the IR.  A `View` remembers them as factors of the four axes, and
only when an op wants a feature map again is it said what they come to: nothing, a channel shuffle, a pixel shuffle.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from numbers import Number
from typing import Any, Literal, NoReturn

from memsr_compiler.errors import UnsupportedModel

log = logging.getLogger(__name__)

NO_BOUND = 2**31 - 1  # pixels a side; torch's own largest, which is nobody's limit, as are larger ones
USUAL_LEAST = 2  # pixels a side; torch.export looks at no smaller images
HEIGHT, WIDTH = 997, 1009  # of the exported example; primes: what is a multiple of them is a height or a width


class Batch(int):
    """The number of images, or a multiple of it; the same number in a network's code or file is another thing.

    Whatever else code makes of it may be right for the numbers that are tried alone: it raises DependsOnBatch, but
    for a rest, which readers ask about themselves.
    """

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Batch) and other != 0:
            self._refuse()
        return Batch(int(self) + int(other))

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        if not _is_number(other):
            return NotImplemented  # sizes and lists know themselves what that is
        if isinstance(other, Batch) or other != int(other):
            self._refuse()
        return Batch(int(self) * int(other)) if other else 0

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        if not _is_number(other):
            return NotImplemented
        if other != int(other):
            self._refuse()
        quotient = int(self) // int(other)
        return quotient if isinstance(other, Batch) else Batch(quotient)

    def _refuse(self, *_: Any) -> NoReturn:
        raise DependsOnBatch(_COUNTS)

    __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __rfloordiv__ = _refuse
    __divmod__ = __rdivmod__ = __pow__ = __rpow__ = __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _refuse
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __neg__ = __invert__ = _refuse


_COUNTS = "it computes with the number of images"


def _is_number(value: Any) -> bool:
    return isinstance(value, Number)


BATCH = Batch(2)  # networks are read with this batch size; whatever they do with it, they may do with any


class Unreadable(UnsupportedModel):
    """This way of reading the network does not understand it; another may.

    located   whether the message begins with the module and the operation
    """

    def __init__(self, message: str, *, located: bool = False) -> None:
        super().__init__(message)
        self.located = located


class DependsOnSize(Unreadable):
    """The network computes with the height or width of its image: what it does at one size it need not at another."""


class DependsOnBatch(Unreadable):
    """The network computes with the number of images: for another number it may be another."""


class WrongChannels(UnsupportedModel):
    """A convolution takes another number of channels than it is given; the network may take another kind of image."""


@dataclass(frozen=True)
class Size:
    """`factor` times the height ("h") or width ("w") of the network's input."""

    symbol: Literal["h", "w"]
    factor: Fraction = Fraction(1)

    def __mul__(self, other: float) -> Size:
        return replace(self, factor=self.factor * _ratio(other))

    __rmul__ = __mul__

    def __truediv__(self, other: float) -> Size:
        return replace(self, factor=self.factor / _ratio(other))

    def __floordiv__(self, other: int) -> Size:
        result = self / other
        if result.factor.denominator != 1:
            raise DependsOnSize(f"half of a size: {self} // {other} depends on whether it is even")
        return result

    def __trunc__(self) -> Size:
        if self.factor.denominator != 1:
            raise DependsOnSize(f"part of a size: {self}, rounded, depends on what it divides by")
        return self

    def __sym_float__(self) -> Size:  # torch.sym_float, before a product with a factor like 2.0
        return self

    def __str__(self) -> str:
        return self.symbol if self.factor == 1 else f"{self.factor}{self.symbol}"


def _ratio(number: object) -> Fraction:
    if isinstance(number, (int, float)):
        return Fraction(number)
    raise DependsOnSize("the network computes with products of sizes")


@dataclass(frozen=True)
class Factor:
    """A share of an axis of the op: indices i * stride of it, i < size.  Sizes along h and w are `Size`s."""

    axis: Literal["n", "c", "h", "w"]
    stride: int
    size: int | Size


Axes = tuple[tuple[Factor, ...], ...]


@dataclass(frozen=True)
class View:
    """A tensor: the value of an op, each axis of the tensor a product of factors of the op's axes, slowest first."""

    op: str
    axes: Axes

    @staticmethod
    def of(op: str, channels: int, scale: int) -> View:
        height, width = Size("h", Fraction(scale)), Size("w", Fraction(scale))
        shape: list[Factor] = [
            Factor("n", 1, BATCH),
            Factor("c", 1, channels),
            Factor("h", 1, height),
            Factor("w", 1, width),
        ]
        return View(op, tuple((f,) for f in shape))

    @property
    def shape(self) -> tuple[int | Size, ...]:
        return tuple(_product(axis) for axis in self.axes)

    def permute(self, order: list[int]) -> View:
        return replace(self, axes=tuple(self.axes[i] for i in order))

    def reshape(self, shape: list[int | Size]) -> View:
        """The same elements in the same order, read with other axes.  Raises Unreadable if factors are cut apart."""
        left = [f for axis in self.axes for f in axis if f.size != 1]
        shape = [-1 if _is_area(size) else size for size in shape]
        shape = [_missing(self, shape) if size == -1 else size for size in shape]
        axes: list[tuple[Factor, ...]] = []
        for position, size in enumerate(shape):
            if size == -1:
                axes.append(tuple(_rest(left, shape[position + 1 :])))
                del left[: len(left) - _tail_length(left, shape[position + 1 :])]
                continue
            axes.append(_take(left, size))
        if left:
            raise Unreadable(f"a reshape to {tuple(map(str, shape))} loses elements")
        return replace(self, axes=tuple(axes))


def tell_sizes(sides: Sequence[float], *, fixed: bool, who: str = "it") -> tuple[str, ...]:
    """Warn of a graph that was made for some sizes of images: what its code does at others, it does not say.

    sides   height and width, the largest there may be;   fixed   whether there are no others;   who   the graph

    Gives words on what is assumed: see `Teacher.assumed`.
    """
    if min(sides) >= NO_BOUND:
        return ()
    most = "x".join(f"{side:,.0f}" if side < NO_BOUND else "any" for side in sides)
    return tell_other_sizes(most if fixed else f"up to {most}", who)


def tell_other_sizes(which: str, who: str = "it") -> tuple[str, ...]:
    """The same of a graph that was made for images of these sizes, in words."""
    log.warning(
        "%s was exported for images of %s: read as for every size, at which its code may do something else", who, which
    )
    return (f"{who} does the same at every size (it was exported for images of {which})",)


def tell_conditions(which: str, who: str = "it") -> tuple[str, ...]:
    """The same of a graph that was made for images that meet these conditions, in words."""
    log.warning(
        "%s was exported for images with %s: read as for every image, of which its code may make something else",
        who,
        which,
    )
    return (f"{who} does the same to every image (it was exported for those with {which})",)


def _is_area(size: int | Size) -> bool:
    """Whether it is of all pixels of an exported example, height times width, which no `Size` says."""
    return isinstance(size, Size) and size.symbol == "h" and size.factor % WIDTH == 0


def _missing(x: View, target: Sequence[int | Size]) -> int | Size:
    """The size that -1 stands for; -1 if that is a height times a width, which no single size says."""
    ratio, powers = Fraction(1), {"h": 0, "w": 0}
    sizes = [(f.size, 1) for axis in x.axes for f in axis] + [(n, -1) for n in target if n != -1]
    for size, sign in sizes:
        number = size.factor if isinstance(size, Size) else Fraction(size)
        ratio *= number**sign
        if isinstance(size, Size):
            powers[size.symbol] += sign
    if powers["h"] == powers["w"] == 1:
        return -1
    if ratio <= 0 or min(powers.values()) < 0 or (not any(powers.values()) and ratio.denominator != 1):
        raise Unreadable(f"a reshape to ({', '.join(map(str, target))}) does not fit")
    if powers["h"]:
        return Size("h", ratio)
    return Size("w", ratio) if powers["w"] else int(ratio)


def _product(axis: tuple[Factor, ...]) -> int | Size:
    sizes = [f.size for f in axis if isinstance(f.size, Size)]
    rest = prod(f.size for f in axis if isinstance(f.size, int))
    if len(sizes) > 1:
        raise Unreadable("height and width are flattened into one axis")
    return sizes[0] * rest if sizes else rest


def _divides(size: int | Size, whole: int | Size) -> int | Size | None:
    """whole / size if that is a whole number, or a whole multiple of a symbol."""
    if isinstance(size, Size):
        if not isinstance(whole, Size) or whole.symbol != size.symbol:
            return None
        ratio = whole.factor / size.factor
        return int(ratio) if ratio.denominator == 1 else None
    if isinstance(whole, Size):
        quotient = whole / size
        return quotient if quotient.factor.denominator == 1 else None
    return whole // int(size) if int(whole) % int(size) == 0 else None


def _take(left: list[Factor], size: int | Size) -> tuple[Factor, ...]:
    """Factors worth `size` from the front of `left`, the last of them split if need be."""
    taken: list[Factor] = []
    while size != 1:
        if not left:
            raise Unreadable("a reshape wants more elements than there are")
        first = left.pop(0)
        remaining = _divides(first.size, size)
        if remaining is not None:
            taken.append(first)
            size = remaining
            continue
        inner = _divides(size, first.size)
        if inner is None and first.axis == "n":
            raise Unreadable("a reshape takes the batch for another number of images, or for another axis")
        if inner is None:
            raise Unreadable(f"a reshape cuts an axis of {first.size} elements at {size}")
        stride = inner if isinstance(inner, int) else None
        if stride is None:
            raise Unreadable("a reshape puts the fixed part of a height or width first")
        taken.append(Factor(first.axis, first.stride * stride, size))
        left.insert(0, Factor(first.axis, first.stride, inner))
        size = 1
    return tuple(taken)


def _tail_length(left: list[Factor], shape: list[int | Size]) -> int:
    """Number of factors at the end of `left` that the sizes after a -1 take."""
    wanted = [s for s in shape if s != 1]
    count = 0
    for size in reversed(wanted):
        while size != 1:
            if count == len(left):
                raise Unreadable("a reshape wants more elements than there are")
            quotient = _divides(left[-1 - count].size, size)
            if quotient is None:
                raise Unreadable("a reshape with -1 cuts an axis apart; write the size out")
            size, count = quotient, count + 1
    return count


def _rest(left: list[Factor], shape: list[int | Size]) -> list[Factor]:
    return left[: len(left) - _tail_length(left, shape)]
