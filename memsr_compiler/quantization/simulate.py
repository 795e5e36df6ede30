"""A plain network as it computes in 8-bit integers, in floating point: for training that knows of the rounding.

Jacob et al. 2018, arXiv 1712.05877.  Weights: 7 bits and a sign, a step for each output channel (two products of 8 and
7 bits fit the 16 bits in which processors without VNNI add them).  Values: 8 bits, without sign, a step for each layer;
behind a ReLU from 0 on.  The image has the steps of its own 255 levels, and so has the result.  Rounding passes
gradients as if it were not there.
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
MOMENTUM = 0.02  # of what a batch reaches, in the average that becomes a layer's range


@dataclass(frozen=True)
class Steps:
    """Steps of a tensor in 8 bits: value = scale * (integer - zero), integers 0 to 255."""

    scale: float
    zero: int

    @staticmethod
    def of(low: float, high: float) -> Steps:
        """Steps that reach from low to high, and hold 0 exactly where that is between them."""
        scale = max(high - low, 1e-12) / LEVELS
        return Steps(scale, round(-low / scale))

    def round(self, x: Tensor) -> Tensor:
        """The nearest value that there is."""
        integers = (_round(x / self.scale) + self.zero).clamp(0, LEVELS)
        return (integers - self.zero) * self.scale


class IntegerNet(nn.Module):
    """(N, C, H, W) -> (N, C', scale * H, scale * W) as 8-bit integers give it, in the network's range.

    plain       the network in floating point, whose weights are trained
    ranges      (layers, 2): the least and most that each layer gives, averaged over batches
    observing   whether batches move the ranges, in training
    """

    ranges: Tensor

    def __init__(self, plain: PlainNet) -> None:
        """Take a network of one resolution.  Raises InvalidInput for another, and for an interpolated image skip."""
        super().__init__()
        if any(layer.shuffle > 1 for layer in list(plain)[:-1]) or plain.info.image_skip not in ("", REPEATED):
            raise InvalidInput(
                "--int8 is for plain networks with one pixel shuffle, at the end, and no interpolated image beside them"
            )
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
        image = value = self.image_steps.round(x)
        last = len(self.plain.layers) - 1
        for i, layer in enumerate(self.plain):
            value = F.conv2d(value, round_weights(layer.weight), layer.bias, padding=layer.weight.shape[-1] // 2)
            value = value.relu() if layer.relu else value
            if self.training and self.observing:
                with torch.no_grad():
                    self.ranges[i].lerp_(torch.stack(value.aminmax()).to(self.ranges), MOMENTUM)
            value = self.steps(i).round(value) if i < last or self.plain.info.image_skip else value
        shuffle = self.plain[last].shuffle
        if self.plain.info.image_skip:
            value = value + image.repeat_interleave(shuffle**2, dim=1)
        value = self.image_steps.round(value)
        return F.pixel_shuffle(value, shuffle) if shuffle > 1 else value


def weight_steps(weight: Tensor) -> Tensor:
    """The step (C_out,) of each output channel of a kernel."""
    return weight.detach().flatten(1).abs().amax(1).clamp_min(1e-12) / WEIGHT_LIMIT


def round_weights(weight: Tensor) -> Tensor:
    """The kernel with the nearest weights that 7 bits and a sign hold."""
    steps = weight_steps(weight)[:, None, None, None]
    return _round(weight / steps) * steps


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
