"""Words for what changes the resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memsr_compiler.trace.builder import Builder, Resized
from memsr_compiler.trace.torch_ops.registry import word
from memsr_compiler.trace.torch_ops.shape import select
from memsr_compiler.trace.torch_ops.unsupported import POOLING
from memsr_compiler.trace.views import Size, View


@word("pixel_shuffle")
def pixel_shuffle(b: Builder, x: View, upscale_factor: int) -> View:
    return b.pixel_shuffle(x, upscale_factor)


@word("pixel_unshuffle")
def pixel_unshuffle(b: Builder, x: View, downscale_factor: int) -> View:
    return b.pixel_unshuffle(x, downscale_factor)


@word("channel_shuffle")
def channel_shuffle(b: Builder, x: View, groups: int) -> View:
    share = b.channels(x) // groups
    return select(b, x, [g * share + c for c in range(share) for g in range(groups)])


@word("interpolate", "upsample")
def interpolate(
    b: Builder, x: View, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Any:  # fmt: skip
    factor = _enlargement(b, x, size, scale_factor)
    if mode in ("nearest", "nearest-exact", "area"):  # the same for whole factors
        return b.enlarge(x, factor)
    if b.feature(x) != b.input.op:
        b.refuse(
            f"{mode} enlargement of a feature map clamps at the edge, which zero padding cannot do",
            "use nearest-neighbour enlargement or a pixel shuffle, and retrain",
        )
    if align_corners or antialias:
        b.refuse(
            "align_corners and antialias are not kept",
            "use align_corners=False, antialias=False, or enlarge the image before the network, and give the module "
            "that takes the enlarged image",
        )
    return Resized(mode, factor)


@word("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_nearest")
def upsample_nearest2d(b: Builder, x: View, size: Any = None, scale_factors: Any = None, *_: object) -> View:
    nearest: View = interpolate(b, x, size, scale_factors)
    return nearest


@word("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def adaptive_avg_pool2d(b: Builder, x: View, output_size: Any) -> View:
    """Pooling, unless it enlarges: then it is what interpolate(mode="area") comes to."""
    sizes = list(output_size) if isinstance(output_size, Sequence) else [output_size] * 2
    if sizes == [1, 1]:
        b.refuse(*POOLING)
    if not all(isinstance(s, Size) for s in sizes):
        b.refuse(
            f"it resizes to {'x'.join(map(str, sizes))} pixels, whatever the size of the image",
            "give interpolate a scale factor; an export fixes what mode='area' makes, and not the same by 'nearest'",
        )
    enlarged: View = interpolate(b, x, sizes, mode="area")
    return enlarged


@word("upsample_bilinear2d")
def upsample_bilinear2d(
    b: Builder, x: View, size: Any, align_corners: bool, scale_factors: Any = None, *_: object
) -> Any:
    return interpolate(b, x, size, scale_factors, "bilinear", align_corners)


@word("upsample_bicubic2d")
def upsample_bicubic2d(
    b: Builder, x: View, size: Any, align_corners: bool, scale_factors: Any = None, *_: object
) -> Any:
    return interpolate(b, x, size, scale_factors, "bicubic", align_corners)


def _enlargement(b: Builder, x: View, size: Any, scale_factor: Any) -> int:
    if size is not None:
        sizes = list(size) if isinstance(size, Sequence) else [size] * 2
        pairs = list(zip(sizes, x.shape[2:], strict=True))
        factors = []
        for new, old in pairs:
            if not isinstance(new, Size) or not isinstance(old, Size) or new.symbol != old.symbol:
                b.refuse("it resizes to a fixed size", "give interpolate a scale factor")
            factors.append(float(new.factor / old.factor))
    else:
        factors = [float(f) for f in scale_factor] if isinstance(scale_factor, Sequence) else [float(scale_factor)]
    if len(set(factors)) > 1 or factors[0] != int(factors[0]) or factors[0] < 1:
        b.refuse(f"it resizes by {factors}", "use one whole factor for height and width")
    return int(factors[0])
