"""Words for convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.trace.builder import Builder, Padded
from memsr_compiler.trace.torch_ops.registry import word
from memsr_compiler.trace.torch_ops.unsupported import IMPOSSIBLE
from memsr_compiler.trace.views import View


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
) -> View:
    if transposed:
        b.require_unpadded([x])
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


@word("avg_pool2d")
def avg_pool2d(
    b: Builder, x: View, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> View:  # fmt: skip
    """Means of neighbours at every pixel: a convolution of equal weights."""
    size = _pair(b, kernel_size, "kernel")
    if _pair(b, stride or kernel_size, "stride") != 1:
        b.refuse(*IMPOSSIBLE["avg_pool2d"])
    if _pair(b, padding, "padding") and not count_include_pad:
        b.refuse("at the border it divides by fewer pixels", "use count_include_pad=True and retrain")
    width = b.channels(x)
    weight = torch.full((width, 1, size, size), 1.0 / (divisor_override or size**2), dtype=torch.float64)
    return conv2d(b, x, weight, None, 1, padding, 1, width)
