"""Stands for a user's own code, as `--arch helpers.user_code:NAME` names it."""

from __future__ import annotations

import sys

import torch
from torch import nn


class UserNetwork(nn.Module):
    """A network that no family knows."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.only = nn.Conv2d(1, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The one convolution of x."""
        result: torch.Tensor = self.only(x)
        return result


def not_a_network() -> int:
    """A number, which a factory should not return."""
    return 3


def with_norm() -> nn.Module:
    """A network with batch normalisation."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))


def counting() -> nn.Module:
    """A network with a number of its own beside its weights."""
    network = UserNetwork(3)
    network.register_buffer("steps", torch.tensor(0))
    return network


def small_edsr() -> nn.Module:
    """A network that a family knows too."""
    from memsr_compiler.teachers.families.edsr import EDSR

    return EDSR(scale=2, blocks=1, channels=4)


def thickening() -> nn.Module:
    """A network with a pooling that is no gate: no plain network is even near it."""
    ends = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
    return nn.Sequential(ends[0], nn.MaxPool2d(3, 1, 1), ends[1], nn.PixelShuffle(2)).eval()


class Clamped(nn.Sequential):
    """Keeps values within float16, as code for it does, whatever it runs in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        head, *others = self
        x = head(x).clamp(-65504.0, 65504.0)
        for layer in others:
            x = layer(x)
        return x


def clamped() -> nn.Module:
    torch.manual_seed(0)
    return Clamped(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1), nn.PixelShuffle(2)).eval()


class Leaves(nn.Module):
    """A part of a network whose code ends the process."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Nothing that comes back."""
        sys.exit(0)


class Quits(Leaves):
    """The same by what is meant for the prompt, which is code of Python's own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Nothing that comes back."""
        exit(0)


def leaving(kind: type[nn.Module] = Leaves) -> nn.Module:
    """A network that ends the process as it runs."""
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), kind())


def quitting() -> nn.Module:
    """The same by `exit()`."""
    return leaving(Quits)
