"""Words for selections and views: which channels, and how the axes are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from memsr_compiler.errors import InvalidInput
from memsr_compiler.quantities import say_count
from memsr_compiler.trace.builder import MAX_CHANNELS, Uncropped
from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.folds.registry import COUNTS, list_numbers
from memsr_compiler.trace.onnx.folds.shape import split_sizes
from memsr_compiler.trace.onnx.ops.registry import Context, Value, onnx_word
from memsr_compiler.trace.onnx.ops.unsupported import APART, WRITES
from memsr_compiler.trace.onnx.tensors import Array
from memsr_compiler.trace.torch_ops import shape as torch_shape
from memsr_compiler.trace.torch_ops.unsupported import IMPOSSIBLE
from memsr_compiler.trace.views import Axes, Batch, Factor, Size, Unreadable, View

_BATCH = "leave the batch whole, or export it for a batch of 1"


@onnx_word("Split")
def split(c: Context, node: Node, x: View, sizes: Value | None = None) -> Any:
    """Channels apart, on whatever axis they are: TensorFlow's come last."""
    axis, width = c.axis(x, node.integer("axis", 0)), c.builder.types[x.op].channels
    if x.axes[axis] != (Factor("c", 1, width),):
        c.channels(x, axis, "splits")  # of a view that has to become a feature map first
        width = c.builder.channels(x)
    if sizes is not None:
        sizes = np.array(c.integers(sizes, "sizes"))
    parts = split_sizes(node, width, sizes)
    if (axis, len(x.axes)) == (1, 4):
        return torch_shape.split(c.builder, x, parts, 1)
    whole = torch_shape.split(c.builder, _whole(c, x), parts, 1)
    return tuple(
        replace(x, op=part.op, axes=(*x.axes[:axis], (Factor("c", 1, n),), *x.axes[axis + 1 :]))
        for part, n in zip(whole, parts, strict=True)
    )


@onnx_word("Slice")
def take_slice(
    c: Context,
    node: Node,
    x: View | Uncropped,
    starts: Value,
    ends: Value,
    axes: Value | None = None,
    steps: Value | None = None,
) -> View | Uncropped:
    firsts, lasts = _numbers(starts), _images_or_numbers(ends)
    where = list(range(len(firsts))) if axes is None else c.integers(axes, "axes")
    pace = [1] * len(firsts) if steps is None else c.integers(steps, "steps")
    if isinstance(x, Uncropped):
        lasts = _numbers(ends)
        return _crop(c, x, zip(where, firsts, lasts, pace, strict=True))
    shape = c.frame.shape(x)
    channels = slice(None)
    for axis, first, last, step in zip([c.axis(x, a) for a in where], firsts, lasts, pace, strict=True):
        size = shape[axis]
        end = size if type(size) is int else 2**31 - 1
        to_end = _is_same(last, size) or (isinstance(last, int) and not isinstance(last, Batch) and last >= end)
        if first == 0 and to_end and step == 1:
            continue
        if isinstance(size, Batch):
            c.builder.refuse("it takes a part of the batch", _BATCH)
        if isinstance(last, Batch):
            c.builder.refuse("it takes as many as there are images", _BATCH)
        if axis != 1 or len(x.axes) != 4:
            c.builder.refuse(
                f"it takes part of axis {axis} of {len(x.axes)}",
                "a plain network keeps every pixel; crop outside the network",
            )
        channels = slice(first, last, step)
    if channels == slice(None):
        return x
    return torch_shape.select(c.builder, x, range(c.builder.channels(x))[channels])


def _crop(c: Context, x: Uncropped, parts: Iterable[tuple[int, Any, Any, int]]) -> View | Uncropped:
    """Rows and columns taken off what a transposed convolution made."""
    return torch_shape.crop_each(c.builder, x, _cuts(c, x, parts))


def _cuts(
    c: Context, x: Uncropped, parts: Iterable[tuple[int, Any, Any, int]]
) -> Iterator[tuple[int, tuple[int, int] | None]]:
    """The axis of each slice, and how many pixels it takes off before and behind."""
    for axis, first, last, step in parts:
        at = axis % 4 - 2
        if at >= 0 and isinstance(last, int) and 0 <= last < 2**31 - 1 and c.frame.height is not None:
            assert c.frame.width is not None, "one is fixed where the other is"
            side = x.sizes[at].factor * (c.frame.height, c.frame.width)[at] + x.surplus[at]
            last = min(last - int(side), 0) or None
        yield at, torch_shape.surplus_of(x, at, first, last) if at >= 0 and step == 1 else None


def _numbers(value: Value) -> list[Any]:
    """Numbers and sizes of the image.  Raises Unreadable where the number of images is among them."""
    numbers = _images_or_numbers(value)
    if any(isinstance(n, Batch) for n in numbers):
        raise Unreadable(COUNTS)
    return numbers


def _images_or_numbers(value: Value) -> list[Any]:
    if not isinstance(value, np.ndarray):
        raise Unreadable("a slice at a place that depends on the image")
    return list_numbers(value)


def _is_same(number: int | Size, size: int | Size) -> bool:
    """Whether they are the same for every number of images: networks are read with two, which 2 is not."""
    return number == size and isinstance(number, Batch) == isinstance(size, Batch)


@onnx_word("Gather")
def gather(c: Context, node: Node, x: View, index: Value) -> View:
    c.channels(x, node.integer("axis", 0), "selects along")
    numbers, width = c.integers(index, "index"), c.builder.channels(x)
    if any(not -width <= i < width for i in numbers):
        raise InvalidInput(f"{node.name}: {node.op}: an index is outside {say_count(width, 'channel')}.")
    chosen = torch_shape.select(c.builder, x, [i % width for i in numbers])
    assert isinstance(index, np.ndarray), "c.integers saw to it"
    if index.ndim == 0:  # the channel axis is dropped
        return c.frame.change_axes(chosen, lambda axes: (axes[0], *axes[2:]))
    if index.ndim > 1:
        c.builder.refuse("its index has several axes", "select channels with a list")
    return chosen


@onnx_word("GatherND")
def gather_nd(c: Context, node: Node, x: View, index: Value) -> View:
    """Channels by number, on whatever axis they are, as torch's newer exporter writes x[:, [2, 1, 0]]."""
    numbers, b = c.integers(index, "index"), c.builder
    assert isinstance(index, np.ndarray), "c.integers saw to it"
    width = b.types[x.op].channels
    chosen: Axes = ((Factor("c", 1, len(numbers)),),)

    def replace_channels(axes: Axes) -> Axes:
        if axes[:1] != ((Factor("c", 1, width),),) or node.integer("batch_dims", 0) or index.shape != (len(numbers), 1):
            b.refuse("it takes part of something else than the channels", "select channels with a list")
        return chosen + axes[1:]

    result = c.frame.change_axes(x, replace_channels)
    if any(not -width <= i < width for i in numbers):
        raise InvalidInput(f"{node.name}: {node.op}: an index is outside {say_count(width, 'channel')}.")
    return replace(result, op=torch_shape.select(b, _whole(c, x), [i % width for i in numbers]).op)


@onnx_word("ScatterND")
def scatter_nd(c: Context, node: Node, x: Value, index: Value, parts: Value) -> View:
    """Channels put in the place of others, as torch's newer exporter writes y[:, :k] = z: on the first of the axes."""
    b = c.builder
    if not isinstance(x, View):
        b.refuse("it writes feature maps into a part of a constant, which is not read", APART)
    if not isinstance(index, np.ndarray) or index.dtype == object or not isinstance(parts, View):
        b.refuse(*WRITES)
    numbers, width = c.integers(index, "index"), b.types[x.op].channels
    if any(not -width <= i < width for i in numbers):
        raise InvalidInput(f"{node.name}: {node.op}: an index is outside {say_count(width, 'channel')}.")
    place = {number % width: width + i for i, number in enumerate(numbers)}
    apart = len(place) == len(numbers) and node.text("reduction", "none") == "none"
    theirs: Axes = ((Factor("c", 1, len(numbers)),), *x.axes[1:])
    if not apart or index.shape != (len(numbers), 1) or x.axes[0] != (Factor("c", 1, width),) or parts.axes != theirs:
        b.refuse(*WRITES)
    both = torch_shape.cat(b, [_whole(c, x), _whole(c, parts)], 1)
    return replace(x, op=torch_shape.select(b, both, [place.get(i, i) for i in range(width)]).op)


def _whole(c: Context, x: View) -> View:
    """The op of a view, as it is."""
    return View.of(x.op, c.builder.types[x.op].channels, c.builder.types[x.op].scale)


@onnx_word("Reshape")
def reshape(c: Context, node: Node, x: View, shape: Value) -> View:
    target: list[int | Size] = _images_or_numbers(shape)
    if not node.integer("allowzero", 0):
        own = c.frame.shape(x) if 0 in target else []
        target = [own[i] if n == 0 else n for i, n in enumerate(target)]
    try:
        result = c.frame.reshape(x, target)
        if c.frame.batch is None:
            _require_batch(c, result, target)
        return result
    except Unreadable as error:
        fixed = "at the size that the file fixes; export it with dynamic height and width"
        c.builder.refuse(str(error), "use a pixel shuffle" if c.frame.height is None else fixed)


def _require_batch(c: Context, x: View, target: Sequence[int | Size]) -> None:
    """Refuse a number of images that the file states, where it leaves it free."""
    for axis, size in zip(x.axes, target, strict=True):
        if type(size) is int and size != -1 and any(f.axis == "n" for f in axis):
            c.builder.refuse(f"a reshape of the batch to {size}, whatever the number of images is", _BATCH)


@onnx_word("Flatten")
def flatten(c: Context, node: Node, x: View) -> View:
    at, rank = node.integer("axis", 1), len(x.axes)
    at += rank if at < 0 else 0

    def merge(axes: Axes) -> Axes:
        return (tuple(f for axis in axes[:at] for f in axis), tuple(f for axis in axes[at:] for f in axis))

    return c.frame.change_axes(x, merge)


@onnx_word("Transpose")
def transpose(c: Context, node: Node, x: View) -> View:
    order = node.integers("perm", list(range(len(x.axes)))[::-1])
    if sorted(order) != list(range(len(x.axes))):
        raise InvalidInput(f"{node.name}: perm {order} is no order of {say_count(len(x.axes), 'axis', 'axes')}.")
    return c.frame.change_axes(x, lambda axes: tuple(axes[i] for i in order))


@onnx_word("Unsqueeze")
def unsqueeze(c: Context, node: Node, x: View, axes: Value | None = None) -> View:
    where = node.integers("axes", []) if axes is None else c.integers(axes, "axes")
    rank = len(x.axes) + len(where)
    new = {a % rank for a in where}

    def widen(old: Axes) -> Axes:
        left = list(old)
        return tuple(() if i in new else left.pop(0) for i in range(rank))

    return c.frame.change_axes(x, widen)


@onnx_word("Squeeze")
def squeeze(c: Context, node: Node, x: View, axes: Value | None = None) -> View:
    dropped = node.integers("axes", []) if axes is None else c.integers(axes, "axes")
    shape = c.frame.shape(x)
    if not dropped and any(isinstance(n, (Size, Batch)) for n in shape):
        c.builder.refuse(
            "it drops every axis of size 1, and those of a single image, or of one row of pixels, are among them",
            "say which axes it drops",
        )
    gone = {c.axis(x, a) for a in dropped} or {i for i, n in enumerate(shape) if n == 1}
    if any(shape[i] != 1 for i in gone):
        c.builder.refuse(f"it drops axes {sorted(gone)} of {'x'.join(map(str, shape))}", "drop axes of size 1 only")
    return c.frame.change_axes(x, lambda old: tuple(axis for i, axis in enumerate(old) if i not in gone))


@onnx_word("Shape")
def shape(c: Context, node: Node, x: View) -> Array:
    sizes = c.frame.shape(x)[node.integer("start", 0) : node.attributes.get("end")]
    array = np.empty(len(sizes), dtype=object)
    array[:] = sizes
    return array


@onnx_word("Expand")
def expand(c: Context, node: Node, x: View, target: Value) -> View:
    wanted, own = _images_or_numbers(target), c.frame.shape(x)
    if len(wanted) > len(own):
        c.builder.refuse(f"it makes {len(wanted)} axes of {len(own)}", "leave those in front out")
    wanted = [1] * (len(own) - len(wanted)) + wanted
    for n, size in zip(wanted, own, strict=True):
        if isinstance(size, Batch) and not isinstance(n, Batch):
            c.builder.require_one_image(n)
    wide = [i for i, (n, size) in enumerate(zip(wanted, own, strict=True)) if n != 1 and not _is_same(n, size)]
    if any(own[i] != 1 or isinstance(wanted[i], Batch) for i in wide):
        c.builder.refuse("it repeats the image itself", "repeat channels only")
    if wide == [1] and len(own) == 4:
        c.builder.room(wanted[1], MAX_CHANNELS, "a number of channels")
        return torch_shape.select(c.builder, x, [0] * wanted[1])
    return _repeat(c, x, {i: wanted[i] for i in wide})


def _repeat(c: Context, x: View, times: dict[int, int | Size]) -> View:
    """x with axes of size 1 made larger: the axis that goes with a channel, a row or a column where those are repeated
    one after another.  They are more channels of the op, the new ones next to what they repeat."""
    for at, n in times.items():
        if at == 0 or not isinstance(n, int):
            c.builder.refuse("it repeats the image itself", "repeat channels only")
        c.builder.room(n * c.builder.types[x.op].channels, MAX_CHANNELS, "a number of channels")
        index = [channel for channel in range(c.builder.types[x.op].channels) for _ in range(n)]
        repeated = torch_shape.select(c.builder, _whole(c, x), index)
        x = replace(c.frame.change_axes(x, partial(_widen, at=at, by=Factor("c", 1, n), apart=n)), op=repeated.op)
    return x


def _widen(axes: Axes, at: int, by: Factor, apart: int = 1) -> Axes:
    """The axes of a view whose op has got more channels, which are that axis; the others are so far apart now."""
    moved = [
        tuple(replace(f, stride=f.stride * apart) if f.axis == "c" else f for f in axis if f.size != 1) for axis in axes
    ]
    moved[at] = (by,)
    return tuple(moved)


def stack(c: Context, views: Sequence[View], at: int) -> View | None:
    """Views side by side along an axis that all have with size 1; None if they have not, or differ."""
    ops, first = [c.builder.types[v.op] for v in views], views[0]
    if at == 0 or c.frame.shape(first)[at] != 1 or any(v.axes != first.axes for v in views) or len(set(ops)) > 1:
        return None
    together = torch_shape.cat(c.builder, [_whole(c, v) for v in views], 1)
    by = Factor("c", ops[0].channels, len(views))
    return replace(c.frame.change_axes(first, partial(_widen, at=at, by=by)), op=together.op)


@onnx_word("Tile")
def tile(c: Context, node: Node, x: View, times: Value) -> Any:
    numbers = c.integers(times, "repeats")
    if len(numbers) != 4 and len(numbers) == len(x.axes):
        own, wide = c.frame.shape(x), [i for i, n in enumerate(numbers) if n != 1]
        if all(own[i] == 1 for i in wide):
            return _repeat(c, x, {i: numbers[i] for i in wide})
    if len(numbers) == 4:
        c.builder.room(numbers[1] * c.builder.channels(x), MAX_CHANNELS, "a number of channels")
    return torch_shape.repeat(c.builder, x, numbers)


@onnx_word("Identity")
def identity(c: Context, node: Node, x: Value) -> Value:
    return x


@onnx_word("Cast")
def cast(c: Context, node: Node, x: Value) -> Value:
    if node.integer("to", 1) not in (1, 10, 11, 16):  # float32, float16, float64, bfloat16
        c.builder.refuse("it rounds feature maps to integers", "export the network in floating point to its end")
    return x


@onnx_word("Dropout")
def dropout(c: Context, node: Node, x: Value, ratio: Value | None = None, training: Value | None = None) -> Value:
    if training is not None and any(_numbers(training)):
        c.builder.refuse("dropout is active", "call model.eval() before exporting")
    return x


@onnx_word("Pad")
def pad(
    c: Context, node: Node, x: View | Uncropped, pads: Value, value: Value | None = None, axes: Value | None = None
) -> Any:
    """Pads are (before each axis, behind each), of all axes or of those that are told."""
    numbers, mode = _numbers(pads), node.text("mode", "constant")
    if mode != "constant" and any(numbers):
        c.builder.refuse(*IMPOSSIBLE["reflection_pad2d"])
    told = [n % 4 for n in _numbers(axes)] if axes is not None else list(range(len(numbers) // 2))
    if len(numbers) != 2 * len(told) or len(set(told)) != len(told) or (told and max(told) > 3):
        raise InvalidInput(f"{node.name}: pads {numbers} are not two sizes for each axis.")
    both = {axis: (numbers[i], numbers[i + len(told)]) for i, axis in enumerate(told)}
    inner = [size for axis in (3, 2, 1, 0) for size in both.get(axis, (0, 0))]
    constant = next(iter(_numbers(value)), 0.0) if value is not None else 0.0
    return torch_shape.pad(c.builder, x, inner, mode, constant)
