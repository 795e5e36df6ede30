"""Kernel algebra: tensors in, tensors out.  Knows nothing of graphs.

All kernels are (C_out, C_in, k, k) with odd k and act with zero padding (k - 1) / 2; matrices are (C_out, C_in).
Everything is exact: sums and products of the entries, no approximation, any dtype, mixed ones
as the wider (the compiler uses float64).
"""

from __future__ import annotations

import torch
from torch import Tensor


def center_pad(kernel: Tensor, size: int) -> Tensor:
    """The same convolution with a larger kernel: zeros all round, up to (size, size)."""
    margin = (size - kernel.shape[-1]) // 2
    return torch.nn.functional.pad(kernel, (margin,) * 4)


def dense(kernel: Tensor, groups: int = 1, dilation: int = 1) -> Tensor:
    """A grouped, dilated kernel in full: (C_out, C_in / groups, k, k) -> (C_out, C_in, K, K), K = (k-1)dilation + 1."""
    c_out, c_in, k, _ = kernel.shape
    size = (k - 1) * dilation + 1
    out = kernel.new_zeros(c_out, c_in * groups, size, size)
    rows = c_out // groups
    for g in range(groups):
        out[g * rows : (g + 1) * rows, g * c_in : (g + 1) * c_in, ::dilation, ::dilation] = kernel[
            g * rows : (g + 1) * rows
        ]
    return out


def mix_outputs(matrix: Tensor, kernel: Tensor) -> Tensor:
    """Kernel of  matrix * (kernel * x)  (MemSR, Lemma 3.1).  (O, M), (M, I, k, k) -> (O, I, k, k)."""
    kernel = kernel.to(torch.promote_types(kernel.dtype, matrix.dtype))
    used = matrix != 0
    if matrix.numel() and int(used.sum(1).max()) <= 1:
        row = used.to(torch.uint8).argmax(1)
        return kernel.index_select(0, row).mul_(matrix.gather(1, row[:, None])[:, :, None, None])
    if kernel.shape[-1] == 1:
        return mix_inputs(matrix[:, :, None, None], kernel[:, :, 0, 0])
    return (matrix @ kernel.flatten(1)).reshape(len(matrix), *kernel.shape[1:])


def mix_inputs(kernel: Tensor, matrix: Tensor) -> Tensor:
    """Kernel of  kernel * (matrix * x)  (MemSR, Lemma 3.1).  (O, M, k, k), (M, I) -> (O, I, k, k).

    Holds up to the border, because zero padding goes through a matrix without bias unchanged.
    """
    kernel = kernel.to(torch.promote_types(kernel.dtype, matrix.dtype))
    used = matrix != 0
    if matrix.numel() and int(used.sum(0).max()) <= 1:
        column = used.to(torch.uint8).argmax(0)
        return kernel.index_select(1, column).mul_(matrix.gather(0, column[None])[:, :, None, None])
    k = kernel.shape[-1]
    taps = kernel.permute(0, 2, 3, 1).reshape(-1, kernel.shape[1]) @ matrix
    return taps.reshape(len(kernel), k, k, -1).permute(0, 3, 1, 2).contiguous()


def bias_rm(bias: Tensor, size: int) -> Tensor:
    """Kernel that makes a bias out of a channel of ones (MemSR, Eq. 4): zeros, and the bias at the centre tap.

    The centre tap reads the pixel itself, so it reads 1 up to the border.  (O,) -> (O, 1, size, size).
    """
    kernel, middle = bias.new_zeros(len(bias), 1, size, size), size // 2
    kernel[:, 0, middle, middle] = bias
    return kernel


def bias_from_ones(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Kernel and bias that do what a kernel does to an input whose channel 0 is ones: Eq. 4 of MemSR the other way.

    The ones' centre tap is a bias.  Its other taps stay; beyond the border they read 0.
    (O, 1 + I, k, k) -> kernel with that tap set to 0, bias (O,).
    """
    out, mid = kernel.clone(), kernel.shape[-1] // 2
    out[:, 0, mid, mid] = 0
    return out, kernel[:, 0, mid, mid].clone()


def polyphase(kernel: Tensor, scale: int) -> Tensor:
    """A convolution at `scale` times the resolution, as one at resolution 1 on the pixels folded into channels.

    (O, I, k, k) -> (O * scale**2, I * scale**2, K, K), K = 2 * ceil((k // 2) / scale) + 1.  Folded channel
    (c * scale + dy) * scale + dx is pixel (dy, dx) of each cell.  Zero padding stays zero padding: the cells outside
    the image are the pixels outside the image.
    """
    if scale == 1:
        return kernel
    c_out, c_in, k, _ = kernel.shape
    reach = k // 2
    radius = -(-reach // scale)
    out = kernel.new_zeros(c_out, scale, scale, c_in, scale, scale, 2 * radius + 1, 2 * radius + 1)
    for dy in range(scale):
        for dx in range(scale):
            for i in range(k):
                for j in range(k):
                    cell_y, y = divmod(dy + i - reach, scale)
                    cell_x, x = divmod(dx + j - reach, scale)
                    out[:, dy, dx, :, y, x, radius + cell_y, radius + cell_x] = kernel[:, :, i, j]
    return out.reshape(c_out * scale**2, c_in * scale**2, 2 * radius + 1, 2 * radius + 1)


def unfold_transposed(kernel: Tensor, stride: int, padding: int, groups: int = 1) -> Tensor:
    """A strided transposed convolution as a convolution before pixel_shuffle(stride).

    kernel (C_in, C_out / groups, k, k), tap (i, j) of pixel (y, x) landing on (stride * y - padding + i, ...)
    -> (C_out * stride**2, C_in, K, K), K odd and just large enough.
    """
    c_in, per_group, k, _ = kernel.shape
    full = kernel.new_zeros(c_in, per_group * groups, k, k)
    share = c_in // groups
    for g in range(groups):
        rows = slice(g * share, (g + 1) * share)
        full[rows, g * per_group : (g + 1) * per_group] = kernel[rows]
    steps = [
        (r, i, (r + padding - i) // stride) for r in range(stride) for i in range(k) if (r + padding - i) % stride == 0
    ]
    radius = max((abs(q) for _, _, q in steps), default=0)
    out = kernel.new_zeros(per_group * groups, stride, stride, c_in, 2 * radius + 1, 2 * radius + 1)
    for dy, i, qy in steps:
        for dx, j, qx in steps:
            out[:, dy, dx, :, radius + qy, radius + qx] = full[:, :, i, j].T
    return out.reshape(per_group * groups * stride**2, c_in, 2 * radius + 1, 2 * radius + 1)


def shuffle_order(channels: int, factor: int, scale: int) -> list[int]:
    """The order in which pixel_shuffle(factor) takes folded channels.

    The operand has channels * factor**2 maps, each folded by scale**2; entry i is the operand's folded channel that
    is folded channel i of the result (`channels` maps folded by (scale * factor)**2).
    """
    index = torch.arange(channels * factor**2 * scale**2).reshape(channels, factor, factor, scale, scale)
    order: list[int] = index.permute(0, 3, 1, 4, 2).reshape(-1).tolist()
    return order


def selection(index: list[int] | tuple[int, ...], channels: int) -> Tensor:
    """The 0/1 matrix (len(index), channels) that picks channels, float64."""
    out = torch.zeros(len(index), channels, dtype=torch.float64)
    out[torch.arange(len(index)), torch.tensor(index)] = 1
    return out
