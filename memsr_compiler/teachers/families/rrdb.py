"""RRDBNet, the generator of ESRGAN, ESRGAN+ and Real-ESRGAN: dense blocks in blocks, nearest-neighbour enlargement.

Key names of BasicSR: `conv_first`, `body.N.rdb1.conv1`, `conv_body`, `conv_up1`, `conv_up2`, `conv_hr`,
`conv_last`. Dialects: ESRGAN's first, `model.1.sub.N.RDB1.conv1.0`, which most files on the web have, and its second,
`RRDB_trunk.N.RDB1.conv1`, which KAIR took over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import (
    Dialect,
    Family,
    Shapes,
    Unsaid,
    by_patterns,
    conv,
    count_keys,
    has_kernels,
    number_layers,
    renaming,
)

SHRINK = {4: 1, 2: 2, 1: 4}
"""Scale -> factor of the pixel-unshuffle before Real-ESRGAN's networks, whose tail always enlarges four times."""


class DenseBlock(nn.Module):
    """x + 0.2 * five densely connected convolutions of x: (N, channels, H, W) -> the same shape.

    plus   the skips within the block that ESRGAN+ adds
    """

    def __init__(self, channels: int, growth: int, *, plus: bool) -> None:
        super().__init__()
        self.conv1x1 = conv(channels, growth, 1, bias=False) if plus else None
        self.conv1 = conv(channels, growth)
        self.conv2 = conv(channels + growth, growth)
        self.conv3 = conv(channels + 2 * growth, growth)
        self.conv4 = conv(channels + 3 * growth, growth)
        self.conv5 = conv(channels + 4 * growth, channels)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; see the class."""
        x1 = self.lrelu(self.conv1(x))
        x2 = self.lrelu(self.conv2(torch.cat([x, x1], dim=1)))
        if self.conv1x1 is not None:
            x2 = x2 + self.conv1x1(x)
        x3 = self.lrelu(self.conv3(torch.cat([x, x1, x2], dim=1)))
        x4 = self.lrelu(self.conv4(torch.cat([x, x1, x2, x3], dim=1)))
        if self.conv1x1 is not None:
            x4 = x4 + x2
        result: Tensor = x + 0.2 * self.conv5(torch.cat([x, x1, x2, x3, x4], dim=1))
        return result


class ResidualInResidual(nn.Module):
    """x + 0.2 * three dense blocks of x: (N, channels, H, W) -> the same shape."""

    def __init__(self, channels: int, growth: int, *, plus: bool) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(channels, growth, plus=plus)
        self.rdb2 = DenseBlock(channels, growth, plus=plus)
        self.rdb3 = DenseBlock(channels, growth, plus=plus)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; see the class."""
        result: Tensor = x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))
        return result


class RRDBNet(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), RGB in [0, 1].

    scale      4; or 2 or 1, for which the image is pixel-unshuffled by 2 or 4 first, and H and W must divide by that
    unshuffle  factor of that pixel-unshuffle where it is another: with 1, the scale is 1, 2, 3, 4, 8 or 16, made by as
               many doublings, or a trebling, as it takes
    plus       ESRGAN+: 1x1 and identity skips within the dense blocks
    Raises InvalidInput for another scale.
    Source: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks" (ECCVW 2018);
    scales 2 and 1: Wang et al., "Real-ESRGAN" (ICCVW 2021); plus: Rakotonirina and Rasoanaivo, "ESRGAN+" (ICASSP 2020).
    """

    def __init__(
        self,
        *,
        scale: int,
        blocks: int = 23,
        channels: int = 64,
        growth: int = 32,
        colours: int = 3,
        unshuffle: int | None = None,
        plus: bool = False,
    ) -> None:
        super().__init__()
        if unshuffle is None and scale not in SHRINK:
            raise InvalidInput(
                f"RRDBNet: scale={scale}. Its tail enlarges by 4; choose 4, or 2 or 1 with pixel-unshuffle."
            )
        shrink = SHRINK[scale] if unshuffle is None else unshuffle
        self.size_multiple = shrink  # of height and width; a runner continues other images, see TorchNetwork
        self.factors = _factors(scale * shrink)
        self.unshuffle = nn.PixelUnshuffle(shrink) if shrink > 1 else nn.Identity()
        self.conv_first = conv(colours * shrink**2, channels)
        self.body = nn.Sequential(*(ResidualInResidual(channels, growth, plus=plus) for _ in range(blocks)))
        self.conv_body = conv(channels, channels)
        for number in range(1, len(self.factors) + 1):
            self.add_module(f"conv_up{number}", conv(channels, channels))
        self.conv_hr = conv(channels, channels)
        self.conv_last = conv(channels, colours)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        head = self.conv_first(self.unshuffle(x))
        y = head + self.conv_body(self.body(head))
        for number, factor in enumerate(self.factors, start=1):
            enlarged = F.interpolate(y, scale_factor=factor, mode="nearest")
            y = self.lrelu(self.get_submodule(f"conv_up{number}")(enlarged))
        result: Tensor = self.conv_last(self.lrelu(self.conv_hr(y)))
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of RRDBNet for a state dict of these shapes; None if it is another network's."""
    if not has_kernels(shapes, "conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"):
        return None
    channels, inputs = shapes["conv_first.weight"][:2]
    colours = shapes["conv_last.weight"][0]
    unshuffle = isqrt(inputs // colours)
    enlarged = 2 ** count_keys(shapes, "conv_up{}.weight", first=1)
    if inputs != colours * unshuffle**2 or unshuffle not in SHRINK.values() or enlarged % unshuffle:
        return None
    return {
        "scale": enlarged // unshuffle,
        "blocks": count_keys(shapes, "body.{}.rdb1.conv1.weight"),
        "channels": channels,
        "growth": shapes["body.0.rdb1.conv1.weight"][0],
        "colours": colours,
        "unshuffle": unshuffle,
        "plus": "body.0.rdb1.conv1x1.weight" in shapes,
    }


def _factors(enlarged: int) -> list[int]:
    """The enlargements of the tail, one after another."""
    if enlarged == 3:
        return [3]
    if enlarged not in (1, 2, 4, 8, 16):
        raise InvalidInput(f"RRDBNet: scale={enlarged} after pixel-unshuffle. Its tail doubles, or trebles once.")
    return [2] * (enlarged.bit_length() - 1)


def _from_sequence(keys: Iterable[str]) -> dict[str, str]:
    """New names for those of ESRGAN's first code, which counts all layers of a sequence, those without weights too."""
    found = {key for key in keys if key.startswith("model.")}
    blocks = count_keys(dict.fromkeys(found, torch.Size()), "model.1.sub.{}.RDB1.conv1.0.weight")
    tail = number_layers(found)[1:]
    ups = len(tail) - 2
    if not blocks or tail != [*range(3, 3 * ups + 3, 3), 3 * ups + 2, 3 * ups + 4]:
        return {}
    layers = {
        "model.0": "conv_first",
        f"model.1.sub.{blocks}": "conv_body",
        **{f"model.{3 * number}": f"conv_up{number}" for number in range(1, ups + 1)},
        f"model.{3 * ups + 2}": "conv_hr",
        f"model.{3 * ups + 4}": "conv_last",
    }
    names = {f"{old}.{kind}": f"{new}.{kind}" for old, new in layers.items() for kind in ("weight", "bias")}
    inner = by_patterns({r"model\.1\.sub\.(\d+)\.RDB(\d)\.(conv\d|conv1x1)(?:\.0)?\.(\w+)": r"body.\1.rdb\2.\3.\4"})
    return {**names, **inner(found)}


_from_trunk = by_patterns(
    {
        r"RRDB_trunk\.(\d+)\.RDB(\d)\.(\w+)\.(\w+)": r"body.\1.rdb\2.\3.\4",
        r"trunk_conv\.(\w+)": r"conv_body.\1",
        r"upconv(\d)\.(\w+)": r"conv_up\1.\2",
        r"HRconv\.(\w+)": r"conv_hr.\1",
    }
)


def _infer_others(shapes: Shapes) -> dict[str, object] | None:
    """As `infer`, but for networks that enlarge once: their keys do not show whether by 2 or by 3."""
    hyper = infer(shapes)
    return None if hyper is None or _enlarges_once(hyper) else hyper


def _infer_once(shapes: Shapes) -> dict[str, object] | None:
    hyper = infer(shapes)
    if hyper is None or not _enlarges_once(hyper):
        return None
    return {key: value for key, value in hyper.items() if key != "scale"}


def _enlarges_once(hyper: Mapping[str, object]) -> bool:
    return (hyper["scale"], hyper["unshuffle"]) == (2, 1)


_TWO_OR_THREE: Unsaid = {"scale": (2, 3)}
_DIALECTS: tuple[Dialect, ...] = (
    renaming("ESRGAN's first", _from_sequence, _infer_others),
    renaming("ESRGAN's first", _from_sequence, _infer_once, unsaid=_TWO_OR_THREE),
    renaming("ESRGAN's second", _from_trunk, _infer_others),
    renaming("ESRGAN's second", _from_trunk, _infer_once, unsaid=_TWO_OR_THREE),
)


FAMILY = Family(
    name="rrdb",
    build=RRDBNet,
    infer=infer,
    source="Wang et al., ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, ECCVW 2018",
    description="RRDBNet of ESRGAN, ESRGAN+ and Real-ESRGAN, under all their key names",
    habits=("slope 0.2 below zero",),
    dialects=_DIALECTS,
)
