"""EDSR: residual blocks without batch normalisation, one global skip, the authors' tail or a single conv.

Module names follow the authors' PyTorch repository, so their state dicts load without renaming. The MemSR
paper's own teachers are this network with `tail="conv"`. Dialect: BasicSR's, `conv_first`, `body.N.conv1`,
`conv_after_body`, `upsample.0`, `conv_last`; mmagic's, which differs from it in `upsample.0.upsample_conv` and in the
range of its values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.quantities import say_count
from memsr_compiler.teachers.families.base import (
    Dialect,
    Family,
    Shapes,
    Value,
    by_patterns,
    range_of_mean_shift,
    rename_keys,
)

Tail = Literal["edsr", "conv"]

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean R, G, B of the DIV2K training set in [0, 1], which the authors' networks subtract and add back."""


class MeanShift(nn.Conv2d):
    """x + sign * rgb_range * mean per channel, written as a frozen 1x1 convolution.

    x (N, C, H, W) -> the same shape. It is a convolution because that is what the authors' state dicts hold.
    """

    def __init__(self, mean: Sequence[float], sign: int, rgb_range: float) -> None:
        super().__init__(len(mean), len(mean), 1)
        self.requires_grad_(False)
        if self.weight.is_meta:  # only the shapes are wanted, and filling a meta tensor imports torch's compiler: 2 s
            return
        with torch.no_grad():
            self.weight.copy_(torch.eye(len(mean))[:, :, None, None])
            assert self.bias is not None, "nn.Conv2d has a bias unless told otherwise"
            self.bias.copy_(sign * rgb_range * torch.tensor(mean, dtype=torch.float32))


class ResBlock(nn.Module):
    """x + res_scale * conv(relu(conv(x))), all 3x3: (N, channels, H, W) -> the same shape."""

    def __init__(self, channels: int, res_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), nn.ReLU(True), _conv(channels, channels))
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; see the class."""
        residual: Tensor = self.body(x).mul(self.res_scale)
        residual += x
        return residual


class EDSR(nn.Module):
    """Super-resolution by `blocks` residual blocks: (N, colours, H, W) -> (N, colours, scale * H, scale * W).

    scale      2^n or 3 for tail="edsr"; any positive integer for tail="conv"
    mean       mean colour in [0, 1], subtracted first and added last; None: no mean shift, no such parameters
    rgb_range  the largest value of a pixel, 1 or 255; it matters only to the mean shift
    tail       "edsr": a conv and a pixel shuffle per factor of 2 (or 3), then a conv at high resolution;
               "conv": one conv to colours * scale^2 channels and one pixel shuffle

    Raises InvalidInput for options that describe no network.
    Source: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution" (CVPRW 2017); for
    tail="conv": Wu, Lee, Ma, "MemSR" (ICML 2022).
    """

    def __init__(
        self,
        *,
        scale: int,
        blocks: int = 16,
        channels: int = 64,
        colours: int = 3,
        res_scale: float = 1.0,
        mean: Sequence[float] | None = None,
        rgb_range: float = 1.0,
        tail: Tail = "edsr",
    ) -> None:
        super().__init__()
        if min(scale, blocks, channels, colours) < 1:
            sizes = f"scale={scale}, blocks={blocks}, channels={channels}, colours={colours}"
            raise InvalidInput(f"EDSR: {sizes}. Each must be at least 1.")
        if mean is not None and len(mean) != colours:
            raise InvalidInput(
                f"EDSR: mean has {say_count(len(mean), 'value')}, colours={colours}. Give one per colour."
            )
        if rgb_range not in (1, 255):
            raise InvalidInput(f"EDSR: rgb_range={rgb_range}. Give 1 or 255, the largest value of a pixel.")
        if tail not in ("edsr", "conv"):
            raise InvalidInput(f"EDSR: tail={tail!r}. Choose 'edsr' or 'conv'.")
        self.sub_mean = nn.Identity() if mean is None else MeanShift(mean, -1, rgb_range)
        self.add_mean = nn.Identity() if mean is None else MeanShift(mean, 1, rgb_range)
        self.head = nn.Sequential(_conv(colours, channels))
        self.body = nn.Sequential(*(ResBlock(channels, res_scale) for _ in range(blocks)), _conv(channels, channels))
        if tail == "edsr":
            self.tail = nn.Sequential(_upsampler(scale, channels), _conv(channels, colours))
        else:
            self.tail = nn.Sequential(_conv(channels, colours * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """The image at `scale` times the size, in the range of the input and not clipped to it."""
        x = self.head(self.sub_mean(x))
        residual = self.body(x)
        residual += x
        result: Tensor = self.add_mean(self.tail(residual))
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of EDSR for a state dict of these shapes; None if it is another network's.

    `res_scale` leaves no trace in shapes and keeps its default. A mean shift is recognised, but its values come with
    the weights, and show the input range; until they are loaded it holds DIV2K_MEAN.
    """
    head = shapes.get("head.0.weight", torch.Size())
    if len(head) != 4 or min(head) < 1 or head[2:] != (3, 3):
        return None
    channels, colours = head[:2]
    blocks = sum(re.fullmatch(r"body\.\d+\.body\.0\.weight", key) is not None for key in shapes)
    if blocks < 1 or shapes.get(f"body.{blocks}.weight") != (channels, channels, 3, 3):
        return None
    mean = DIV2K_MEAN if "sub_mean.weight" in shapes else None
    tail: Tail = "conv" if "tail.0.weight" in shapes else "edsr"
    scale = _conv_scale(shapes, channels, colours) if tail == "conv" else _upsampler_scale(shapes, channels)
    if scale is None or (mean is not None and colours != len(mean)):
        return None
    return {
        "scale": scale,
        "blocks": blocks,
        "channels": channels,
        "colours": colours,
        "mean": mean,
        "tail": tail,
    }


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _factors(scale: int) -> list[int]:
    """The pixel shuffles the authors' upsampler makes of a scale."""
    if scale == 3:
        return [3]
    if scale < 2 or scale & (scale - 1):
        raise InvalidInput(f"EDSR: scale={scale} with tail='edsr'. Choose 2, 3, 4 or 8, or use tail='conv'.")
    return [2] * (scale.bit_length() - 1)


def _upsampler(scale: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for factor in _factors(scale):
        layers += [_conv(channels, channels * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


def _conv_scale(shapes: Mapping[str, torch.Size], channels: int, colours: int) -> int | None:
    weight = shapes["tail.0.weight"]
    scale = math.isqrt(weight[0] // colours) if weight else 0
    return scale if scale >= 1 and weight == (colours * scale**2, channels, 3, 3) else None


def _upsampler_scale(shapes: Mapping[str, torch.Size], channels: int) -> int | None:
    stages = sum(re.fullmatch(r"tail\.0\.\d+\.weight", key) is not None for key in shapes)
    if stages == 1 and shapes.get("tail.0.0.weight") == (9 * channels, channels, 3, 3):
        return 3
    return 2**stages if stages else None


_from_basicsr = by_patterns(
    {
        r"conv_first\.(\w+)": r"head.0.\1",
        r"body\.(\d+)\.conv1\.(\w+)": r"body.\1.body.0.\2",
        r"body\.(\d+)\.conv2\.(\w+)": r"body.\1.body.2.\2",
        r"upsample\.(\d+)\.(\w+)": r"tail.0.\1.\2",
        r"conv_last\.(\w+)": r"tail.1.\1",
    }
)


def _rename_basicsr(keys: Iterable[str]) -> dict[str, str]:
    found = list(keys)
    blocks = sum(re.fullmatch(r"body\.\d+\.conv1\.weight", key) is not None for key in found)
    after = {f"conv_after_body.{kind}": f"body.{blocks}.{kind}" for kind in ("weight", "bias")}
    return {**_from_basicsr(found), **after}


def _infer_basicsr(shapes: Shapes) -> dict[str, object] | None:
    if not {"conv_first.weight", "conv_after_body.weight", "upsample.0.weight"} <= shapes.keys():
        return None
    hyper = infer(rename_keys(shapes, _rename_basicsr(shapes)))
    if hyper is None or hyper["colours"] != 3:
        return None
    del hyper["mean"]  # it is in the code
    return hyper


def _translate_basicsr(state: Mapping[str, Tensor], hyper: Mapping[str, object]) -> dict[str, Tensor]:
    """BasicSR's weights, and the mean shifts that it computes instead of storing them.

    It takes pixels of 0..1 to `rgb_range` before its layers and back after them.
    """
    renamed = rename_keys(state, _rename_basicsr(state))
    mean, rgb_range = cast("Sequence[float] | None", hyper["mean"]), cast(float, hyper["rgb_range"])
    if mean is None:
        return renamed
    eye, shift = torch.eye(3)[:, :, None, None], torch.tensor(mean, dtype=torch.float32)
    return {
        **renamed,
        "sub_mean.weight": rgb_range * eye,
        "sub_mean.bias": -rgb_range * shift,
        "add_mean.weight": eye / rgb_range,
        "add_mean.bias": shift,
    }


def _infer_shifted(shapes: Shapes) -> dict[str, object] | None:
    hyper = infer(shapes)
    return None if hyper is None or hyper["mean"] is None else hyper


def _translate_shifted(state: Mapping[str, Tensor], hyper: Mapping[str, object]) -> dict[str, Tensor]:
    """The weights with their mean shifts, or without: super-image's code holds them, and runs past them.

    Raises InvalidInput for arguments that say otherwise than the weights what is subtracted.
    """
    if "rgb_range" in hyper or hyper["mean"] != DIV2K_MEAN:
        raise InvalidInput(
            "the weights hold the mean that is subtracted, in their range: leave mean and rgb_range out, or say "
            "--arch-args mean_shift=false for code that does not use it."
        )
    unused = [] if hyper["mean_shift"] else [key for key in state if key.endswith(("sub_mean.bias", "add_mean.bias"))]
    return {**state, **{key: torch.zeros_like(state[key]) for key in unused}}


SHIFTED = Dialect(
    name="EDSR's authors",
    infer=_infer_shifted,
    translate=_translate_shifted,
    unsaid={"res_scale": (1.0, 0.1), "mean_shift": (True, False)},
    own=frozenset({"mean_shift"}),
    held=frozenset({"mean"}),
    range_if="mean_shift",
)

BASICSR = Dialect(
    name="BasicSR",
    infer=_infer_basicsr,
    translate=_translate_basicsr,
    unsaid={"res_scale": (1.0, 0.1), "rgb_range": (255.0, 1.0), "mean": (DIV2K_MEAN,)},
    known_range=(0.0, 1.0),
)


def _name_as_basicsr(state: Mapping[str, Value]) -> dict[str, Value]:
    """mmagic's names as BasicSR's: a module for each step of the enlargement holds its convolution."""
    keys = {key: re.fullmatch(r"upsample\.(\d)\.upsample_conv\.(\w+)", key) for key in state}
    return rename_keys(state, {key: f"upsample.{2 * int(m[1])}.{m[2]}" for key, m in keys.items() if m})


MMAGIC = Dialect(
    name="mmagic",
    infer=lambda shapes: _infer_basicsr(_name_as_basicsr(shapes)) if "upsample.0.weight" not in shapes else None,
    translate=lambda state, hyper: _translate_basicsr(_name_as_basicsr(state), {"rgb_range": 1.0, **hyper}),
    unsaid={"res_scale": (1.0, 0.1), "mean": (DIV2K_MEAN,)},
    known_range=(0.0, 1.0),
)


def _infer_bare(shapes: Shapes) -> dict[str, object] | None:
    hyper = infer(shapes)
    return None if hyper is None or hyper["mean"] is not None else hyper


FAMILY = Family(
    name="edsr",
    build=EDSR,
    infer=_infer_bare,
    activation="ReLU",
    source="Lim et al., Enhanced Deep Residual Networks for Single Image Super-Resolution, CVPRW 2017",
    unsaid={"res_scale": (1.0, 0.1)},
    read_range=lambda state: range_of_mean_shift(state, "sub_mean"),
    description="Residual blocks and a global skip; the authors' tail, or the one conv of MemSR's teachers.",
    dialects=(SHIFTED, BASICSR, MMAGIC),
)
