"""Words for selections and views: which channels, and how the axes are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NoReturn

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.builder import MAX_KERNEL, Builder, Padded, Uncropped
from memsr_compiler.trace.torch_ops.registry import word
from memsr_compiler.trace.views import Factor, Unreadable, View


def select(b: Builder, x: View, index: Sequence[int]) -> View:
    if list(index) == list(range(b.channels(x))):
        return x
    if not index:
        b.refuse("it selects no channel", "check the slice")
    return b.add(ir.Select(name=b.name("select"), inputs=(b.feature(x),), index=tuple(index)))


def is_image(x: View) -> bool:
    """Whether its axes are batch, channels, height and width, in whatever way each of them is made up."""
    kinds = [{f.axis for f in axis} for axis in x.axes]
    return len(kinds) == 4 and kinds[0] == {"n"} and kinds[1] <= {"c"} and "h" in kinds[2] and "w" in kinds[3]


def is_of_channels(x: View, axis: int) -> bool:
    """Whether an axis is the channels or, where these were taken apart, a part of them."""
    return all(f.axis == "c" for f in x.axes[axis])


def count_on(x: View, axis: int) -> int:
    """Length of an axis of channels."""
    return prod(int(f.size) for f in x.axes[axis] if isinstance(f.size, int))


def take(b: Builder, x: View, axis: int, index: Sequence[int]) -> View:
    """These places of an axis of channels, one after the other."""
    if is_image(x) and axis == 1:
        return select(b, x, index)
    if list(index) == list(range(count_on(x, axis))):
        return x
    if not index:
        b.refuse("it selects no channel", "check the slice")
    return rearrange(b, x, number_channels(b, x).index_select(axis, torch.tensor(index)))


def number_channels(b: Builder, x: View) -> Tensor:
    """The number of the channel that lies at each place of the axes, of which those of pixels are of one place."""
    numbers = torch.zeros((), dtype=torch.int64)
    for axis in x.axes:
        at = [i for i, f in enumerate(axis) if f.axis == "c"]
        if at and at[-1] - at[0] >= len(at):
            b.give_up("channels lie on both sides of pixels on one axis; write it with fewer reshapes")
        places = torch.zeros(1, dtype=torch.int64)
        for f in axis:
            if f.axis == "c":
                assert isinstance(f.size, int), "channels are so many"
                places = (places[:, None] + torch.arange(f.size) * f.stride).reshape(-1)
        numbers = numbers[..., None] + places
    return numbers


def rearrange(b: Builder, x: View, numbers: Tensor) -> View:
    """Channels of the op by these numbers, one for each place of the axes."""
    index = tuple(numbers.flatten().tolist())
    if index == tuple(range(b.types[x.op].channels)):
        return lay_out(x, x.op, numbers.shape)
    return lay_out(x, b.add(ir.Select(name=b.name("select"), inputs=(x.op,), index=index)).op, numbers.shape)


def lay_out(x: View, op: str, lengths: Sequence[int]) -> View:
    """An op whose channels are so many on each axis, its pixels as they lie on those of another view."""
    axes, stride = list[tuple[Factor, ...]](), prod(lengths)
    for axis, length in zip(x.axes, lengths, strict=True):
        stride //= length
        at = next((i for i, f in enumerate(axis) if f.axis == "c"), len(axis))
        pixels = [f for f in axis if f.axis != "c"]
        axes.append((*pixels[:at], *([Factor("c", stride, length)] if length > 1 else []), *pixels[at:]))
    return View(op, tuple(axes))


def lay_down(b: Builder, x: View, constant: Tensor) -> Tensor | None:
    """A constant operand of a view, as one number or one for each channel of its op; None where it is neither."""
    if constant.numel() == 1:
        return constant.reshape(())
    numbers = number_channels(b, x)
    try:
        spread = torch.broadcast_to(constant.double(), numbers.shape)
    except RuntimeError:
        return None
    return (
        torch.zeros(numbers.numel(), dtype=torch.float64)
        .scatter_(0, numbers.flatten(), spread.flatten())
        .view(1, -1, 1, 1)
    )


def over_places(b: Builder, x: View, axis: int, weight: Tensor, bias: Tensor, name: str) -> View:
    """The same matrix (out, in) times the channels of one axis, at each place of the others."""
    numbers = number_channels(b, x).movedim(axis, -1)
    places = numbers.reshape(-1, numbers.shape[-1])
    out, count = len(weight), len(places)
    whole = torch.zeros(count, out, b.types[x.op].channels, dtype=torch.float64)
    for part, channels in zip(whole, places, strict=True):
        part[:, channels] = weight.double()
    lengths = [*numbers.shape[:-1], out]
    order = torch.arange(count * out).view(lengths).movedim(-1, axis)  # rows as they are laid out
    conv = ir.Conv2d(
        name=name, inputs=(x.op,), weight=whole.flatten(0, 1)[order.flatten()][:, :, None, None],
        bias=bias.double().repeat(count)[order.flatten()],
    )  # fmt: skip
    return lay_out(x, b.add(conv).op, order.shape)


@word("hstack")
def hstack(b: Builder, tensors: Sequence[View]) -> View:
    return cat(b, tensors, 1)


@word("cat", "concat", "concatenate")
def cat(b: Builder, tensors: Sequence[View], dim: int = 0) -> View:
    if len(tensors) == 1:
        return tensors[0]
    if dim in (1, -3) and all(len(t.axes) == 4 for t in tensors):
        return b.add(ir.Concat(name=b.name("cat"), inputs=tuple(b.feature(t) for t in tensors)))
    first, at = tensors[0], dim % len(tensors[0].axes)
    pixels = [[[f for f in axis if f.axis != "c"] for axis in t.axes] for t in tensors]
    if not is_of_channels(first, at) or any(p != pixels[0] for p in pixels):
        b.refuse(f"it concatenates along axis {dim}", "concatenate channels (dim=1)")
    tables, before = [], 0
    for t in tensors:
        tables.append(number_channels(b, t) + before)
        before += b.types[t.op].channels
    both = b.add(ir.Concat(name=b.name("cat"), inputs=tuple(t.op for t in tensors)))
    return rearrange(b, replace(first, op=both.op), torch.cat(tables, at))


@word("chunk")
def chunk(b: Builder, x: View, chunks: int, dim: int = 0) -> tuple[View, ...]:
    size = -(-count_on(x, _axis_of_channels(b, x, dim)) // chunks)
    return split(b, x, size, dim)


@word("split", "split_with_sizes")
def split(b: Builder, x: View, split_size_or_sections: Any, dim: int = 0) -> tuple[View, ...]:
    at = _axis_of_channels(b, x, dim)
    width, sizes = count_on(x, at), split_size_or_sections
    if isinstance(sizes, int):
        sizes = [min(sizes, width - i) for i in range(0, width, sizes)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(take(b, x, at, range(s, s + n)) for s, n in zip(starts, sizes, strict=True))


def _axis_of_channels(b: Builder, x: View, dim: int, does: str = "splits") -> int:
    at = dim % len(x.axes)
    if not is_of_channels(x, at):
        if any(f.axis == "n" for f in x.axes[at]):
            _refuse_part(b, x, at)
        b.refuse(f"it {does} axis {dim}", f"{does.split()[0].removesuffix('s')} channels (dim=1)")
    return at


@word("slice")
def slice_axis(
    b: Builder, x: View | Uncropped, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> View:
    whole = (slice(None),) * (dim % (4 if isinstance(x, Uncropped) else len(x.axes)))
    endless = isinstance(end, int) and end >= 2**31 - 1  # as torch.export writes a slice without an end
    cut = slice(None if start == 0 else start, None if endless else end, None if step == 1 else step)
    part: View = index(b, x, (*whole, cut))
    return part


@word("slice_scatter")
def slice_scatter(
    b: Builder, x: View, src: View, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> View:
    axis = dim % len(x.axes)
    to_the_end = end is None or end == x.shape[axis] or (isinstance(end, int) and end >= 2**31)
    if start in (None, 0) and step == 1 and to_the_end:
        return src
    return _write(b, x, src, axis, slice(start, end, step))


@word("select_scatter")
def select_scatter(b: Builder, x: View, src: View, dim: int, index: int) -> View:
    axis = dim % len(x.axes)
    return _write(b, x, unsqueeze(b, src, axis), axis, slice(index, index + 1 or None))


def _write(b: Builder, x: View, src: View, axis: int, places: slice) -> View:
    """Channels of a feature map, some of them in place of others."""
    if len(x.axes) != 4 or axis != 1:
        b.refuse(f"it writes into part of axis {axis}", "a plain network treats every pixel alike")
    width = b.channels(x)
    written = list(range(width))[places]
    both = cat(b, [x, src], 1)
    return select(b, both, [width + written.index(c) if c in written else c for c in range(width)])


@word("narrow")
def narrow(b: Builder, x: View, dim: int, start: int, length: int) -> View:
    last = length != 0 and start + length == 0  # -2 + 2
    return slice_axis(b, x, dim, start, None if last else start + length)


@word("index_select")
def index_select(b: Builder, x: View, dim: int, index: Tensor) -> View:
    return take(b, x, _axis_of_channels(b, x, dim, "selects along"), index.tolist())


@word("getitem")
def index(b: Builder, x: Any, key: Any) -> Any:
    if not isinstance(x, (View, Uncropped)):
        return x[key]
    keys = list(key) if isinstance(key, tuple) else [key]
    if (name := next((k for k in keys if isinstance(k, str)), None)) is not None:
        b.refuse(
            f"it looks up {name!r} in what it is given: the network takes a dictionary, not one image",
            "wrap it in a module that takes the image only, and puts it into one",
        )
    if isinstance(x, Uncropped):
        return _crop(b, x, keys)
    if any(k is None for k in keys):
        b.give_up("indexing with None adds an axis; write it as unsqueeze")
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(x.axes) - len(keys) + 1)
    for axis, (size, k) in enumerate(zip(x.shape, keys, strict=False)):
        if is_of_channels(x, axis) or k == slice(None) or type(k) is int:
            continue
        whole = (
            isinstance(k, slice) and k.start in (None, 0) and k.step in (None, 1) and (k.stop is None or k.stop == size)
        )
        endless = isinstance(k, slice) and k.start in (None, 0) and isinstance(k.stop, int) and k.stop >= 2**31
        if not whole and not endless:
            _refuse_part(b, x, axis)
    for axis, k in enumerate(keys):
        if type(k) is not int and k != slice(None) and is_of_channels(x, axis):
            x = take(b, x, axis, _places_in(count_on(x, axis), k))
    for axis in reversed(range(len(keys))):
        if type(keys[axis]) is int:
            x = select_one(b, x, axis, keys[axis])
    return x


def _places_in(width: int, key: Any) -> Sequence[int]:
    """Places that a slice, a list or a mask chooses of so many."""
    if isinstance(key, slice):
        return range(width)[key]
    numbers = torch.as_tensor(key)
    if numbers.dtype == torch.bool:
        numbers = numbers.nonzero()[:, 0]
    return [i % width for i in numbers.tolist()]


def _crop(b: Builder, x: Uncropped, keys: Sequence[Any]) -> View | Uncropped:
    """Rows and columns taken off, all channels kept."""
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys = [*keys[:at], *[slice(None)] * (5 - len(keys)), *keys[at + 1 :]]
    if any(not isinstance(k, slice) or k.step not in (None, 1) for k in keys) or any(
        k != slice(None) for k in keys[:2]
    ):
        raise UnsupportedModel(x.why)
    return crop_each(b, x, ((axis, surplus_of(x, axis, k.start, k.stop)) for axis, k in enumerate(keys[2:])))


def crop_each(b: Builder, x: Uncropped, cuts: Iterable[tuple[int, tuple[int, int] | None]]) -> View | Uncropped:
    """Pixels taken off before and behind along some axes, 0 rows and 1 columns; None where how many is not known.

    Raises UnsupportedModel for these, and where more than is too many is taken off.
    """
    result: View | Uncropped = x
    for axis, cut in cuts:
        if cut is None:
            raise UnsupportedModel(x.why)
        if any(cut):
            if not isinstance(result, Uncropped):
                raise UnsupportedModel(x.why)
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


def _refuse_part(b: Builder, x: View, axis: int) -> NoReturn:
    if axis == 0 and x == b.input:
        b.refuse(
            "it takes a part of what it is given: of the batch, or one of several tensors in a list",
            "leave the batch whole, as a plain network treats each image alone; wrap a network that takes a list in a "
            "module that takes one image",
        )
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
        if not is_of_channels(x, at):
            _refuse_part(b, x, at)
        x = take(b, x, at, [index % count_on(x, at)])
    return squeeze(b, x, at)


@word("unbind")
def unbind(b: Builder, x: View, dim: int = 0) -> tuple[View, ...]:
    at = _axis_of_channels(b, x, dim)
    return tuple(select_one(b, x, at, i) for i in range(count_on(x, at)))


@word("stack")
def stack(b: Builder, tensors: Sequence[View], dim: int = 0) -> View:
    return cat(b, [unsqueeze(b, t, dim) for t in tensors], dim)


@word("flip")
def flip(b: Builder, x: View, *dims: Any) -> View:
    axes = list(dims[0]) if len(dims) == 1 and isinstance(dims[0], Sequence) else list(dims)
    for at in (a % len(x.axes) for a in axes):
        if any(f.axis in "hw" for f in x.axes[at]):
            b.refuse("it mirrors the image, and a plain network is local", "mirror outside the network")
        if not is_of_channels(x, at):
            b.refuse("it turns the order of the images round", "a plain network treats each image alone; do without")
        x = take(b, x, at, range(count_on(x, at))[::-1])
    return x


@word("size", "sym_size")
def size(b: Builder, x: View, dim: int | None = None) -> Any:
    return x.shape if dim is None else x.shape[dim]


@word("view", "reshape", "_unsafe_view")
def reshape(b: Builder, x: View, *shape: Any) -> View:
    sizes = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else list(shape)
    try:
        return x.reshape(sizes)
    except Unreadable:
        if not is_image(x):
            raise
    return View.of(b.feature(x), b.channels(x), b.scale(x)).reshape(sizes)  # of channels that a shuffle took apart


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
    if x.shape[at] != 1 and not is_of_channels(x, at):
        b.refuse("it takes an axis of pixels, or of images, away where there is one of them", "leave that axis alone")
    return View(x.op, (*x.axes[:at], *x.axes[at + 1 :])) if x.shape[at] == 1 else x


@word("repeat")
def repeat(b: Builder, x: View, *sizes: Any) -> View:
    times = list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else list(sizes)
    if len(times) != 4 or [t for i, t in enumerate(times) if i != 1] != [1, 1, 1]:
        b.refuse("it repeats the image itself", "repeat channels only")
    return select(b, x, list(range(b.channels(x))) * times[1])


@word("expand", "broadcast_to")
def expand(b: Builder, x: View, *sizes: Any, **_: object) -> View:
    """One channel as several, as of a grey image; along other axes a feature map is as it is."""
    lengths = list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else list(sizes)
    if len(lengths) != len(x.axes):
        b.give_up("it adds axes; write it as unsqueeze")
    for axis, length in enumerate(lengths):
        if length in (-1, x.shape[axis]):
            continue
        if x.shape[axis] != 1 or not is_of_channels(x, axis) or type(length) is not int:
            b.refuse("it repeats the image itself", "repeat channels only")
        x = take(b, x, axis, [0] * length)
    return x


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
    if training and p != 0:
        b.refuse(
            "dropout is active", "call model.eval() first; F.dropout drops even then without training=self.training"
        )
    return x


@word("constant_pad_nd")
def constant_pad(b: Builder, x: View | Uncropped, pad_: Sequence[int], value: float = 0) -> View | Padded | Uncropped:
    """The same as torch's decompositions write it, with the value where `pad` has the mode."""
    return pad(b, x, pad_, value=value)


@word("pad")
def pad(
    b: Builder, x: View | Uncropped, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> View | Padded | Uncropped:
    """Zeros around an image, (left, right, top, bottom), which the convolution that follows takes for its own.

    Fewer than none cut pixels off.
    """
    if not any(pad):
        return x
    if isinstance(x, Uncropped):
        return _crop_by_padding(b, x, pad)
    if (mode != "constant" or value) and max(pad) > 0:
        how = f"value {value:g}" if value else mode
        if list(pad[::2]) != list(pad[1::2]):  # of an export the numbers are those of its example
            b.refuse(
                f"padding ({how}) of one side more than of the other, as to a multiple of so many pixels, which hangs "
                "on the size of the image",
                "pad before the network and crop behind it, and give the module that does neither; padding of a fixed "
                "size has to be by zeros, (k - 1) / 2",
            )
        b.refuse(f"padding {tuple(pad)} ({how}) outside a convolution", "use zero padding, (k - 1) / 2, and retrain")
    sides = [*pad, 0, 0, 0, 0]
    if any(sides[4:]):
        b.refuse(f"padding {tuple(pad)} is not of height and width alone", "add channels of zeros by torch.cat")
    if max(sides) <= 0:
        b.refuse(f"padding {tuple(pad)} cuts pixels off", "a plain network keeps every pixel: crop outside the network")
    if min(sides) < 0:
        b.refuse(
            f"padding {tuple(pad)} cuts pixels off on one side and adds some on another",
            "a plain network keeps every pixel where it is: shift the image outside the network",
        )
    if sides[0] != sides[1] or sides[2] != sides[3]:
        b.refuse(f"padding {tuple(pad)} is not the same on both sides of an image", "pad by (k - 1) / 2, and retrain")
    b.room(2 * max(sides), MAX_KERNEL, "padding")
    return Padded(x, rows=sides[2], columns=sides[0])


def _crop_by_padding(b: Builder, x: Uncropped, pad: Sequence[int]) -> View | Uncropped:
    if max(pad) > 0 or any(pad[4:]):
        raise UnsupportedModel(x.why)
    left, right, top, bottom = [-n for n in (*pad, 0, 0, 0, 0)[:4]]
    return crop_each(b, x, enumerate(((top, bottom), (left, right))))
