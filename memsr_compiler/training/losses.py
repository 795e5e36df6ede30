"""What is minimised: L1 to the photograph and, under a teacher, the features' distance (MemSR Eq. 12 to 14)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.maps import describe_layers

Start = Literal["as-is", "he", "xavier"]


def feature_weight(share: float, *, weight: float, epsilon: float) -> float:
    """lambda * epsilon^alpha of Eq. 13 and 14: full at the start, `epsilon` of it at the end.

    share   alpha, the part of the run that is done, 0..1
    """
    return float(weight * epsilon**share)


class Objective(nn.Module):
    """(low, high, share) -> what is minimised, its L1, the features' distance, not weighted.

    low (N, C, h, w), high (N, C, s h, s w);  share  of the run that is done, 0..1
    """

    network: nn.Module

    def settled(self) -> nn.Module:
        """The network as it is now, for use."""
        return self.network


class Supervised(Objective):
    """A network alone: L1 to the photograph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        pixels = F.l1_loss(self.network(low), high)
        return pixels, pixels, torch.zeros_like(pixels)


class Distillation(Objective):
    """A plain student beside its teacher; the maps M_i are trained too.

    network  the student;   maps  M_i, each (C_i, r_i + 1, 1, 1): a 1x1 convolution of the student's features and 1
    means    what each layer reads on average, (C_in,)
    weight   lambda;   epsilon   of Eq. 14.  With weight 0 the teacher is not run.

    What is trained of a layer is its kernel W and c = b + W m, the bias of its centred input: W x + b = W (x - m) + c.
    A student's linear channels lie far above zero, so that Adam's first steps, all of one size, would move every kernel
    along m, and the output by much more than the rate says.
    """

    network: PlainNet

    def __init__(
        self,
        network: PlainNet,
        teacher: LeveledTeacher,
        maps: Sequence[Tensor],
        *,
        weight: float,
        epsilon: float,
        means: Sequence[Tensor],
    ) -> None:
        super().__init__()
        self.network = network
        self.biases = nn.ParameterList()
        for i, (layer, mean) in enumerate(zip(network, means, strict=True)):
            assert layer.bias is not None
            self.register_buffer(f"mean_{i}", mean.to(layer.weight))
            self.biases.append(nn.Parameter(layer.bias.detach() + self._along_mean(i).detach()))
            layer.bias.requires_grad_(False)
        self._teacher = teacher
        self._placed: dict[tuple[torch.dtype, torch.device], LeveledTeacher] = {}
        self._weight, self._epsilon = weight, epsilon
        self.maps = nn.ParameterList(nn.Parameter(m.float()[:, :, None, None].clone()) for m in maps if weight)

    def forward(self, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        own, output = self._features(low)
        pixels = F.l1_loss(output, high)
        if not self.maps:
            return pixels, pixels, torch.zeros_like(pixels)
        distances = [
            F.mse_loss(F.conv2d(mine, m[:, :-1], m[:, -1, 0, 0]), theirs)
            for mine, m, theirs in zip(own, self.maps, self._theirs(low), strict=True)
        ]
        features = torch.stack(distances).mean()
        factor = feature_weight(share, weight=self._weight, epsilon=self._epsilon)
        return pixels + factor * features, pixels, features

    def settled(self) -> PlainNet:
        with torch.no_grad():
            for i, layer in enumerate(self.network):
                assert layer.bias is not None
                layer.bias.copy_(self.biases[i] - self._along_mean(i))
        return self.network

    def _along_mean(self, i: int) -> Tensor:
        """W m, (C_out,); no matrix product, which mixed precision would round."""
        return (self.network[i].weight.sum(dim=(2, 3)) * self.get_buffer(f"mean_{i}")).sum(dim=1)

    def _features(self, low: Tensor) -> tuple[list[Tensor], Tensor]:
        """After every layer but the last, and the output."""
        found, value = [], low
        for i, layer in enumerate(self.network):
            bias = self.biases[i] - self._along_mean(i)
            value = F.conv2d(value, layer.weight, bias, padding=layer.weight.shape[-1] // 2)
            value = value.relu() if layer.relu else value
            value = F.pixel_shuffle(value, layer.shuffle) if layer.shuffle > 1 else value
            found.append(value)
        skip = self.network.info.image_skip
        if skip:
            scale = self.network.scale
            value = value + F.interpolate(low, scale_factor=scale, mode=skip, align_corners=False)
        return found[:-1], value

    def _theirs(self, low: Tensor) -> list[Tensor]:
        place = low.dtype, low.device
        if place not in self._placed:
            self._placed[place] = self._teacher.like(low)
        teacher = self._placed[place]
        found = []
        with torch.no_grad():
            values = teacher.start(low)
            for level in teacher.levels[:-1]:
                features = teacher.advance(level, values)
                values = features.values
                found.append(features.after)
        return found


def initial_maps(teacher: LeveledTeacher, student: PlainNet, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """M_i (C_i, r_i + 1) by least squares on images, as when the student was derived.

    inputs   batches (N, C, H, W)

    Raises InvalidInput for a student that is not of this teacher's depth.
    """
    require_pair(teacher, student)
    kernels = tuple((layer.weight.double(), layer.bias.double()) for layer in student.checkable())
    return tuple(layer.map for layer in describe_layers(teacher, kernels, [0] * (len(kernels) - 1), inputs))


def random_maps(teacher: LeveledTeacher, student: PlainNet, seed: int) -> tuple[Tensor, ...]:
    """The same at random, normal with variance 1 / r_i.  Raises InvalidInput as initial_maps."""
    require_pair(teacher, student)
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.cat([torch.randn(c, r, generator=generator) * (1 / r) ** 0.5, torch.zeros(c, 1)], dim=1)
        for c, r in zip(teacher.widths[1:-1], student.widths[1:-1], strict=True)
    )


def input_means(student: PlainNet, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What each layer reads on average, (C_in,), on batches (N, C, H, W)."""
    totals = [torch.zeros(layer.in_channels, dtype=torch.float64) for layer in student]
    count = 0
    with torch.no_grad():
        for batch in inputs:
            value = batch.float()
            count += value[:, 0].numel()
            for i, layer in enumerate(student):
                totals[i] += value.double().sum(dim=(0, 2, 3)) * (batch[:, 0].numel() / value[:, 0].numel())
                value = layer(value)
    return tuple(total / count for total in totals)


def no_means(student: PlainNet) -> tuple[Tensor, ...]:
    """Zeros: kernels and biases are trained as they are."""
    return tuple(torch.zeros(layer.in_channels) for layer in student)


def require_pair(teacher: LeveledTeacher, student: PlainNet) -> None:
    """Raises InvalidInput unless every layer of the student has a level of the teacher that it stands for."""
    if len(student.layers) != len(teacher.levels):
        raise InvalidInput(
            f"the student has {len(student.layers)} layers, the teacher's plain form {len(teacher.levels)}: it was "
            "derived from another teacher"
        )
    if student.scale != teacher.scale:
        raise InvalidInput(f"the student enlarges by {student.scale}, the teacher by {teacher.scale}")


def restarted(student: PlainNet, start: Start, seed: int) -> None:
    """New weights, in place: "he" or "xavier" (normal, biases zero); "as-is" keeps those there are."""
    if start == "as-is":
        return
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in student:
            if start == "he":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            else:
                nn.init.xavier_normal_(layer.weight, generator=generator)
            assert layer.bias is not None
            layer.bias.zero_()
