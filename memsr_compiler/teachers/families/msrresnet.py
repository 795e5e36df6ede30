"""MSRResNet, SRResNet without batch normalisation: BasicSR's and KAIR's, and the sequence that KAIR calls MSRResNet0.

Key names of BasicSR for the first: `conv_first`, `body.N.conv1`, `upconv1`, `conv_hr`, `conv_last`; KAIR's MSRResNet1
is the same network (`recon_trunk.N.conv1`, `HRconv`), mmagic's has no activation behind its pixel shuffles
(`trunk_net.N.conv1`, `upsample1.upsample_conv`). Those of KAIR for the second: `model.0`, `model.1.sub.N.res.0`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt, prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import (
    Dialect,
    Family,
    Shapes,
    by_patterns,
    conv,
    count_keys,
    has_kernels,
    leaving_open,
    number_layers,
    rename_keys,
    renaming,
)

Upsampling = Literal["upconv", "pixelshuffle"]


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))): (N, channels, H, W) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; see the class."""
        result: Tensor = x + self.conv2(torch.relu(self.conv1(x)))
        return result


class MSRResNet(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1].

    It corrects the image enlarged bilinearly.
    shuffle_activation  whether an activation follows each pixel shuffle
    Raises InvalidInput for a scale other than 2, 3, 4.
    Source: Wang et al., "ESRGAN" (ECCVW 2018), its SRResNet; BasicSR's MSRResNet.
    """

    def __init__(
        self,
        *,
        scale: int,
        blocks: int = 16,
        channels: int = 64,
        colours: int = 3,
        shuffle_activation: bool = True,
    ) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise InvalidInput(f"MSRResNet: scale={scale}. Choose 2, 3 or 4.")
        self.scale = scale
        self.conv_first = conv(colours, channels)
        self.body = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        factor = 3 if scale == 3 else 2
        self.upconv1 = conv(channels, channels * factor**2)
        self.upconv2 = conv(channels, channels * 4) if scale == 4 else None
        self.pixel_shuffle = nn.PixelShuffle(factor)
        self.conv_hr = conv(channels, channels)
        self.conv_last = conv(channels, colours)
        self.lrelu = nn.LeakyReLU(0.1)
        self.act = self.lrelu if shuffle_activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        y = self.body(self.lrelu(self.conv_first(x)))
        y = self.act(self.pixel_shuffle(self.upconv1(y)))
        if self.upconv2 is not None:
            y = self.act(self.pixel_shuffle(self.upconv2(y)))
        y = self.conv_last(self.lrelu(self.conv_hr(y)))
        result: Tensor = y + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return result


class Shortcut(nn.Module):
    """x + sub(x); `sub` a sequence: (N, channels, H, W) -> the same shape."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.sub = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        result: Tensor = x + self.sub(x)
        return result


class SequenceBlock(nn.Module):
    """x + res(x); `res` two convolutions and an activation: (N, channels, H, W) -> the same shape."""

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        self.res = nn.Sequential(conv(channels, channels), _activation(slope), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; see the class."""
        result: Tensor = x + self.res(x)
        return result


class MSRResNet0(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1].

    slope       of all activations below zero; 0: ReLU
    upsampling  nearest-neighbour enlargement and a convolution, or a convolution and a pixel shuffle, per factor
    last_bias   whether the last convolution has a bias
    Raises InvalidInput for a scale other than 1, 2, 3, 4, 8.
    Source: Zhang et al., KAIR's MSRResNet0, after the SRResNet of Wang et al., "ESRGAN" (ECCVW 2018).
    """

    def __init__(
        self,
        *,
        scale: int,
        blocks: int = 16,
        channels: int = 64,
        colours: int = 3,
        slope: float = 0.0,
        upsampling: Upsampling = "upconv",
        last_bias: bool = False,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 3, 4, 8):
            raise InvalidInput(f"MSRResNet0: scale={scale}. Choose 1, 2, 3, 4 or 8.")
        if upsampling not in ("upconv", "pixelshuffle"):
            raise InvalidInput(f"MSRResNet0: upsampling={upsampling!r}. Choose 'upconv' or 'pixelshuffle'.")
        blocks_ = (SequenceBlock(channels, slope) for _ in range(blocks))
        tail: list[nn.Module] = []
        for factor in [3] if scale == 3 else [2] * (scale.bit_length() - 1):
            if upsampling == "upconv":
                tail += [nn.Upsample(scale_factor=factor, mode="nearest"), conv(channels, channels)]
            else:
                tail += [conv(channels, channels * factor**2), nn.PixelShuffle(factor)]
            tail += [_activation(slope)]
        self.model = nn.Sequential(
            conv(colours, channels),
            Shortcut(*blocks_, conv(channels, channels)),
            *tail,
            conv(channels, channels),
            _activation(slope),
            conv(channels, colours, bias=last_bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        result: Tensor = self.model(x)
        return result


def _activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def infer(shapes: Shapes) -> dict[str, object] | None:
    """The arguments of MSRResNet for a state dict of these shapes; None if it is another network's."""
    keys = ("conv_first.weight", "body.0.conv1.weight", "upconv1.weight", "conv_hr.weight", "conv_last.weight")
    if not has_kernels(shapes, *keys):
        return None
    channels, colours = shapes["conv_first.weight"][:2]
    factor = isqrt(shapes["upconv1.weight"][0] // channels)
    return {
        "scale": factor * (2 if "upconv2.weight" in shapes else 1),
        "blocks": count_keys(shapes, "body.{}.conv1.weight"),
        "channels": channels,
        "colours": colours,
    }


_from_kair = by_patterns(
    {r"recon_trunk\.(\d+)\.(\w+)\.(\w+)": r"body.\1.\2.\3", r"HRconv\.(\w+)": r"conv_hr.\1"},
)


_from_mmagic = by_patterns(
    {
        r"trunk_net\.(\d+)\.(\w+)\.(\w+)": r"body.\1.\2.\3",
        r"upsample([12])\.upsample_conv\.(\w+)": r"upconv\1.\2",
    }
)


def _infer_mmagic(shapes: Shapes) -> dict[str, object] | None:
    hyper = infer(rename_keys(shapes, _from_mmagic(shapes))) if "trunk_net.0.conv1.weight" in shapes else None
    return None if hyper is None else {**hyper, "shuffle_activation": False}


MMAGIC = Dialect(
    name="mmagic",
    infer=_infer_mmagic,
    translate=lambda state, hyper: rename_keys(state, _from_mmagic(state)),
)


def infer_sequence(shapes: Shapes) -> dict[str, object] | None:
    """The arguments of MSRResNet0 for a state dict of these shapes; None if it is another network's.

    None too where it enlarges once by a nearest-neighbour enlargement: by 2 or 3, that leaves no trace.
    """
    hyper = _infer_sequence(shapes)
    return hyper if hyper is not None and "scale" in hyper else None


def _infer_sequence(shapes: Shapes) -> dict[str, object] | None:
    if not has_kernels(shapes, "model.0.weight", "model.1.sub.0.res.0.weight", "model.1.sub.0.res.2.weight"):
        return None
    channels, colours = shapes["model.0.weight"][:2]
    numbers = number_layers(shapes)
    if len(numbers) < 3:
        return None
    *ups, before_last, last = numbers[1:]
    shuffles = ups == list(range(2, 3 * len(ups) + 2, 3)) and ups != []
    if not (shuffles or ups == list(range(3, 3 * len(ups) + 3, 3))):
        return None
    if (before_last, last) != (3 * len(ups) + 2, 3 * len(ups) + 4):
        return None
    hyper: dict[str, object] = {
        "blocks": count_keys(shapes, "model.1.sub.{}.res.0.weight"),
        "channels": channels,
        "colours": colours,
        "upsampling": "pixelshuffle" if shuffles else "upconv",
        "last_bias": f"model.{last}.bias" in shapes,
    }
    if shuffles and not has_kernels(shapes, *(f"model.{number}.weight" for number in ups)):
        return None
    if shuffles:
        return {"scale": prod(isqrt(shapes[f"model.{number}.weight"][0] // channels) for number in ups), **hyper}
    return hyper if len(ups) == 1 else {"scale": 2 ** len(ups), **hyper}


def _infer_once(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    hyper = _infer_sequence(shapes)
    return hyper if hyper is not None and "scale" not in hyper else None


_SLOPES = {"slope": (0.0, 0.2)}

FAMILY = Family(
    name="msrresnet",
    build=MSRResNet,
    infer=infer,
    source="Wang et al., ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, ECCVW 2018",
    description="BasicSR's MSRResNet, KAIR's MSRResNet1: SRResNet without normalisation, over a bilinear image skip",
    habits=("slope 0.1 below zero",),
    dialects=(renaming("KAIR", _from_kair, infer), MMAGIC),
)

SEQUENCE = Family(
    name="msrresnet0",
    build=MSRResNet0,
    infer=infer_sequence,
    source="Wang et al., ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, ECCVW 2018",
    description="KAIR's MSRResNet0, ESRGAN's first SRResNet: the same in one sequence, a skip over the body",
    unsaid=_SLOPES,
    dialects=(leaving_open("KAIR", _infer_once, {**_SLOPES, "scale": (2, 3)}),),
)
