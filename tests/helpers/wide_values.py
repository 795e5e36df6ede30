"""Networks whose values leave float16's range inside, and come back."""

from __future__ import annotations

import torch
from torch import nn

WIDE = (0.0, 255.0)  # their input range


def overflowing(*, colours: int = 3, grow: float = 15.0, end: float = 1.0) -> nn.Sequential:
    """Three convolutions, of which the second reaches far beyond 65,504 for images of 0 to 255.

    grow   the standard deviation of the weights of the first two;   end   about the output's, in parts of the image's
    """
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(colours, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 4 * colours, 3, padding=1),
        nn.PixelShuffle(2),
    ).eval()
    for name, parameter in model.named_parameters():
        spread = end / (9 * 8 * 9 * grow**2) if name.startswith("4") else grow
        nn.init.zeros_(parameter) if parameter.ndim == 1 else nn.init.normal_(parameter, std=spread)
    return model
