"""Words for selections and views: which channels, and how the axes are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.builder import MAX_KERNEL, Builder, Padded, Uncropped
from memsr_compiler.trace.torch_ops.registry import word
from memsr_compiler.trace.views import View


def select(b: Builder, x: View, index: Sequence[int]) -> View:
    if list(index) == list(range(b.channels(x))):
        return x
    if not index:
        b.refuse("it selects no channel", "check the slice")
    return b.add(ir.Select(name=b.name("select"), inputs=(b.feature(x),), index=tuple(index)))


@word("cat", "concat", "concatenate")
def cat(b: Builder, tensors: Sequence[View], dim: int = 0) -> View:
    if dim not in (1, -3):
        b.refuse(f"it concatenates along axis {dim}", "concatenate channels (dim=1)")
    if len(tensors) == 1:
        return tensors[0]
    return b.add(ir.Concat(name=b.name("cat"), inputs=tuple(b.feature(t) for t in tensors)))


@word("chunk")
def chunk(b: Builder, x: View, chunks: int, dim: int = 0) -> tuple[View, ...]:
    size = -(-b.channels(x) // chunks)
    return split(b, x, size, dim)


@word("split", "split_with_sizes")
def split(b: Builder, x: View, split_size_or_sections: Any, dim: int = 0) -> tuple[View, ...]:
    if dim not in (1, -3):
        b.refuse(f"it splits axis {dim}", "split channels (dim=1)")
    width, sizes = b.channels(x), split_size_or_sections
    if isinstance(sizes, int):
        sizes = [min(sizes, width - i) for i in range(0, width, sizes)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(select(b, x, range(s, s + n)) for s, n in zip(starts, sizes, strict=True))


@word("slice")
def slice_axis(b: Builder, x: View, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> View:
    part: View = index(b, x, (slice(None),) * (dim % 4) + (slice(start, end, step),))
    return part


@word("slice_scatter")
def slice_scatter(
    b: Builder, x: View, src: View, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> View:
    if dim % 4 != 1:
        whole = (
            start in (None, 0)
            and step == 1
            and (end is None or end == x.shape[dim] or (isinstance(end, int) and end >= 2**31))
        )
        if not whole:
            b.refuse(f"it writes into part of axis {dim}", "a plain network treats every pixel alike")
        return src
    width = b.channels(x)
    written = list(range(width))[slice(start, end, step)]
    both = cat(b, [x, src], 1)
    return select(b, both, [width + written.index(c) if c in written else c for c in range(width)])


@word("copy")
def copy(b: Builder, x: View, src: View, non_blocking: bool = False) -> View:
    return src


@word("narrow")
def narrow(b: Builder, x: View, dim: int, start: int, length: int) -> View:
    return slice_axis(b, x, dim, start, start + length)


@word("index_select")
def index_select(b: Builder, x: View, dim: int, index: Tensor) -> View:
    if dim not in (1, -3):
        b.refuse(f"it selects along axis {dim}", "select channels (dim=1)")
    return select(b, x, index.tolist())


@word("getitem")
def index(b: Builder, x: Any, key: Any) -> Any:
    if not isinstance(x, (View, Uncropped)):
        return x[key]
    keys = list(key) if isinstance(key, tuple) else [key]
    if isinstance(x, Uncropped):
        return _crop(b, x, keys)
    if any(k is None for k in keys):
        b.give_up("indexing with None adds an axis; write it as unsqueeze")
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(x.axes) - len(keys) + 1)
    for axis, (size, k) in enumerate(zip(x.shape, keys, strict=False)):
        if axis == 1 or k == slice(None) or type(k) is int:
            continue
        whole = (
            isinstance(k, slice) and k.start in (None, 0) and k.step in (None, 1) and (k.stop is None or k.stop == size)
        )
        endless = isinstance(k, slice) and k.start in (None, 0) and isinstance(k.stop, int) and k.stop >= 2**31
        if not whole and not endless:
            _refuse_part(b, axis)
    if len(keys) > 1 and type(keys[1]) is not int and keys[1] != slice(None):
        numbers = keys[1]
        if not isinstance(numbers, slice):
            numbers = torch.as_tensor(numbers)
            if numbers.dtype == torch.bool:
                numbers = numbers.nonzero()[:, 0]
            numbers = numbers.tolist()
        width = b.channels(x)
        x = select(b, x, range(width)[numbers] if isinstance(numbers, slice) else [i % width for i in numbers])
    for axis in reversed(range(len(keys))):
        if type(keys[axis]) is int:
            x = select_one(b, x, axis, keys[axis])
    return x


def _crop(b: Builder, x: Uncropped, keys: Sequence[Any]) -> View | Uncropped:
    """Rows and columns taken off, all channels kept."""
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys = [*keys[:at], *[slice(None)] * (5 - len(keys)), *keys[at + 1 :]]
    if any(not isinstance(k, slice) or k.step not in (None, 1) for k in keys) or list(keys[:2]) != [slice(None)] * 2:
        raise UnsupportedModel(x.why)
    result: View | Uncropped = x
    for axis, k in enumerate(keys[2:]):
        cut = surplus_of(x, axis, k.start, k.stop)
        if cut is None:
            raise UnsupportedModel(x.why)
        if any(cut):
            assert isinstance(result, Uncropped), "it was cut along another axis only"
            result = b.crop(result, axis, *cut)
    return result


def surplus_of(x: Uncropped, axis: int, start: Any, stop: Any) -> tuple[int, int] | None:
    """Pixels that a slice takes off before and behind; None where that is not known."""
    first = 0 if start is None else start
    if stop is None or (isinstance(stop, int) and stop >= 2**31 - 1):
        last: Any = 0
    elif stop == x.sizes[axis]:
        last = x.surplus[axis]
    else:
        last = -stop if isinstance(stop, int) and stop < 0 else None
    return (first, last) if isinstance(first, int) and first >= 0 and isinstance(last, int) else None


def _refuse_part(b: Builder, axis: int) -> NoReturn:
    if axis == 0:
        b.refuse("it takes a part of the batch", "leave the batch whole, as a plain network treats each image alone")
    b.refuse(
        f"it takes part of axis {axis}",
        "a plain network keeps every pixel: crop outside the network; write every second row and column (Focus, "
        "wavelets) as pixel_unshuffle",
    )


@word("index")
def index_tensors(b: Builder, x: View, indices: Sequence[Tensor | None]) -> Any:
    """ATen's x[..., i, ...]: a None stands for a whole axis."""
    return index(b, x, tuple(slice(None) if i is None else i for i in indices))


@word("select")
def select_one(b: Builder, x: View, dim: int, index: int) -> View:
    """x[:, i]: without that axis."""
    at = dim % len(x.axes)
    if x.shape[at] != 1:
        if at != 1 or len(x.axes) != 4:
            _refuse_part(b, at)
        x = select(b, x, [index % b.channels(x)])
    return squeeze(b, x, at)


@word("unbind")
def unbind(b: Builder, x: View, dim: int = 0) -> tuple[View, ...]:
    if dim not in (1, -3):
        b.refuse(f"it splits axis {dim}", "split channels (dim=1)")
    return tuple(select_one(b, x, 1, i) for i in range(b.channels(x)))


@word("stack")
def stack(b: Builder, tensors: Sequence[View], dim: int = 0) -> View:
    if dim not in (1, -3) or any(len(t.axes) != 3 for t in tensors):
        b.give_up(f"it stacks along axis {dim}; concatenate channels instead")
    return cat(b, [unsqueeze(b, t, 1) for t in tensors], 1)


@word("flip")
def flip(b: Builder, x: View, *dims: Any) -> View:
    axes = list(dims[0]) if len(dims) == 1 and isinstance(dims[0], Sequence) else list(dims)
    if any(a not in (1, -3) for a in axes):
        b.refuse("it mirrors the image, and a plain network is local", "mirror outside the network")
    return select(b, x, range(b.channels(x))[::-1]) if axes else x


@word("size", "sym_size")
def size(b: Builder, x: View, dim: int | None = None) -> Any:
    return x.shape if dim is None else x.shape[dim]


@word("view", "reshape", "_unsafe_view")
def reshape(b: Builder, x: View, *shape: Any) -> View:
    sizes = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else list(shape)
    return x.reshape(sizes)


@word("flatten")
def flatten(b: Builder, x: View, start_dim: int = 0, end_dim: int = -1) -> View:
    first, last = start_dim % len(x.axes), end_dim % len(x.axes)
    merged = tuple(f for axis in x.axes[first : last + 1] for f in axis)
    return View(x.op, (*x.axes[:first], merged, *x.axes[last + 1 :]))


@word("unflatten")
def unflatten(b: Builder, x: View, dim: int, sizes: Sequence[Any]) -> View:
    at = dim % len(x.axes)
    parts = View(x.op, (x.axes[at],)).reshape(list(sizes)).axes
    return View(x.op, (*x.axes[:at], *parts, *x.axes[at + 1 :]))


@word("permute")
def permute(b: Builder, x: View, *dims: Any) -> View:
    order = list(dims[0]) if len(dims) == 1 and isinstance(dims[0], Sequence) else list(dims)
    return x.permute([d % len(x.axes) for d in order])


@word("transpose", "swapaxes", "swapdims")
def transpose(b: Builder, x: View, dim0: int, dim1: int) -> View:
    order = list(range(len(x.axes)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return x.permute(order)


@word("movedim", "moveaxis")
def movedim(b: Builder, x: View, source: Any, destination: Any) -> View:
    count = len(x.axes)
    pairs = [[d % count for d in (v if isinstance(v, Sequence) else [v])] for v in (source, destination)]
    order = [d for d in range(count) if d not in pairs[0]]
    for at, d in sorted(zip(pairs[1], pairs[0], strict=True)):
        order.insert(at, d)
    return x.permute(order)


@word("unsqueeze")
def unsqueeze(b: Builder, x: View, dim: int) -> View:
    at = dim % (len(x.axes) + 1)
    return View(x.op, (*x.axes[:at], (), *x.axes[at:]))


@word("squeeze")
def squeeze(b: Builder, x: View, dim: int) -> View:
    at = dim % len(x.axes)
    return View(x.op, (*x.axes[:at], *x.axes[at + 1 :])) if x.shape[at] == 1 else x


@word("repeat")
def repeat(b: Builder, x: View, *sizes: Any) -> View:
    times = list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else list(sizes)
    if len(times) != 4 or [t for i, t in enumerate(times) if i != 1] != [1, 1, 1]:
        b.refuse("it repeats the image itself", "repeat channels only")
    return select(b, x, list(range(b.channels(x))) * times[1])


@word("tile")
def tile(b: Builder, x: View, *dims: Any) -> View:
    times = list(dims[0]) if len(dims) == 1 and isinstance(dims[0], Sequence) else list(dims)
    return repeat(b, x, [1] * (4 - len(times)) + times)


@word("repeat_interleave")
def repeat_interleave(b: Builder, x: View, repeats: int, dim: int | None = None) -> View:
    if dim not in (1, -3):
        b.give_up("pixels are repeated along one axis; write it as nearest-neighbour interpolate")
    return select(b, x, [c for c in range(b.channels(x)) for _ in range(repeats)])


SAME = (
    "clone",
    "contiguous",
    "detach",
    "alias",
    "to",
    "_to_copy",
    "float",
    "double",
    "lift_fresh_copy",
    "type",
    "type_as",
)


@word(*SAME)
def same(b: Builder, x: Any, *_: object, **__: object) -> Any:
    return x


@word("dropout", "dropout2d", "feature_dropout", "alpha_dropout", "native_dropout")
def dropout(b: Builder, x: View, p: float = 0.5, training: bool = True, inplace: bool = False) -> View:
    if training:
        b.refuse(
            "dropout is active", "call model.eval() first; F.dropout drops even then without training=self.training"
        )
    return x


@word("pad", "constant_pad_nd")
def pad(b: Builder, x: View, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> View | Padded:
    """Zeros around an image, (left, right, top, bottom), which the convolution that follows takes for its own."""
    if not any(pad):
        return x
    if mode != "constant" or value:
        how = f"value {value:g}" if value else mode
        b.refuse(f"padding {tuple(pad)} ({how}) outside a convolution", "use zero padding, (k - 1) / 2, and retrain")
    sides = [*pad, 0, 0, 0, 0]
    if any(sides[4:]):
        b.refuse(f"padding {tuple(pad)} is not of height and width alone", "add channels of zeros by torch.cat")
    if min(sides) < 0 or sides[0] != sides[1] or sides[2] != sides[3]:
        b.refuse(f"padding {tuple(pad)} is not the same on both sides of an image", "pad by (k - 1) / 2, and retrain")
    b.room(2 * max(sides), MAX_KERNEL, "padding")
    return Padded(x, rows=sides[2], columns=sides[0])
