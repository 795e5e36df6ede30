"""Stands for a user's own code, as `--arch helpers.user_code:NAME` names it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

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


def with_options(
    act: bool = True, clip: object = False, gain: object = 1.0, mode: object = "on", **free: object
) -> nn.Module:
    """A network that takes options of several kinds, most of them undeclared."""
    return UserNetwork(5)


def on_meta() -> nn.Module:
    """A network without numbers."""
    with torch.device("meta"):
        return UserNetwork(5)


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


class Renaming(UserNetwork):
    """Takes weights under the name that they had in earlier versions of it."""

    def __init__(self, width: int = 3) -> None:
        super().__init__(width)
        self.register_load_state_dict_pre_hook(self._rename)  # type: ignore[no-untyped-call]

    @staticmethod
    def _rename(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, *_: object) -> None:
        for key in [key for key in state if key.startswith(f"{prefix}first.")]:
            state[key.replace("first.", "only.")] = state.pop(key)


class Versioned(nn.Module):
    """Halves the weights of its first version, in which they were twice as large, under the same names."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The one convolution of x."""
        return nn.functional.conv2d(x, self.weight, padding=1)

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *others: Any
    ) -> None:
        if local_metadata.get("version", 1) < 2:
            state[f"{prefix}weight"] = state[f"{prefix}weight"] / 2
        super()._load_from_state_dict(state, prefix, local_metadata, *others)


def versioned() -> nn.Module:
    """A network with a module that knows the versions of its weights."""
    return nn.Sequential(Versioned(), Versioned())


class Forgiving(UserNetwork):
    """Passes over weights that it has no place for, as EDSR's first code does."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Whatever is there, under newer names."""
        renamed = {key.replace("conv.", "only."): tensor for key, tensor in state_dict.items()}
        return super().load_state_dict(renamed, strict=False)


class Keeping(UserNetwork):
    """Keeps a factor besides its weights, as a tensor or, if need be, in a dictionary."""

    def __init__(self, width: int = 3, plain: bool = False) -> None:
        super().__init__(width)
        self.factors, self.plain = [1.0], plain

    def get_extra_state(self) -> Any:
        """The factors, of which there may be any number."""
        return {"factors": self.factors} if self.plain else torch.tensor(self.factors)

    def set_extra_state(self, state: Any) -> None:
        """The same back."""
        self.factors = state["factors"] if self.plain else state.tolist()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution, times each of them."""
        return super().forward(x) * math.prod(self.factors)


def with_weight_norm() -> nn.Module:
    """A network whose weights torch computes from others."""
    network = UserNetwork()
    nn.utils.parametrizations.weight_norm(network.only)
    return network


class Stateless(UserNetwork):
    """A network that has no state to give."""

    def get_extra_state(self) -> Any:
        """Nothing that there is."""
        return self.absent


def without_state() -> nn.Module:
    """The same, without arguments."""
    return Stateless()
