"""Words for convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.trace.builder import MAX_KERNEL, Builder, Padded, Uncropped
from memsr_compiler.trace.torch_ops.registry import word
from memsr_compiler.trace.torch_ops.shape import count_on, is_of_channels, over_places
from memsr_compiler.trace.torch_ops.unsupported import IMPOSSIBLE
from memsr_compiler.trace.views import Size, View, WrongChannels


def _pair(b: Builder, value: Any, what: str) -> int:
    values = list(value) if isinstance(value, Sequence) else [value]
    if len(set(values)) > 1:
        b.refuse(f"{what} {tuple(values)} differs in height and width", "use square kernels")
    return int(values[0])


@word("conv2d")
def conv2d(
    b: Builder,
    x: View | Padded,
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
    if isinstance(x, Padded):
        have, x = (have[0] + x.rows, have[1] + x.columns), x.inner
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
    x: View | Padded,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> View | Uncropped:
    if transposed:
        b.require_settled([x])
        assert isinstance(x, View)
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
) -> View | Uncropped:
    steps, pad, spread = _pair(b, stride, "stride"), _pair(b, padding, "padding"), _pair(b, dilation, "dilation")
    extra = _pair(b, output_padding, "output_padding")
    weight, sides = dilate(weight.double(), (spread, spread)), (pad, pad)
    return transpose_conv(b, x, weight, bias, steps, sides, sides, (extra, extra), groups)


@word("linear")
def linear(b: Builder, x: View, weight: Any, bias: Tensor | None = None) -> View:
    """The same matrix for each pixel, where the last axis is of channels: a convolution of 1x1."""
    last = len(x.axes) - 1
    if not isinstance(weight, Tensor) or not is_of_channels(x, last):
        b.refuse(
            "it takes rows of pixels, or weights that depend on the image, and a plain network treats all pixels alike",
            "put the channels last before it, by permute(0, 2, 3, 1), or remove it and retrain",
        )
    if count_on(x, last) != weight.shape[1]:
        raise WrongChannels(f"{b.where}: takes {weight.shape[1]} channels, is given {count_on(x, last)}")
    offset = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias
    return over_places(b, x, last, weight, offset, b.name("linear"))


def dilate(weight: Tensor, spread: tuple[int, int]) -> Tensor:
    """The kernel with its taps so many rows and columns apart."""
    wide = weight.new_zeros(
        *weight.shape[:2], *((n - 1) * d + 1 for n, d in zip(weight.shape[2:], spread, strict=True))
    )
    wide[:, :, :: spread[0], :: spread[1]] = weight
    return wide


def transpose_conv(
    b: Builder, x: View, weight: Tensor, bias: Tensor | None, steps: int, before: tuple[int, int],
    behind: tuple[int, int], extra: tuple[int, int], groups: int,
) -> View | Uncropped:  # fmt: skip
    """A transposed convolution of any padding, of rows and columns; `extra` is its output_padding.

    Where it makes more than `steps` times the image, what is too many has to be cut off by what follows.
    """
    sizes = zip(weight.shape[2:], before, behind, extra, strict=True)
    surplus = [n - first - last + added - steps for n, first, last, added in sizes]
    at = next((i for i in range(2) if surplus[i] != 0), 0)
    padding = f"{before[at]}" if before[at] == behind[at] else f"{before[at]} and {behind[at]}"
    reason = (
        f"kernel {weight.shape[2 + at]}, stride {steps}, padding {padding}, output_padding {extra[at]} do not "
        f"enlarge by exactly {steps}"
    )
    way_out = "choose them so that kernel - padding on both sides + output_padding = stride, or crop what is too many"
    if min(surplus) < 0:
        b.refuse(reason, way_out)
    name, source = b.name("conv_transpose"), b.feature(x)
    offset = torch.zeros(weight.shape[1] * groups, dtype=torch.float64) if bias is None else bias.double()

    def make(first: tuple[int, int]) -> View:
        kernel, pad = _make_symmetric(weight, steps, (before[0] + first[0], before[1] + first[1]))
        b.room(kernel.shape[2], MAX_KERNEL, "a kernel")
        return b.add(
            ir.ConvTranspose2d(
                name=name, inputs=(source,), weight=kernel, bias=offset, stride=steps, padding=pad, groups=groups
            )
        )

    if not any(surplus):
        return make((0, 0))
    scale = b.types[source].scale * steps
    whole = Size("h", Fraction(scale)), Size("w", Fraction(scale))
    why = f"{b.where or 'the network'}: {b.last}: {reason}; {way_out}"
    return Uncropped(make, whole, (0, 0), (surplus[0], surplus[1]), why)


def _make_symmetric(weight: Tensor, steps: int, before: tuple[int, int]) -> tuple[Tensor, int]:
    """A square kernel, and its padding, the same on all sides, that make stride times the image and these pixels of it.

    before   padding above and to the left, in which the result begins
    Zero taps before or behind say the same as other padding there.
    """
    lengths = weight.shape[2:]
    pad = max(max(first, n - steps - first) for n, first in zip(lengths, before, strict=True))
    front = [pad - first for first in before]
    side = max(2 * pad + 1, *(n + more for n, more in zip(lengths, front, strict=True)))
    behind = [side - n - more for n, more in zip(lengths, front, strict=True)]
    return torch.nn.functional.pad(weight, (front[1], behind[1], front[0], behind[0])), pad


@word("avg_pool2d")
def avg_pool2d(
    b: Builder, x: View | Padded, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> View:  # fmt: skip
    """Means of neighbours at every pixel: a convolution of equal weights."""
    size = _pair(b, kernel_size, "kernel")
    if _pair(b, stride or kernel_size, "stride") != 1:
        b.refuse(*IMPOSSIBLE["avg_pool2d"])
    if _pair(b, padding, "padding") and not count_include_pad:
        b.refuse("at the border it divides by fewer pixels", "use count_include_pad=True and retrain")
    width = b.channels(x.inner if isinstance(x, Padded) else x)
    weight = torch.full((width, 1, size, size), 1.0 / (divisor_override or size**2), dtype=torch.float64)
    return conv2d(b, x, weight, None, 1, padding, 1, width)
