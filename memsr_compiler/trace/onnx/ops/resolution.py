"""Words for what changes the resolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from memsr_compiler.errors import InvalidInput
from memsr_compiler.trace.builder import MAX_SCALE
from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.folds.registry import list_numbers
from memsr_compiler.trace.onnx.ops.registry import Context, Value, onnx_word
from memsr_compiler.trace.torch_ops import resolution as torch_resolution
from memsr_compiler.trace.torch_ops import shape as torch_shape
from memsr_compiler.trace.views import Batch, Size, View


def _block(c: Context, node: Node) -> int:
    factor = node.integer("blocksize", 0)
    if factor < 1:
        raise InvalidInput(f"{node.name}: blocksize {factor} is not positive.")
    c.builder.room(factor, MAX_SCALE, "an enlargement")
    return factor


@onnx_word("DepthToSpace")
def depth_to_space(c: Context, node: Node, x: View) -> View:
    """CRD is torch's pixel shuffle; DCR has the channel after the place in the block, not before."""
    factor = _block(c, node)
    if node.text("mode", "DCR") == "DCR" and not c.builder.channels(x) % factor**2:
        share = c.builder.channels(x) // factor**2
        x = torch_shape.select(c.builder, x, [place * share + i for i in range(share) for place in range(factor**2)])
    return c.builder.pixel_shuffle(x, factor)


@onnx_word("SpaceToDepth")
def space_to_depth(c: Context, node: Node, x: View) -> View:
    """The channel comes after the place in the block."""
    factor, share = _block(c, node), c.builder.channels(x)
    y = c.builder.pixel_unshuffle(x, factor)
    return torch_shape.select(c.builder, y, [i * factor**2 + place for place in range(factor**2) for i in range(share)])


def repeats(factor: int, coordinates: str, rounding: str) -> bool:
    """Whether ONNX's nearest-neighbour enlargement by a whole factor repeats every pixel `factor` times.

    Pixel factor * q + r of the result should come from pixel q.  `places` are the coordinates that ONNX
    computes for it, minus q; they do not depend on q, nor on the size of the image, in the modes known here.
    """
    middles = [Fraction(2 * r + 1, 2 * factor) for r in range(factor)]
    centred = [m - Fraction(1, 2) for m in middles]  # pytorch's variant differs for results of one pixel only
    places = {
        "asymmetric": [Fraction(r, factor) for r in range(factor)],
        "tf_half_pixel_for_nn": middles,
        **dict.fromkeys(("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"), centred),
    }
    half = Fraction(1, 2)
    rounded: dict[str, Callable[[Fraction], int]] = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda place: math.ceil(place - half),
        "round_prefer_ceil": lambda place: math.floor(place + half),
    }
    if coordinates not in places or rounding not in rounded:
        return False
    return all(rounded[rounding](place) == 0 for place in places[coordinates])


@onnx_word("Resize")
def resize(
    c: Context,
    node: Node,
    x: View,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
) -> Any:
    factor, b = _enlargement(c, node, x, scales, sizes), c.builder
    mode, coordinates = (
        node.text("mode", "nearest"),
        node.text("coordinate_transformation_mode", "half_pixel"),
    )
    if mode == "nearest":
        rounding = node.text("nearest_mode", "round_prefer_floor")
        if not repeats(factor, coordinates, rounding):
            b.refuse(
                f"nearest enlargement by {factor} with {coordinates} and {rounding} does not repeat pixels evenly",
                "use asymmetric with floor, or half_pixel with round_prefer_floor",
            )
        return b.enlarge(x, factor)
    if mode not in ("linear", "cubic"):
        b.give_up(f"mode {mode} is not read; use nearest")
    if coordinates not in ("half_pixel", "pytorch_half_pixel"):
        b.refuse(f"{mode} enlargement with {coordinates} is not kept", "use half_pixel (align_corners=False)")
    if mode == "cubic" and abs(node.number("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        b.refuse(
            f"cubic_coeff_a {node.number('cubic_coeff_a', -0.75):.4g} is not kept",
            "use -0.75, as PyTorch does",
        )
    if node.integer("exclude_outside", 0) or node.integer("antialias", 0):
        b.refuse("exclude_outside and antialias are not kept", "leave them out, or add the enlarged image outside")
    if factor == 1:
        return x
    return torch_resolution.interpolate(b, x, None, factor, "bilinear" if mode == "linear" else "bicubic")


def _enlargement(c: Context, node: Node, x: View, scales: Value | None, sizes: Value | None) -> int:
    own = c.frame.shape(x)
    axes = [c.axis(x, a) for a in node.integers("axes", list(range(len(own))))]
    factors: list[Any] = [1] * len(own)
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        c.builder.give_up("keep_aspect_ratio_policy is not read; use stretch")
    if isinstance(sizes, np.ndarray) and sizes.size:
        for axis, new in zip(axes, list_numbers(sizes), strict=True):
            factors[axis] = _ratio(new, own[axis])
    elif sizes is None or isinstance(sizes, np.ndarray):
        for axis, new in zip(axes, c.tensor(scales, "scale").tolist(), strict=True):
            factors[axis] = new
    else:
        c.builder.refuse("its size depends on the image", "give it a whole scale")
    if None in factors:
        c.builder.refuse("it resizes to a fixed size", "give it a scale, or export the network at a fixed size")
    first, second, height, width = factors
    if first != 1 or second != 1 or height != width or height != int(height) or height < 1:
        c.builder.refuse(
            f"it resizes by {[float(f) for f in factors]}",
            "use one whole factor for height and width, and 1 for the others",
        )
    c.builder.room(int(height), MAX_SCALE, "an enlargement")
    return int(height)


def _ratio(new: int | Size, old: int | Size) -> Fraction | None:
    """new / old, if that does not depend on the size of the image, or on how many there are."""
    if isinstance(new, Size) and isinstance(old, Size):
        return new.factor / old.factor if new.symbol == old.symbol else None
    if isinstance(new, Size) or isinstance(old, Size) or isinstance(new, Batch) != isinstance(old, Batch):
        return None
    return Fraction(new, old)
