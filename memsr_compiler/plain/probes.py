"""Images on which networks are tried: small ones that find mistakes at borders, and photographs."""

from __future__ import annotations

from functools import cache

import torch
from numpy.typing import NDArray
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import sample_photographs, to_tensor
from memsr_compiler.images.metrics import luma

Range = tuple[float, float]

_SIDE = 48  # pixels, of the middle of a photograph


def probe_images(channels: int, input_range: Range = (0.0, 1.0)) -> dict[str, Tensor]:
    """Inputs that find border and size mistakes: noise, both ends of the range, impulses; always the same ones."""
    low, high = input_range
    probes = {}
    for height, width in ((1, 1), (1, 7), (3, 2), (5, 5), (24, 31)):
        generator = torch.Generator().manual_seed(height * 7919 + width)
        noise = torch.rand(1, channels, height, width, generator=generator, dtype=torch.float64)
        impulse = torch.full((1, channels, height, width), low, dtype=torch.float64)
        impulse[..., 0, 0] = impulse[..., -1, -1] = high
        ends = [torch.full_like(impulse, low), torch.full_like(impulse, high)]
        probes[f"a {height}x{width} probe"] = torch.cat([noise * (high - low) + low, impulse, *ends])
    return probes


def sample_middles(channels: int, input_range: Range = (0.0, 1.0)) -> dict[str, Tensor]:
    """The middles of the photographs that ship, float64; none for other channels than RGB or Y, or where none ship."""
    low, high = input_range
    if channels not in (1, 3):
        return {}
    try:
        middles = _cut_middles()
    except InvalidInput:  # scikit-image, which brings them, is an extra
        return {}
    planes = middles if channels == 3 else tuple(luma(pixels)[..., None] / 255 for pixels in middles)
    return {
        f"the middle of sample photograph {i}": to_tensor(pixels).double() * (high - low) + low
        for i, pixels in enumerate(planes, 1)
    }


@cache
def _cut_middles() -> tuple[NDArray, ...]:  # type: ignore[type-arg]
    middles = []
    for pixels in sample_photographs():
        top, left = ((size - _SIDE) // 2 for size in pixels.shape[:2])
        middles.append(pixels[top : top + _SIDE, left : left + _SIDE].copy())
    return tuple(middles)
