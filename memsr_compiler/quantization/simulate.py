"""A plain network as it computes in 8-bit integers, whole numbers in float32: for training that knows of the rounding.

Jacob et al. 2018, arXiv 1712.05877.  Weights: 7 bits with the sign, a step for each output channel (two products of 8
and 7 bits fit the 16 bits in which processors without VNNI add them).  Biases: 32 bits.  Values: 8 bits, no sign, a
step for each layer; behind a ReLU from 0 on.  The image has the steps of its own 255 levels, and so has the result.
Rounding passes gradients as if it were not there, but for what is cut off.

A student's channels lie far above zero, so that a weight that is rounded to the next integer shifts all that its layer
gives.  Centred, what is trained is the bias of the centred input: W x + b = W (x - m) + c, with W as it is rounded, so
that b makes up for that.

Steps of weights and of values behind ReLUs are trained too (LSQ: Esser et al. 2020, arXiv 1902.08153), by their
logarithms, so that a step of the optimizer changes all by equal parts.

Sums of whole numbers below 2^24 are exact in float32, so that what is rounded is what the engine rounds: in values
that are multiples of steps, every sum is a little off, and all that lie between two steps may be rounded to the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.manifest import REPEATED
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.quantization.image_levels import image_steps
from memsr_compiler.quantization.round_convolutions import WEIGHT_LIMIT
from memsr_compiler.quantization.steps import LEVELS, Steps, round_through

LARGEST_BIAS = 2.0**30
"""In steps; int32 has room for the products beside it."""


class IntegerNet(nn.Module):
    """(N, C, H, W) -> (N, C', scale * H, scale * W) as 8-bit integers give it, in the network's range.

    plain       the network in floating point, whose kernels are trained
    biases      of its layers, in parts of the image's range, which are trained in place of its own: of centred inputs,
                after `centre`
    kernel_growth, value_growth   logarithms of what steps have grown by: of each layer's weights (C_out,), of the
                values of all layers (layers,)
    learning    whether steps are trained, or stay
    """

    zeros: Tensor
    value_scales: Tensor

    def __init__(self, plain: PlainNet, kernels: Sequence[Tensor], values: Sequence[Steps]) -> None:
        """Take a network of one resolution.

        kernels   for each layer the steps (C_out,) of its weights
        values    for each layer the steps of what it gives; of the last, before the image is added: they stay

        Raises InvalidInput for another network, for an interpolated image skip, and for images among whose values is no
        0, with which convolutions pad.
        """
        super().__init__()
        require_integers(plain)
        low, high = plain.info.input_range
        self._span = high - low
        self.plain = plain
        self.learning = True
        self.biases = nn.ParameterList()
        self.kernel_growth = nn.ParameterList()
        for i, (layer, steps) in enumerate(zip(plain, kernels, strict=True)):
            self.biases.append(nn.Parameter(layer.bias.detach() / self._span))
            layer.bias.requires_grad_(False)
            self.register_buffer(f"kernel_scales_{i}", steps.float().clone())
            self.register_buffer(f"mean_{i}", torch.zeros(layer.in_channels))
            self.kernel_growth.append(nn.Parameter(torch.zeros(len(steps))))
        self.register_buffer("value_scales", torch.tensor([steps.scale for steps in values]))
        self.register_buffer("zeros", torch.tensor([steps.zero for steps in values]))
        self.value_growth = nn.Parameter(torch.zeros(len(values)))

    @property
    def image_steps(self) -> Steps:
        """Steps of the image and of the result: its 255 levels."""
        info = self.plain.info
        return image_steps(Takes(info.scale, info.channels, info.input_range))

    def steps(self, i: int) -> Steps:
        """Steps of what layer i gives; of the last, before the image is added."""
        return Steps(float(self._value_scale(i, 1).detach()), int(self.zeros[i]))

    @torch.no_grad()
    def centre(self, images: Sequence[Tensor]) -> None:
        """Train the biases of centred inputs from here on, whose means are those on images (N, C, H, W)."""
        sums: list[Tensor] = [torch.zeros(layer.in_channels, dtype=torch.float64) for layer in self.plain]
        for image in images:
            value = image
            for i, layer in enumerate(self.plain):
                sums[i] += value.double().mean((0, 2, 3)) / len(images)
                value = F.conv2d(value, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)
                value = value.relu() if layer.relu else value
        for i, layer in enumerate(self.plain):
            self.get_buffer(f"mean_{i}").copy_(sums[i])
            kernel, _, steps, _ = self.layer_integers(i)
            self.biases[i].copy_((layer.bias + self._along_mean(i, kernel, steps)) / self._span)

    @torch.no_grad()
    def settle(self) -> PlainNet:
        """Write the biases that are trained into the network in floating point, and return it."""
        for i, layer in enumerate(self.plain):
            _, bias, _, products = self.layer_integers(i)
            layer.bias.copy_(bias * products)
        return self.plain

    @torch.no_grad()
    def layer_integers(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The integers of a layer's kernel and bias, the steps (C_out,) of the kernel, and those of the bias."""
        below = self._value_scale(i - 1, 1) if i else torch.tensor(self.image_steps.scale)
        return self._round_layer(i, below)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # whole numbers beyond 256 have no place in bfloat16
            return self._run_integers(x.float())

    def _run_integers(self, x: Tensor) -> Tensor:
        levels = self.image_steps
        image = value = levels.count(x / levels.scale)
        below = torch.tensor(levels.scale, device=x.device)
        last = len(self.plain.layers) - 1
        for i in range(last + 1):
            weight, bias, _, products = self._round_layer(i, below)
            value = F.conv2d(value, weight, bias, padding=weight.shape[-1] // 2)
            if i == last and not self.plain.info.image_skip:
                below, zero = torch.tensor(levels.scale, device=x.device), levels.zero
            else:
                below, zero = self._value_scale(i, value[0].numel()), int(self.zeros[i])
            value = round_through(value * (products / below)[:, None, None]).clamp(-zero, LEVELS - zero)  # and ReLU
        shuffle = self.plain[last].shuffle
        if self.plain.info.image_skip:
            value = value * below + image.repeat_interleave(shuffle**2, dim=1) * levels.scale
            value = levels.count(value / levels.scale)
        value = value * levels.scale
        return F.pixel_shuffle(value, shuffle) if shuffle > 1 else value

    def _round_layer(self, i: int, below: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `layer_integers`; below: the step of what the layer reads."""
        kernel, bias = self.plain[i].weight, self.biases[i] * self._span
        growth = self._learn(self.kernel_growth[i], kernel[0].numel() * WEIGHT_LIMIT)
        least = bias.detach().abs() / (below.detach() * LARGEST_BIAS)  # so that the bias fits
        steps = torch.maximum(self.get_buffer(f"kernel_scales_{i}") * growth.exp(), least)
        products = steps * below
        integers = round_through((kernel / steps[:, None, None, None]).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT))
        bias = bias - self._along_mean(i, integers, steps)
        return integers, round_through(bias / products), steps, products

    def _along_mean(self, i: int, integers: Tensor, steps: Tensor) -> Tensor:
        """W m, (C_out,), of the weights as they are rounded."""
        return (integers.sum(dim=(2, 3)) * self.get_buffer(f"mean_{i}")).sum(dim=1) * steps

    def _value_scale(self, i: int, numbers: int) -> Tensor:
        """The step of what layer i gives, so many numbers of an image; that of the last is not trained."""
        scale = self.value_scales[i]
        if i == len(self.value_scales) - 1:
            return scale
        return scale * self._learn(self.value_growth[i], numbers * LEVELS).exp()

    def _learn(self, growth: Tensor, count: int) -> Tensor:
        """The growth of steps, its gradient made smaller by the root of what they round, as LSQ has it; or 0."""
        share = float(count) ** -0.5 if self.learning else 0.0
        return growth.detach() + share * (growth - growth.detach())


def require_integers(plain: PlainNet) -> None:
    """Raise InvalidInput for a network of several resolutions, with an interpolated image skip, or images without 0."""
    if any(layer.shuffle > 1 for layer in list(plain)[:-1]) or plain.info.image_skip not in ("", REPEATED):
        raise InvalidInput(
            "--int8 is for plain networks with one pixel shuffle, at the end, and no interpolated image beside them"
        )
    low, high = plain.info.input_range
    if not low <= 0 <= high:
        raise InvalidInput(f"--int8 is for images with a 0, which pads them; here they are {low:g} to {high:g}")
