"""A plain network as it computes in 8-bit integers, whole numbers in float32: for training that knows of the rounding.

Jacob et al. 2018, arXiv 1712.05877.  Weights: 7 bits and a sign, a step for each output channel (two products of 8 and
7 bits fit the 16 bits in which processors without VNNI add them).  Biases: 32 bits.  Values: 8 bits, without sign, a
step for each layer; behind a ReLU from 0 on.  The image has the steps of its own 255 levels, and so has the result.
Rounding passes gradients as if it were not there.

Sums of whole numbers below 2^24 are exact in float32, so that what is rounded is what the engine rounds: in values
that are multiples of steps, every sum is a little off, and all that lie between two steps may be rounded to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.manifest import REPEATED
from memsr_compiler.plain.network import PlainNet

WEIGHT_LIMIT = 64
LEVELS = 255
LARGEST_BIAS = 2.0**30
"""In steps; int32 has room for the products beside it."""
MOMENTUM = 0.02  # of what a batch reaches, in the average that becomes a layer's range


@dataclass(frozen=True)
class Steps:
    """Steps of a tensor in 8 bits: value = scale * (integer - zero), integers 0 to 255."""

    scale: float
    zero: int

    @staticmethod
    def of(low: float, high: float) -> Steps:
        """Steps that reach from low to high, and hold 0 exactly where that is between them."""
        scale = float(torch.tensor(max(high - low, 1e-12) / LEVELS, dtype=torch.float32))  # as files keep it
        return Steps(scale, round(-low / scale))

    def count(self, x: Tensor) -> Tensor:
        """The integer nearest to a number of steps, less the zero; one that 8 bits hold."""
        return _round(x).clamp(-self.zero, LEVELS - self.zero)

    def round(self, x: Tensor) -> Tensor:
        """The nearest value that there is."""
        return self.count(x / self.scale) * self.scale


class IntegerNet(nn.Module):
    """(N, C, H, W) -> (N, C', scale * H, scale * W) as 8-bit integers give it, in the network's range.

    plain       the network in floating point, whose weights are trained
    ranges      (layers, 2): the least and most that each layer gives, averaged over batches
    observing   whether batches move the ranges, in training
    """

    ranges: Tensor

    def __init__(self, plain: PlainNet) -> None:
        """Take a network of one resolution.

        Raises InvalidInput for another, for an interpolated image skip, and for images among whose values is no 0,
        with which convolutions pad.
        """
        super().__init__()
        if any(layer.shuffle > 1 for layer in list(plain)[:-1]) or plain.info.image_skip not in ("", REPEATED):
            raise InvalidInput(
                "--int8 is for plain networks with one pixel shuffle, at the end, and no interpolated image beside them"
            )
        low, high = plain.info.input_range
        if not low <= 0 <= high:
            raise InvalidInput(f"--int8 is for images with a 0, which pads them; here they are {low:g} to {high:g}")
        self.plain = plain
        self.observing = True
        self.register_buffer("ranges", torch.zeros(len(plain.layers), 2))

    @property
    def image_steps(self) -> Steps:
        """Steps of the image and of the result: its 255 levels."""
        return Steps.of(*self.plain.info.input_range)

    def steps(self, i: int) -> Steps:
        """Steps of what layer i gives; of the last, before the image is added."""
        low, high = self.ranges[i].tolist()
        return Steps.of(min(low, 0.0), max(high, 0.0))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Widen the ranges to what images reach in floating point."""
        for i, value in enumerate(_run(self.plain, x)):
            least, most = value.aminmax()
            self.ranges[i] = torch.stack(
                [torch.minimum(least, self.ranges[i, 0]), torch.maximum(most, self.ranges[i, 1])]
            )

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # whole numbers beyond 256 have no place in bfloat16
            return self._run_integers(x.float())

    def _run_integers(self, x: Tensor) -> Tensor:
        levels = below = self.image_steps
        image = value = levels.count(x / levels.scale)
        last = len(self.plain.layers) - 1
        for i, layer in enumerate(self.plain):
            weight, bias, products = round_layer(layer.weight, layer.bias, below.scale)
            value = F.conv2d(value, weight, bias, padding=weight.shape[-1] // 2)
            value = value.relu() if layer.relu else value
            if self.training and self.observing:
                self._follow(i, value.detach() * products[:, None, None])
            below = self.steps(i) if i < last or self.plain.info.image_skip else levels
            value = below.count(value * (products / below.scale)[:, None, None])
        shuffle = self.plain[last].shuffle
        if self.plain.info.image_skip:
            value = value * below.scale + image.repeat_interleave(shuffle**2, dim=1) * levels.scale
            value = levels.count(value / levels.scale)
        value = value * levels.scale
        return F.pixel_shuffle(value, shuffle) if shuffle > 1 else value

    def _follow(self, i: int, value: Tensor) -> None:
        """Move the average of what layer i reaches."""
        self.ranges[i].lerp_(torch.stack(value.aminmax()).to(self.ranges), MOMENTUM)


def weight_steps(weight: Tensor, bias: Tensor, below: float) -> Tensor:
    """The step (C_out,) of each output channel of a kernel: its largest weight is the limit, and its bias fits.

    below   the step of what the layer reads
    """
    largest = weight.detach().flatten(1).abs().amax(1) / WEIGHT_LIMIT
    return torch.maximum(largest, bias.detach().abs() / (below * LARGEST_BIAS)).clamp_min(1e-20)


def round_layer(weight: Tensor, bias: Tensor, below: float) -> tuple[Tensor, Tensor, Tensor]:
    """The integers of a kernel and of its bias, and the steps (C_out,) of the bias and of all sums.

    below   the step of what the layer reads
    """
    steps = weight_steps(weight, bias, below)
    products = steps * below
    return _round(weight / steps[:, None, None, None]), _round(bias / products), products


def _round(x: Tensor) -> Tensor:
    """The nearest whole numbers, as whose gradient that of x is taken."""
    return x + (x.round() - x).detach()


def _run(plain: PlainNet, x: Tensor) -> list[Tensor]:
    """Results of each layer, before a pixel shuffle, in floating point."""
    values = []
    for layer in plain:
        x = F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)
        x = x.relu() if layer.relu else x
        values.append(x)
    return values
