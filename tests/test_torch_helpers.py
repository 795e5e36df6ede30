"""Copies of modules: in another precision, and of the same weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.torch_helpers import copy_module


class OfMagnitudes(nn.Module):
    """A network whose kernel is the magnitude of complex weights, (3 + 4i) say."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Parameter(torch.full((12, 3, 1, 1), 3 + 4j))
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(nn.functional.conv2d(x, self.spectrum.abs().to(x.dtype)), 2)


def test_complex_weights_stay_complex() -> None:
    copied = copy_module(OfMagnitudes(), torch.float64)
    assert torch.equal(copied.get_parameter("spectrum"), torch.full((12, 3, 1, 1), 3 + 4j))
    assert copied.get_buffer("steps").dtype == torch.int64


def test_what_is_computed_from_them_is_compiled() -> None:
    image = torch.ones(1, 3, 2, 2)
    assert torch.equal(compile_to_plain(OfMagnitudes())(image), torch.full((1, 3, 4, 4), 15.0))


def test_weights_come_in_the_wanted_precision() -> None:
    assert copy_module(nn.Conv2d(1, 1, 1), torch.float16).get_parameter("weight").dtype == torch.float16
