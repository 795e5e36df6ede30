"""Ops: one page with everything that a network can be made of while it is rewritten.

A network is a `Graph` of ops.  Every op makes one feature map from others, and is known by its name: the module
path it had in the teacher ("body.3.conv1").  **A name means a value**: a pass may change how a value is computed,
but an op called "body.3" stays, through all passes, the tensor that the teacher's body.3 gave (resolution folded
into channels, see `FeatureMap`).  The certificate stands on this; how names are spelled is in `ir.names`.

    read by the tracer        Input  Conv2d  ConvTranspose2d  Affine  Sum  Concat  Select
                              Relu  PRelu  Clamp  Maximum  PixelShuffle  PixelUnshuffle
    left when canonical       Input  Conv2d  Sum  Relu; where two resolutions meet, PixelShuffle
    added by scheduling       Carry
    left by merging           Input  BlockConv2d  Relu; at the end, PixelShuffle
    in the PReLU form         PRelu too, from beginning to end

An op says what it computes and which operands it takes (`infer`); what it gives for an image is in `ir.interpreter`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidGraph

ROWS = 64  # of a dense kernel that are written out together


@dataclass(frozen=True)
class FeatureMap:
    """The type of a value: `channels` maps at `scale` times the height and width of the network's input.

    Folded to the input's resolution it has channels * scale**2 maps; map (c * scale + dy) * scale + dx holds the
    pixels (scale * y + dy, scale * x + dx) of channel c, which is the channel order of torch's pixel_shuffle.
    """

    channels: int
    scale: int = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Op:
    """One value and how it is computed: the base of all that follow.

    name     unique in its graph; the module path in the teacher where there is one
    inputs   names of the operands
    part     set where the value is not a tensor of the teacher but a share of one
    """

    name: str
    inputs: tuple[str, ...] = ()
    part: Part | None = None

    def infer(self, *operands: FeatureMap) -> FeatureMap:
        """Type of the result.  Raises InvalidGraph if the operands do not fit."""
        raise InvalidGraph(f"{self.name}: {type(self).__name__} has no type rule")

    def check(self, holds: bool, problem: str) -> None:
        """Raise InvalidGraph, naming this op, unless a condition holds."""
        if not holds:
            raise InvalidGraph(f"{self.name}: {type(self).__name__}: {problem}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Op):
    """The network's input.  `low` and `high` bound its values, in the teacher's own units (1 or 255)."""

    channels: int
    low: float = float("-inf")
    high: float = float("inf")

    def infer(self) -> FeatureMap:
        return FeatureMap(self.channels)


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2d(Op):
    """y = weight * x + bias; stride 1, odd square kernel, zero padding that keeps the size.  Paper: Conv(K, b).

    weight (C_out, C_in / groups, k, k)    bias (C_out,)    dilation   taps that many pixels apart
    """

    weight: Tensor
    bias: Tensor
    groups: int = 1
    dilation: int = 1

    @property
    def pointwise(self) -> bool:
        return self.weight.shape[-1] == 1

    def infer(self, x: FeatureMap) -> FeatureMap:
        c_out, c_in, k, k2 = self.weight.shape
        self.check(k == k2 and k % 2 == 1, f"kernel {k}x{k2} is not odd and square")
        self.check(c_in * self.groups == x.channels, f"takes {c_in * self.groups} channels, is given {x.channels}")
        self.check(c_out % self.groups == 0 and self.bias.shape == (c_out,), "bias or groups do not fit the kernel")
        return FeatureMap(c_out, x.scale)


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvTranspose2d(Op):
    """torch.nn.ConvTranspose2d with a result of exactly stride * height by stride * width.

    weight (C_in, C_out / groups, k, k)   bias (C_out,)   pixel (y, x) of tap (i, j) lands on stride * y - padding + i
    """

    weight: Tensor
    bias: Tensor
    stride: int
    padding: int
    groups: int = 1

    def infer(self, x: FeatureMap) -> FeatureMap:
        c_in, c_out, k, k2 = self.weight.shape
        self.check(k == k2, f"kernel {k}x{k2} is not square")
        self.check(c_in == x.channels, f"takes {c_in} channels, is given {x.channels}")
        extra = self.stride + 2 * self.padding - k
        self.check(
            0 <= extra < self.stride, f"kernel {k}, stride {self.stride}, padding {self.padding} change the size"
        )
        self.check(self.bias.shape == (c_out * self.groups,), "bias does not fit the kernel")
        return FeatureMap(c_out * self.groups, x.scale * self.stride)


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Op):
    """y = scale * x + shift, one pair a channel: batch norm in eval mode, scalars, mean shift, negation."""

    scale: Tensor
    shift: Tensor

    def infer(self, x: FeatureMap) -> FeatureMap:
        self.check(self.scale.shape == self.shift.shape == (x.channels,), f"does not fit {x.channels} channels")
        return x


@dataclass(frozen=True, eq=False, kw_only=True)
class Sum(Op):
    """y = x_1 + x_2 + ..."""

    def infer(self, *xs: FeatureMap) -> FeatureMap:
        self.check(len(set(xs)) == 1, f"operands differ: {', '.join(f'{x.channels} at x{x.scale}' for x in xs)}")
        return xs[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Op):
    """Channels of x_1, then those of x_2, ..."""

    def infer(self, *xs: FeatureMap) -> FeatureMap:
        self.check(len({x.scale for x in xs}) == 1, "operands differ in resolution")
        return FeatureMap(sum(x.channels for x in xs), xs[0].scale)


@dataclass(frozen=True, eq=False, kw_only=True)
class Select(Op):
    """Channel i of y is channel index[i] of x: slices, chunks, channel shuffle, repetition."""

    index: tuple[int, ...]

    def infer(self, x: FeatureMap) -> FeatureMap:
        self.check(bool(self.index) and all(0 <= i < x.channels for i in self.index), f"of {x.channels} channels")
        return FeatureMap(len(self.index), x.scale)


@dataclass(frozen=True, eq=False, kw_only=True)
class Relu(Op):
    """y = max(x, 0).  `meaning`: once scheduled, what its channels hold; before that its name says it all."""

    meaning: tuple[Meaning, ...] = ()

    def infer(self, x: FeatureMap) -> FeatureMap:
        _check_meaning(self, self.meaning, x)
        return x


@dataclass(frozen=True, eq=False, kw_only=True)
class PRelu(Op):
    """y = max(x, 0) + slope * min(x, 0), a slope a channel.  LeakyReLU; absolute value is slope -1.

    meaning  as of a Relu
    """

    slope: Tensor
    meaning: tuple[Meaning, ...] = ()

    def infer(self, x: FeatureMap) -> FeatureMap:
        self.check(self.slope.shape == (x.channels,), f"{len(self.slope)} slopes for {x.channels} channels")
        _check_meaning(self, self.meaning, x)
        return x


ACTIVATIONS = (Relu, PRelu)
"""Ops that a level of a plain network can end with."""


def _check_meaning(op: Op, meaning: tuple[Meaning, ...], x: FeatureMap) -> None:
    told = {p for m in meaning for p in m.positions if p >= 0}
    op.check(not meaning or told == set(range(x.channels)), f"{len(told)} of {x.channels} have a meaning")


def slopes_of(op: Relu | PRelu, channels: int) -> Tensor:
    """Slope (C,) below zero of each channel: 0 of a ReLU's."""
    return op.slope if isinstance(op, PRelu) else torch.zeros(channels, dtype=torch.float64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Clamp(Op):
    """y = min(max(x, low), high): ReLU6, Hardtanh, clamp.  Either bound may be infinite, on its own side."""

    low: float
    high: float

    def infer(self, x: FeatureMap) -> FeatureMap:
        self.check(self.low <= self.high, f"bounds {self.low} > {self.high}")
        self.check(self.low < math.inf and self.high > -math.inf, f"bounds {self.low}, {self.high} leave no number")
        return x


@dataclass(frozen=True, eq=False, kw_only=True)
class Maximum(Op):
    """y = max(x_1, x_2), element by element."""

    def infer(self, x: FeatureMap, y: FeatureMap) -> FeatureMap:
        self.check(x == y, "operands differ")
        return x


@dataclass(frozen=True, eq=False, kw_only=True)
class PixelShuffle(Op):
    """`factor` times the resolution from factor**2 times the channels (Shi et al. 2016, equation 4)."""

    factor: int

    def infer(self, x: FeatureMap) -> FeatureMap:
        self.check(x.channels % self.factor**2 == 0, f"{x.channels} channels, factor {self.factor}")
        return FeatureMap(x.channels // self.factor**2, x.scale * self.factor)


@dataclass(frozen=True, eq=False, kw_only=True)
class PixelUnshuffle(Op):
    """The inverse of PixelShuffle; only down to the input's own resolution."""

    factor: int

    def infer(self, x: FeatureMap) -> FeatureMap:
        self.check(x.scale % self.factor == 0, f"resolution x{x.scale} is not divisible by {self.factor}")
        return FeatureMap(x.channels * self.factor**2, x.scale // self.factor)


@dataclass(frozen=True, eq=False, kw_only=True)
class Carry(Op):
    """y = x: the 1x1 identity convolution that takes a value past one ReLU (MemSR, Sec. 3.2.3, Figure 3)."""

    def infer(self, x: FeatureMap) -> FeatureMap:
        return x


@dataclass(frozen=True)
class Part:
    """A share of a teacher's tensor, as which a value is known.

    Without its bias `tensor` is a sum of one matrix times each of some other tensors, `sources` and `rest` together;
    the part is the terms of `sources`.  A skip that is needed only inside a sum may be carried as a partial sum.
    """

    tensor: str
    sources: tuple[str, ...]
    rest: tuple[str, ...]


@dataclass(frozen=True)
class Meaning:
    """The meaning of some channels of a plain level: what they hold, in terms of the teacher (docs/certificate.md).

    kind       "value": t, which is never negative or has passed no ReLU yet;  "positive": relu(t);
               "negative": relu(-t);  "shifted": t + constant;  "one": 1;  "zero": 0
    positions  channels of the level; -1 for one that is always zero and was left out
    tensor     t, by its name in the traced teacher; "n#k" is the k-th ReLU in the ReLU form of activation n
    channels   folded channels of t, one for each position
    part       None, or t is only this part of the tensor
    """

    kind: Literal["value", "positive", "negative", "shifted", "one", "zero"]
    positions: tuple[int, ...]
    tensor: str = ""
    channels: tuple[int, ...] = ()
    constant: float = 0.0
    part: Part | None = None

    def renumber(self, to: Mapping[int, int]) -> Meaning:
        """The same meaning in a level whose channel i is now at to[i], or gone.  What was left out stays so."""
        kept = [i for i, p in enumerate(self.positions) if p in to or p < 0]
        positions = tuple(to.get(self.positions[i], -1) for i in kept)
        channels = tuple(self.channels[i] for i in kept) if self.channels else ()
        return replace(self, positions=positions, channels=channels)


@dataclass(frozen=True)
class Block:
    """A kernel inside a larger one: rows row.. and columns column.. of it.  kernel (c_out, c_in, k, k), k odd."""

    row: int
    column: int
    kernel: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockConv2d(Op):
    """A dense Conv2d (C_out, C_in, k, k) kept as the sum of its non-zero blocks, smaller kernels centred.

    The plain form of a dense teacher is wide and mostly zeros; this keeps it as small as the teacher.
    """

    channels_in: int
    kernel_size: int
    blocks: tuple[Block, ...]
    bias: Tensor

    def infer(self, x: FeatureMap) -> FeatureMap:
        self.check(self.channels_in == x.channels, f"takes {self.channels_in} channels, is given {x.channels}")
        for b in self.blocks:
            rows, columns, k, _ = b.kernel.shape
            fits = b.row + rows <= len(self.bias) and b.column + columns <= self.channels_in and k <= self.kernel_size
            self.check(fits, "a block sticks out of the kernel")
        return FeatureMap(len(self.bias), x.scale)

    def dense(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The whole kernel (C_out, C_in, k, k).

        Summed in float64, few rows at a time, so that one that is large and mostly zeros is never there in float64.
        """
        k = self.kernel_size
        out = torch.empty(len(self.bias), self.channels_in, k, k, dtype=dtype)
        for start in range(0, len(out), ROWS):
            total = torch.zeros(out[start : start + ROWS].shape, dtype=torch.float64)
            for b in self.blocks:
                height, columns, inner, _ = b.kernel.shape
                if not b.row - ROWS < start < b.row + height:
                    continue
                at, above = (k - inner) // 2, max(0, b.row - start)
                window = total[above:, b.column : b.column + columns, at : at + inner, at : at + inner]
                rows = b.kernel[max(0, start - b.row) :][: len(window)]
                window[: len(rows)] += rows
            out[start : start + ROWS] = total
        return out
