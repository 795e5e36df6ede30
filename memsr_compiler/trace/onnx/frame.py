"""An ONNX file's sizes, free or fixed, read as axes of the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from memsr_compiler.trace.views import BATCH, Axes, Factor, Size, Unreadable, View


@dataclass(frozen=True)
class Frame:
    """The size of the image as the file has it: None where it is free.

    In a file of a fixed size every size is a plain number, and a height cannot be told from a number of
    channels that happens to be the same. So nothing is decided by value: a reshape is read element by
    element, in order, and what was cut out of the height knows that it was. The leading part of a height that
    is cut in two grows with the image.
    """

    batch: int | None = None
    height: int | None = None
    width: int | None = None

    def shape(self, x: View) -> list[int | Size]:
        """The sizes of x's axes as the network sees them: numbers if the file fixes them."""
        if self.batch is None and self.height is None:
            return list(x.shape)
        axes = self._drop_batch(x).axes
        if self.height is None:
            return list(replace(x, axes=axes).shape)
        return [math.prod(self._pixels(f) for f in axis) for axis in axes]

    def reshape(self, x: View, target: Sequence[int | Size]) -> View:
        """x with other axes; -1 stands for what is left.  Raises Unreadable if an axis is cut apart."""
        bare = self._drop_batch(x)
        if self.height is None:
            return self._add_batch(bare.reshape(list(target)))
        left = [f for axis in bare.axes for f in axis if f.size != 1]
        numbers = [int(n) for n in target]  # type: ignore[arg-type]
        if -1 in numbers:
            whole, known = math.prod(map(self._pixels, left)), -math.prod(numbers)
            if known < 1 or whole % known:
                raise Unreadable(f"a reshape to {numbers} does not fit {whole} elements")
            numbers[numbers.index(-1)] = whole // known
        if any(n < 1 for n in numbers):
            raise Unreadable(f"a reshape to {numbers}")
        axes = tuple(self._cut(left, n) for n in numbers)
        if left:
            raise Unreadable(f"a reshape to {numbers} loses elements")
        return self._add_batch(replace(x, axes=axes))

    def change_axes(self, x: View, change: Callable[[Axes], Axes]) -> View:
        """x with its axes changed; where the batch is 1 its axis is any axis of size 1, best the first."""
        bare = self._drop_batch(x)
        return self._add_batch(replace(x, axes=change(bare.axes)))

    def _drop_batch(self, x: View) -> View:
        if self.batch is None:
            return x
        return replace(x, axes=tuple(tuple(f for f in axis if f.axis != "n" and f.size != 1) for axis in x.axes))

    def _add_batch(self, x: View) -> View:
        if self.batch is None:
            return x
        axes = list(x.axes)
        at = axes.index(()) if () in axes else 0
        axes[at : at + 1] = [(Factor("n", 1, BATCH), *axes[at])] if axes else []
        return replace(x, axes=tuple(axes))

    def _pixels(self, f: Factor) -> int:
        if isinstance(f.size, int):
            return f.size
        size = f.size.factor * ((self.height if f.size.symbol == "h" else self.width) or 0)
        if size.denominator != 1:
            raise Unreadable(f"{size} rows or columns")
        return int(size)

    def _cut(self, left: list[Factor], size: int) -> tuple[Factor, ...]:
        """Factors worth `size` from the front of `left`, the last of them split if need be."""
        taken: list[Factor] = []
        while size != 1:
            if not left:
                raise Unreadable("a reshape wants more elements than there are")
            f = left.pop(0)
            has = int(self._pixels(f))
            if size % has == 0:
                taken.append(f)
                size //= has
                continue
            if has % size:
                raise Unreadable(f"a reshape cuts an axis of {has} elements at {size}")
            inner = has // int(size)
            outer = f.size / inner if isinstance(f.size, Size) else size
            taken.append(Factor(f.axis, f.stride * inner, outer))
            left.insert(0, Factor(f.axis, f.stride, inner))
            size = 1
        return tuple(taken)
