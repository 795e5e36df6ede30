"""A teacher family, and the few words that the families' files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Family:
    """A published architecture, with the key names under which trained weights of it are distributed.

    name         what `--arch` takes
    build        makes the network, freshly initialised, from keyword hyper-parameters
    infer        reads those hyper-parameters off the shapes in a state dict; None if it is another network.
                 What leaves no trace in shapes (the stride of a transposed convolution) is left out of the
                 answer
    source       the paper
    input_range  lowest and highest pixel value that the authors' weights expect
    description  one sentence for a list of families
    """

    name: str
    build: Callable[..., nn.Module]
    infer: Callable[[Mapping[str, torch.Size]], dict[str, object] | None]
    source: str
    input_range: tuple[float, float] = (0.0, 1.0)
    description: str = ""


def conv(inputs: int, outputs: int, kernel: int = 3, *, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps height and width: stride 1, zero padding kernel // 2, kernel odd."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)


def has_kernels(shapes: Mapping[str, torch.Size], *keys: str) -> bool:
    """Whether every key is there and holds a kernel (C_out, C_in / groups, k, k) that is not empty."""
    return all(len(shapes.get(key, ())) == 4 and min(shapes[key]) > 0 for key in keys)


def count_keys(shapes: Mapping[str, torch.Size], template: str, first: int = 0) -> int:
    """Number of template.format(first), .format(first + 1), ... that are keys, up to the first that is not."""
    return next(index for index in count(first) if template.format(index) not in shapes) - first
