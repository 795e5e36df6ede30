"""The loss: L1 to the photograph and, under a teacher, the features' distance (MemSR Sec. 3.4, Eq. 12 to 14)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.quantization.simulate import IntegerNet
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.torch_helpers import enlarge
from memsr_compiler.training.centred import at_pixels, crop, pad_centred

LEARNING = 0.8
"""Part of a run for 8 bits after which steps stay, so that weights settle on steps that do not move any more."""


def feature_distance(student: Sequence[Tensor], maps: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over the layers of MSE(M_i F_i^S, F_i), MemSR Eq. 12.

    student  F_i^S, each (N, r_i, H, W);   teacher  F_i, each (N, C_i, H, W)
    maps     M_i, each (C_i, r_i + 1, 1, 1): the last column meets the constant 1
    """
    return torch.stack(
        [
            F.mse_loss(F.conv2d(mine, m[:, :-1], m[:, -1, 0, 0]), theirs)
            for mine, m, theirs in zip(student, maps, teacher, strict=True)
        ]
    ).mean()


def pixel_loss(output: Tensor, high: Tensor) -> Tensor:
    """L1 of the output (N, C, H, W) to the photograph, MemSR Eq. 13; the mean of it to all that is wanted.

    high   (N, T, C, H, W): photographs, the teacher's outputs, or both
    """
    return F.l1_loss(output[:, None].expand_as(high), high)


def distillation_loss(pixels: Tensor, features: Tensor, share: float, *, weight: float, epsilon: float) -> Tensor:
    """L1 + lambda * epsilon^alpha * the features' distance, MemSR Eq. 14.

    share   alpha, the part of the run that is done, 0..1;   weight  lambda
    """
    return pixels + feature_weight(share, weight=weight, epsilon=epsilon) * features


def feature_weight(share: float, *, weight: float, epsilon: float) -> float:
    """lambda * epsilon^alpha of MemSR Eq. 14: full at the start, `epsilon` of it at the end.

    share   alpha, the part of the run that is done, 0..1;   weight  lambda
    """
    return float(weight * epsilon**share)


class Objective(nn.Module):
    """(low, high, share) -> what is minimised, its L1, the features' distance, not weighted.

    low (N, C, h, w), high (N, T, C, s h, s w);  share  of the run that is done, 0..1
    """

    network: nn.Module

    def settle(self) -> nn.Module:
        """Bring the network up to date with what is trained, and return it, for use."""
        return self.network

    def resting(self) -> Iterable[nn.Parameter]:
        """The parameters that are not trained at present: a gradient of zero does not stop an optimizer's momentum."""
        return ()


class Supervised(Objective):
    """A network alone: L1 to the photograph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        pixels = pixel_loss(self.network(low), high)
        return pixels, pixels, torch.zeros_like(pixels)


class QuantizationAware(Objective):
    """A network as 8-bit integers give it: L1 to what is wanted.

    network   its steps are trained too, until LEARNING of the run is done
    """

    network: IntegerNet

    def __init__(self, network: IntegerNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        self.network.learning = share < LEARNING
        pixels = pixel_loss(self.network(low), high)
        return pixels, pixels, torch.zeros_like(pixels)

    def settle(self) -> IntegerNet:
        """Write the biases that are trained into the network in floating point too, and return that of integers."""
        self.network.settle()
        return self.network

    def resting(self) -> Iterable[nn.Parameter]:
        """Steps, in the last part of the run."""
        return () if self.network.learning else (*self.network.kernel_growth, self.network.value_growth)


class CentredStudent(Objective):
    """A plain student, of which kernels are trained, and the biases of centred inputs.

    network  the student;   means    what each layer reads on average, (C_in,)

    What is trained of a layer is its kernel W and c = b + W m, the bias of its centred input: W x + b = W (x - m) + c.
    A student's linear channels lie far above zero, so that Adam's first steps, all of one size, would move every kernel
    along m, and the output by much more than the rate says.  c is trained in parts of the image's range, for the same
    reason: in a network on 0..255 biases are 255 times what they are in one on 0..1, and kernels are not.
    """

    network: PlainNet

    def __init__(self, network: PlainNet, means: Sequence[Tensor]) -> None:
        super().__init__()
        self.network = network
        low, high = network.info.input_range
        self._span = high - low
        self.biases = nn.ParameterList()
        for i, (layer, mean) in enumerate(zip(network, means, strict=True)):
            assert layer.bias is not None
            self.register_buffer(f"mean_{i}", mean.to(layer.weight))
            centred = layer.bias.detach() + self._along_mean(i).detach()
            self.biases.append(nn.Parameter(centred / self._span))
            layer.bias.requires_grad_(False)

    def settle(self) -> PlainNet:
        """Write the biases that belong to the trained ones into the network, and return it."""
        with torch.no_grad():
            for i, layer in enumerate(self.network):
                assert layer.bias is not None
                layer.bias.copy_(self._bias(i))
        return self.network

    def _bias(self, i: int) -> Tensor:
        """The bias of the layer, for what it really reads."""
        bias: Tensor = self.biases[i] * self._span - self._along_mean(i)
        return bias

    def _along_mean(self, i: int) -> Tensor:
        """W m, (C_out,); no matrix product, which mixed precision would round."""
        return (self.network[i].weight.sum(dim=(2, 3)) * self.get_buffer(f"mean_{i}")).sum(dim=1)

    def _features(self, low: Tensor, keep: bool = True) -> tuple[list[Tensor], Tensor]:
        """The student's features after every layer but the last, none unless `keep`; its output, of the images' dtype.

        Inside, features are x - m, and -m beyond the border, where x is zero.  Mixed precision then rounds them by no
        more than what varies in them asks for.
        """
        layers, features = list(self.network), []
        means = [self.get_buffer(f"mean_{i}") for i in range(len(layers))]
        value = pad_centred(low - at_pixels(means[0]), means[0], _around(layers[0]), relu=False)
        for layer, bias, mean, reader in zip(layers[:-1], self.biases, means[1:], layers[1:], strict=False):
            before = mean.repeat_interleave(layer.shuffle**2)  # of the channels that a pixel shuffle makes one of
            value = F.conv2d(value, layer.weight, bias * self._span - before)
            value = F.pixel_shuffle(value, layer.shuffle) if layer.shuffle > 1 else value
            value = pad_centred(value, mean, _around(reader), relu=layer.relu)
            if keep:
                features.append(crop(value, _around(reader)) + at_pixels(mean))
        last = layers[-1]
        value = F.conv2d(value, last.weight, self.biases[-1] * self._span).to(low.dtype)
        value = F.pixel_shuffle(value.relu() if last.relu else value, last.shuffle)
        skip = self.network.info.image_skip
        return features, value + enlarge(low, self.network.scale, skip) if skip else value


def _around(layer: PlainLayer) -> int:
    """Pixels of zeros that a layer reads around an image."""
    return layer.weight.shape[-1] // 2


class TaughtStudent(CentredStudent):
    """A plain student beside its teacher, whose features are computed for the same images."""

    def __init__(self, network: PlainNet, teacher: LeveledTeacher, means: Sequence[Tensor]) -> None:
        super().__init__(network, means)
        self._teacher = teacher
        self._placed: dict[tuple[torch.dtype, torch.device], LeveledTeacher] = {}

    def _teacher_features(self, low: Tensor) -> list[Tensor]:
        """The teacher's features after every level but the last."""
        place = low.dtype, low.device
        if place not in self._placed:
            self._placed[place] = self._teacher.like(low)
        with torch.no_grad():
            return [level.after for level in self._placed[place].inner_features(low)]


class Distillation(TaughtStudent):
    """A plain student beside its teacher; the maps M_i are trained too.

    maps     M_i, each (C_i, r_i + 1), which are trained as 1x1 convolutions
    weight   lambda;   epsilon   of Eq. 14.  With weight 0 the teacher is not run.
    network, teacher, means   of TaughtStudent
    """

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
        super().__init__(network, teacher, means)
        self._weight, self._epsilon = weight, epsilon
        self.maps = nn.ParameterList(nn.Parameter(m.float()[:, :, None, None].clone()) for m in maps if weight)

    def forward(self, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        own, output = self._features(low, keep=bool(self.maps))
        pixels = pixel_loss(output, high)
        if not self.maps:
            return pixels, pixels, torch.zeros_like(pixels)
        features = feature_distance(own, list(self.maps), self._teacher_features(low))
        loss = distillation_loss(pixels, features, share, weight=self._weight, epsilon=self._epsilon)
        return loss, pixels, features
