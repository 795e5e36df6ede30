"""One word for each operation, whatever it is called: torch function, tensor method, ATen op.

A word is a function (builder, arguments as torch's own function takes them) -> value.  `WORDS` finds it by name.
`IMPOSSIBLE` holds the operations that no plain network can express, with the reason; a name in both has a word for
the cases that can be plain (a mean over channels), and the reason for the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.trace.builder import Builder, Resized
from memsr_compiler.trace.views import Size, View

Word = Callable[..., Any]
WORDS: dict[str, Word] = {}


F = TypeVar("F", bound=Word)


def word(*names: str) -> Callable[[F], F]:
    """Make a function the word for these names."""

    def attach(function: F) -> F:
        WORDS.update(dict.fromkeys(names, function))
        return function

    return attach


_GATE = "its result multiplies or reweights pixels by other pixels, and a plain network is piecewise linear"
_SMOOTH = "it is curved, and a plain network is piecewise linear"
_GLOBAL = "every output pixel depends on the whole image, and a plain network is local"
_RETRAIN = "replace it by a piecewise linear one and retrain"
_POOLING = (_GLOBAL, "remove the pooling (channel attention?) and retrain")
IMPOSSIBLE: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("sigmoid", "softmax", "_softmax", "log_softmax", "hardswish", "glu"),
        (_SMOOTH, "remove the gate (attention) it belongs to and retrain, or convert the parts around it"),
    ),
    **dict.fromkeys(
        ("gelu", "silu", "tanh", "softplus", "mish", "elu", "selu", "exp", "log", "sqrt", "sin", "cos", "erf"),
        (_SMOOTH, _RETRAIN),
    ),
    **dict.fromkeys(
        (
            "adaptive_avg_pool2d",
            "_adaptive_avg_pool2d",
            "adaptive_max_pool2d",
            "mean",
            "std",
            "var",
            "sum",
            "amax",
            "amin",
        ),
        _POOLING,
    ),
    **dict.fromkeys(
        ("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "instance_norm", "normalize"),
        (_GLOBAL, "use batch norm, which becomes constant, and retrain"),
    ),
    **dict.fromkeys(
        ("matmul", "bmm", "einsum", "scaled_dot_product_attention", "baddbmm"),
        (_GATE, "remove the attention and retrain"),
    ),
    **dict.fromkeys(
        ("max_pool2d", "avg_pool2d", "max_pool2d_with_indices"),
        ("it lowers the resolution or takes maxima over pixels", "remove the pooling and retrain"),
    ),
    **dict.fromkeys(
        ("reflection_pad2d", "replication_pad2d", "circular_pad2d"),
        (
            "its border is not zero padding, so no plain network is equal at the border",
            "use padding_mode='zeros' and retrain",
        ),
    ),
    **dict.fromkeys(("grid_sample", "affine_grid", "deform_conv2d"), (_GATE, "remove it and retrain")),
}


def number(value: object) -> float:
    return float(value.item()) if isinstance(value, Tensor) else float(value)  # type: ignore[arg-type]


def _pair(b: Builder, value: Any, what: str) -> int:
    values = list(value) if isinstance(value, Sequence) else [value]
    if len(set(values)) > 1:
        b.refuse(f"{what} {tuple(values)} differs in height and width", "use square kernels")
    return int(values[0])


# -- convolutions ------------------------------------------------------------------------------------------------


@word("conv2d")
def conv2d(
    b: Builder,
    x: View,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> View:
    if _pair(b, stride, "stride") != 1:
        b.refuse(
            f"stride {_pair(b, stride, 'stride')} lowers the resolution (a spatial attention branch?), "
            "and a plain network keeps it",
            "convert the parts before and after it, or retrain with stride 1",
        )
    weight = weight.double()
    height, width = weight.shape[2:]
    spread = _pair(b, dilation, "dilation")
    if height % 2 == 0 or width % 2 == 0:
        b.refuse(f"the kernel {height}x{width} is even and has no centre", "use odd kernels")
    want = ((height - 1) // 2 * spread, (width - 1) // 2 * spread)
    have = (
        want
        if padding == "same"
        else (0, 0)
        if padding == "valid"
        else tuple(padding)
        if isinstance(padding, Sequence)
        else (padding,) * 2
    )
    have = have * 2 if len(have) == 1 else have
    if tuple(int(p) for p in have) != want:
        b.refuse(
            f"padding {tuple(have)} changes the size of the image; kernel {height}x{width} keeps it with {want}",
            "pad by (k - 1) / 2",
        )
    size = max(height, width)
    if height != width:
        weight = torch.nn.functional.pad(weight, ((size - width) // 2,) * 2 + ((size - height) // 2,) * 2)
    offset = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.double()
    return b.add(
        ir.Conv2d(
            name=b.name("conv"), inputs=(b.feature(x),), weight=weight, bias=offset, groups=groups, dilation=spread
        )
    )


@word("convolution")
def convolution(
    b: Builder,
    x: View,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> View:
    if transposed:
        return conv_transpose2d(b, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv2d(b, x, weight, bias, stride, padding, dilation, groups)


@word("conv_transpose2d")
def conv_transpose2d(
    b: Builder,
    x: View,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> View:
    weight = weight.double()
    steps, pad, spread = _pair(b, stride, "stride"), _pair(b, padding, "padding"), _pair(b, dilation, "dilation")
    extra = _pair(b, output_padding, "output_padding")
    if spread > 1:
        wide = weight.new_zeros(*weight.shape[:2], *((n - 1) * spread + 1 for n in weight.shape[2:]))
        wide[:, :, ::spread, ::spread] = weight
        weight = wide
    if weight.shape[2] != weight.shape[3]:
        b.refuse(f"kernel {tuple(weight.shape[2:])} is not square", "use square kernels")
    if weight.shape[2] - 2 * pad + extra != steps:
        b.refuse(
            f"kernel {weight.shape[2]}, stride {steps}, padding {pad}, output_padding {extra} "
            f"do not enlarge by exactly {steps}",
            "choose them so that kernel - 2 * padding + output_padding = stride",
        )
    offset = torch.zeros(weight.shape[1] * groups, dtype=torch.float64) if bias is None else bias.double()
    return b.add(
        ir.ConvTranspose2d(
            name=b.name("conv_transpose"),
            inputs=(b.feature(x),),
            weight=weight,
            bias=offset,
            stride=steps,
            padding=pad,
            groups=groups,
        )
    )


# -- channel-wise linear -------------------------------------------------------------------------------------------


@word("batch_norm")
def batch_norm(
    b: Builder,
    x: View,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: object,
) -> View:
    if training or mean is None or var is None:
        b.refuse(
            "batch norm uses the statistics of the image at hand",
            "call model.eval() first, and train with track_running_stats=True",
        )
    gain = (1.0 if weight is None else weight.double()) / torch.sqrt(var.double() + eps)
    return b.affine(x, gain, (0.0 if bias is None else bias.double()) - mean.double() * gain)


@word("native_batch_norm", "_batch_norm_with_update")
def native_batch_norm(
    b: Builder,
    x: View,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[View]:
    return (batch_norm(b, x, mean, var, weight, bias, training, momentum, eps),)


@word("_native_batch_norm_legit_no_training")
def batch_norm_inference(
    b: Builder,
    x: View,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[View]:
    return (batch_norm(b, x, mean, var, weight, bias, False, momentum, eps),)


@word("add")
def add(b: Builder, x: Any, y: Any, alpha: float = 1) -> Any:
    return linear(b, x, 1.0, y, alpha)


@word("sub", "subtract")
def sub(b: Builder, x: Any, y: Any, alpha: float = 1) -> Any:
    return linear(b, x, 1.0, y, -alpha)


@word("rsub")
def rsub(b: Builder, x: Any, y: Any, alpha: float = 1) -> Any:
    return linear(b, x, -alpha, y, 1.0)


def linear(b: Builder, x: Any, p: float, y: Any, q: float) -> Any:
    """p * x + q * y, either of which may be a constant."""
    if isinstance(x, Resized) or isinstance(y, Resized):
        resized, body = (x, y) if isinstance(x, Resized) else (y, x)
        if not isinstance(body, View) or resized.body is not None or (p, q) != (1.0, 1.0):
            b.refuse("the enlarged image is used for something else than one sum at the end", "add it last, unscaled")
        return Resized(resized.mode, resized.factor, body)
    if not isinstance(x, View):
        return linear(b, y, q, x, p)
    if isinstance(y, View):
        names = [b.feature(v) if s == 1 else b.feature(b.affine(v, s, 0.0)) for v, s in ((x, p), (y, q))]
        return b.add(ir.Sum(name=b.name("add"), inputs=_alike(b, names)))
    shift = b.per_channel(y, x)
    if shift is None:
        b.refuse("a constant that differs from pixel to pixel is added", "use one constant for each channel")
    return b.affine(x, p, q * shift)


def _alike(b: Builder, names: list[str]) -> tuple[str, ...]:
    """Two operands; one of a single channel is repeated for each channel of the other."""
    left, right = b.types[names[0]], b.types[names[1]]
    if left.scale == right.scale and 1 in (left.channels, right.channels):
        width = max(left.channels, right.channels)
        views = [View.of(n, b.types[n].channels, b.types[n].scale) for n in names]
        names = [b.feature(select(b, v, [0] * width)) if b.channels(v) == 1 else v.op for v in views]
    return tuple(names)


@word("neg", "negative")
def neg(b: Builder, x: View) -> View:
    return b.affine(x, -1.0, 0.0)


@word("mul", "multiply")
def mul(b: Builder, x: Any, y: Any) -> View:
    if isinstance(x, View) and isinstance(y, View):
        b.refuse(
            "two feature maps are multiplied (attention?)",
            "remove the gate and retrain; a plain network is piecewise linear",
        )
    if isinstance(x, Resized) or isinstance(y, Resized):
        b.refuse("the enlarged image is scaled", "add it last, unscaled")
    x, y = (x, y) if isinstance(x, View) else (y, x)
    scale = b.per_channel(y, x)
    if scale is None:
        b.refuse("a constant that differs from pixel to pixel is multiplied in", "use one constant for each channel")
    return b.affine(x, scale, 0.0)


@word("div", "truediv", "divide", "true_divide")
def div(b: Builder, x: Any, y: Any, rounding_mode: str | None = None) -> View:
    if not isinstance(x, View) or isinstance(y, View) or rounding_mode:
        b.refuse("it divides by a feature map, or rounds", "divide by constants only")
    return mul(b, x, 1.0 / torch.as_tensor(y, dtype=torch.float64))


@word("sum")
def sum_channels(b: Builder, x: View, dim: Any = None, keepdim: bool = False) -> View:
    return _over_channels(b, x, "sum", dim, keepdim)


@word("mean")
def mean_channels(b: Builder, x: View, dim: Any = None, keepdim: bool = False) -> View:
    return _over_channels(b, x, "mean", dim, keepdim)


def _over_channels(b: Builder, x: View, kind: str, dim: Any, keepdim: bool) -> View:
    """Sum or mean over the channels; over pixels there is none."""
    if dim is None or dim == () or dim == []:
        b.refuse(*_POOLING)
    dims = {d % len(x.axes) for d in (dim if isinstance(dim, Sequence) else [dim])}
    if any(f.axis in "hw" for d in dims for f in x.axes[d]):
        b.refuse(*_POOLING)
    if len(x.axes) != 4 or dims != {1}:
        b.unknown(f"its {kind} is over axes {sorted(dims)} of {len(x.axes)}; write it over all channels (dim=1)")
    width = b.channels(x)
    weight = torch.full((1, width, 1, 1), 1.0 / width if kind == "mean" else 1.0, dtype=torch.float64)
    bias = torch.zeros(1, dtype=torch.float64)
    result = b.add(ir.Conv2d(name=b.name(kind), inputs=(b.feature(x),), weight=weight, bias=bias))
    return result if keepdim else squeeze(b, result, 1)


@word("cat", "concat", "concatenate")
def cat(b: Builder, tensors: Sequence[View], dim: int = 0) -> View:
    if dim not in (1, -3):
        b.refuse(f"it concatenates along axis {dim}", "concatenate channels (dim=1)")
    if len(tensors) == 1:
        return tensors[0]
    return b.add(ir.Concat(name=b.name("cat"), inputs=tuple(b.feature(t) for t in tensors)))


# -- selections and views ------------------------------------------------------------------------------------------


def select(b: Builder, x: View, index: Sequence[int]) -> View:
    if list(index) == list(range(b.channels(x))):
        return x
    if not index:
        b.refuse("it selects no channel", "check the slice")
    return b.add(ir.Select(name=b.name("select"), inputs=(b.feature(x),), index=tuple(index)))


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
    if not isinstance(x, View):
        return x[key]
    keys = list(key) if isinstance(key, tuple) else [key]
    if any(k is None for k in keys):
        b.unknown("indexing with None adds an axis; write it as unsqueeze")
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


def _refuse_part(b: Builder, axis: int) -> NoReturn:
    b.refuse(f"it takes part of axis {axis}", "a plain network keeps every pixel; crop outside the network")


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
        b.unknown(f"it stacks along axis {dim}; concatenate channels instead")
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
    return x.reshaped(sizes)


@word("flatten")
def flatten(b: Builder, x: View, start_dim: int = 0, end_dim: int = -1) -> View:
    first, last = start_dim % len(x.axes), end_dim % len(x.axes)
    merged = tuple(f for axis in x.axes[first : last + 1] for f in axis)
    return View(x.op, (*x.axes[:first], merged, *x.axes[last + 1 :]))


@word("unflatten")
def unflatten(b: Builder, x: View, dim: int, sizes: Sequence[Any]) -> View:
    shape = list(x.shape)
    return x.reshaped([*shape[: dim % len(shape)], *sizes, *shape[dim % len(shape) + 1 :]])


@word("permute")
def permute(b: Builder, x: View, *dims: Any) -> View:
    order = list(dims[0]) if len(dims) == 1 and isinstance(dims[0], Sequence) else list(dims)
    return x.permuted([d % len(x.axes) for d in order])


@word("transpose", "swapaxes", "swapdims")
def transpose(b: Builder, x: View, dim0: int, dim1: int) -> View:
    order = list(range(len(x.axes)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return x.permuted(order)


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
        b.unknown("pixels are repeated along one axis; write it as nearest-neighbour interpolate")
    return select(b, x, [c for c in range(b.channels(x)) for _ in range(repeats)])


@word(
    "clone",
    "contiguous",
    "detach",
    "alias",
    "to",
    "_to_copy",
    "float",
    "double",
    "lift_fresh_copy",
    "type_as",
)
def same(b: Builder, x: Any, *_: object, **__: object) -> Any:
    return x


@word("dropout", "dropout2d", "feature_dropout", "alpha_dropout", "native_dropout")
def dropout(b: Builder, x: View, p: float = 0.5, training: bool = True, inplace: bool = False) -> View:
    if training:
        b.refuse("dropout is active", "call model.eval() first")
    return x


@word("pad", "constant_pad_nd")
def pad(b: Builder, x: View, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> View:
    if not any(pad):
        return x
    b.refuse(
        f"padding {tuple(pad)} ({mode}) outside a convolution", "use the convolution's own zero padding, (k - 1) / 2"
    )


# -- piecewise linear ------------------------------------------------------------------------------------------------


@word("relu")
def relu(b: Builder, x: View, inplace: bool = False) -> View:
    return b.add(ir.Relu(name=b.name("relu"), inputs=(b.feature(x),)))


@word("prelu")
def prelu(b: Builder, x: View, weight: Tensor) -> View:
    slope = torch.broadcast_to(weight.double().reshape(-1), (b.channels(x),)).clone()
    return b.add(ir.PRelu(name=b.name("prelu"), inputs=(b.feature(x),), slope=slope))


@word("leaky_relu")
def leaky_relu(b: Builder, x: View, negative_slope: float = 0.01, inplace: bool = False) -> View:
    return prelu(b, x, torch.tensor([negative_slope], dtype=torch.float64))


@word("rrelu", "rrelu_with_noise")
def rrelu(b: Builder, x: View, *rest: Any, **_: object) -> View:
    b.unknown("a randomised ReLU is not read; use LeakyReLU with the mean slope")


@word("abs", "absolute")
def absolute(b: Builder, x: View) -> View:
    return prelu(b, x, torch.tensor([-1.0]))


@word("clamp", "clip")
def clamp(b: Builder, x: View, min: Any = None, max: Any = None) -> View:
    if any(isinstance(v, View) or (isinstance(v, Tensor) and v.numel() != 1) for v in (min, max)):
        x = x if min is None else maximum(b, x, min)
        return x if max is None else minimum(b, x, max)
    low = -math.inf if min is None else number(min)
    high = math.inf if max is None else number(max)
    return b.add(ir.Clamp(name=b.name("clamp"), inputs=(b.feature(x),), low=low, high=high))


@word("clamp_min")
def clamp_min(b: Builder, x: View, min: Any) -> View:
    return clamp(b, x, min)


@word("clamp_max")
def clamp_max(b: Builder, x: View, max: Any) -> View:
    return clamp(b, x, None, max)


@word("hardtanh")
def hardtanh(b: Builder, x: View, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> View:
    return clamp(b, x, min_val, max_val)


@word("relu6")
def relu6(b: Builder, x: View, inplace: bool = False) -> View:
    return clamp(b, x, 0.0, 6.0)


@word("hardsigmoid")
def hardsigmoid(b: Builder, x: View, inplace: bool = False) -> View:
    return clamp(b, b.affine(x, 1 / 6, 0.5), 0.0, 1.0)


@word("threshold", "_threshold")
def threshold(b: Builder, x: View, threshold: float, value: float, inplace: bool = False) -> View:
    if threshold != value:
        b.refuse("it jumps, and a plain network is continuous", "use threshold = value")
    return clamp(b, x, threshold)


@word("maximum")
def maximum(b: Builder, x: Any, y: Any) -> View:
    x, y = (x, y) if isinstance(x, View) else (y, x)
    if isinstance(y, View):
        names = _alike(b, [b.feature(x), b.feature(y)])
        return b.add(ir.Maximum(name=b.name("maximum"), inputs=names))
    if torch.as_tensor(y).numel() == 1:
        return clamp(b, x, y)
    bounds = _bounds(b, x, y)  # max(x, c) = relu(x - c) + c
    return b.affine(relu(b, b.affine(x, 1.0, -bounds)), 1.0, bounds)


@word("minimum")
def minimum(b: Builder, x: Any, y: Any) -> View:
    x, y = (x, y) if isinstance(x, View) else (y, x)
    if isinstance(y, View):
        return neg(b, maximum(b, neg(b, x), neg(b, y)))
    if torch.as_tensor(y).numel() == 1:
        return clamp(b, x, None, y)
    bounds = _bounds(b, x, y)  # min(x, c) = c - relu(c - x)
    return b.affine(relu(b, b.affine(x, -1.0, bounds)), -1.0, bounds)


def _bounds(b: Builder, x: View, constant: Any) -> Tensor:
    """A constant bound, one finite number for each channel."""
    bounds = b.per_channel(constant, x)
    if bounds is None:
        shape = tuple(torch.as_tensor(constant).shape)
        b.unknown(f"a bound of shape {shape} is not one number for each of {b.channels(x)} channels (1, C, 1, 1)")
    if not bool(torch.isfinite(bounds).all()):
        b.unknown("a bound is infinite or NaN for some channels; give each channel a finite one")
    return bounds


@word("max")
def max_or_over(b: Builder, x: Any, *over: Any, y: Any = None, dim: Any = None, keepdim: bool = False) -> View:
    return _extreme(b, maximum, "maximum", x, over, y, dim)


@word("min")
def min_or_over(b: Builder, x: Any, *over: Any, y: Any = None, dim: Any = None, keepdim: bool = False) -> View:
    return _extreme(b, minimum, "minimum", x, over, y, dim)


@word("amax")
def amax(b: Builder, x: View, dim: Any = None, keepdim: bool = False) -> View:
    _refuse_extreme(b, x, "maximum", dim)


@word("amin")
def amin(b: Builder, x: View, dim: Any = None, keepdim: bool = False) -> View:
    _refuse_extreme(b, x, "minimum", dim)


def _extreme(b: Builder, both: Word, kind: str, x: Any, over: Sequence[Any], y: Any, dim: Any) -> View:
    """torch.max and min: of two tensors, or of one over a dim (a whole number)."""
    second = over[0] if over else y
    if isinstance(second, (View, Tensor)):
        result: View = both(b, x, second)
        return result
    _refuse_extreme(b, x, kind, dim if second is None else second)


def _refuse_extreme(b: Builder, x: View, kind: str, dim: Any) -> NoReturn:
    dims = [d % len(x.axes) for d in (dim if isinstance(dim, Sequence) else [dim])] if dim is not None else []
    if dims == [1] and not any(f.axis in "hw" for f in x.axes[1]):
        b.refuse(
            f"it takes the {kind} over channels (spatial attention?), which is not read",
            f"remove it and retrain, or write it as torch.{kind} of two halves of the channels, again and again",
        )
    b.refuse(f"it takes the {kind} over pixels: {_GLOBAL}", _POOLING[1])


# -- resolution --------------------------------------------------------------------------------------------------------


@word("pixel_shuffle")
def pixel_shuffle(b: Builder, x: View, upscale_factor: int) -> View:
    return b.pixel_shuffle(x, upscale_factor)


@word("pixel_unshuffle")
def pixel_unshuffle(b: Builder, x: View, downscale_factor: int) -> View:
    return b.pixel_unshuffle(x, downscale_factor)


@word("channel_shuffle")
def channel_shuffle(b: Builder, x: View, groups: int) -> View:
    share = b.channels(x) // groups
    return select(b, x, [g * share + c for c in range(share) for g in range(groups)])


@word("interpolate", "upsample")
def interpolate(
    b: Builder, x: View, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Any:  # fmt: skip
    factor = _enlargement(b, x, size, scale_factor)
    if mode in ("nearest", "nearest-exact", "area"):  # the same for whole factors
        return b.enlarge(x, factor)
    if b.feature(x) != b.input.op:
        b.refuse(
            f"{mode} enlargement of a feature map clamps at the edge, which zero padding cannot do",
            "use nearest-neighbour enlargement or a pixel shuffle, and retrain",
        )
    if align_corners or antialias:
        b.refuse("align_corners and antialias are not kept", "use align_corners=False, antialias=False")
    return Resized(mode, factor)


@word("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_nearest")
def upsample_nearest2d(b: Builder, x: View, size: Any = None, scale_factors: Any = None, *_: object) -> View:
    nearest: View = interpolate(b, x, size, scale_factors)
    return nearest


@word("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def adaptive_avg_pool2d(b: Builder, x: View, output_size: Any) -> View:
    """Pooling, unless it enlarges: then it is what interpolate(mode="area") comes to."""
    sizes = list(output_size) if isinstance(output_size, Sequence) else [output_size] * 2
    if not all(isinstance(s, Size) for s in sizes):
        b.refuse(*_POOLING)
    enlarged: View = interpolate(b, x, sizes, mode="area")
    return enlarged


@word("upsample_bilinear2d")
def upsample_bilinear2d(
    b: Builder, x: View, size: Any, align_corners: bool, scale_factors: Any = None, *_: object
) -> Any:
    return interpolate(b, x, size, scale_factors, "bilinear", align_corners)


@word("upsample_bicubic2d")
def upsample_bicubic2d(
    b: Builder, x: View, size: Any, align_corners: bool, scale_factors: Any = None, *_: object
) -> Any:
    return interpolate(b, x, size, scale_factors, "bicubic", align_corners)


def _enlargement(b: Builder, x: View, size: Any, scale_factor: Any) -> int:
    if size is not None:
        sizes = list(size) if isinstance(size, Sequence) else [size] * 2
        pairs = list(zip(sizes, x.shape[2:], strict=True))
        factors = []
        for new, old in pairs:
            if not isinstance(new, Size) or not isinstance(old, Size) or new.symbol != old.symbol:
                b.refuse("it resizes to a fixed size", "give interpolate a scale factor")
            factors.append(float(new.factor / old.factor))
    else:
        factors = [float(f) for f in scale_factor] if isinstance(scale_factor, Sequence) else [float(scale_factor)]
    if len(set(factors)) > 1 or factors[0] != int(factors[0]) or factors[0] < 1:
        b.refuse(f"it resizes by {factors}", "use one whole factor for height and width")
    return int(factors[0])
