"""Copies of modules: in another precision, and of the same weights."""

from __future__ import annotations

import cProfile
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memsr_compiler import check_certificate
from memsr_compiler.errors import InvalidInput
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.torch_helpers import InFloat64, copy_module, prepare


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


class Holding(nn.Module):
    """A convolution, and whatever else."""

    def __init__(self, held: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.held = held

    def forward(self, x: Tensor) -> Tensor:
        return torch.pixel_shuffle(self.conv(x), 2)


def test_what_cannot_be_copied_is_named() -> None:
    """It was called a mistake of ours."""
    for held in (Lock(), (n for n in range(3))):
        with pytest.raises(InvalidInput, match=r"Holding cannot be copied .*such as a lock, an open file"):
            compile_to_plain(Holding(held).eval())


def test_why_a_module_cannot_be_copied_is_what_it_is() -> None:
    """Of these two nobody holds a lock."""
    nested: nn.Module = nn.ReLU()
    for _ in range(400):
        nested = nn.Sequential(nested)
    with pytest.raises(InvalidInput, match=r"more deeply than Python goes, 401 of them at held\.0\.0"):
        copy_module(Holding(nested), None)
    model = Holding(None)
    model.conv.weight = nn.Parameter(model.conv.weight.data.to_sparse())
    with pytest.raises(InvalidInput, match=r"conv\.weight: is kept as sparse_coo, which is not read; .* to_dense"):
        copy_module(model, None)


def test_computed_tensors_in_lists_and_dictionaries_are_copied() -> None:
    model = Holding(None)
    model.held = {"kernels": [model.conv.weight * 3]}
    copied = copy_module(model, torch.float64)
    assert isinstance(copied, Holding) and isinstance(copied.held, dict)
    assert torch.equal(copied.held["kernels"][0], model.held["kernels"][0])
    check_certificate(model.eval(), compile_to_plain(model))


class Silent(nn.Conv2d):
    """Its methods return nothing, as those of many repositories do: norms are kept in eval mode by such a `train`."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


def test_modules_whose_methods_return_nothing() -> None:
    network = Silent(1, 1, 1, dtype=torch.float64)
    assert prepare(network) is network and network.weight.dtype == torch.float32 and not network.training
    assert isinstance(copy_module(network, torch.float64), Silent)


def test_a_table_of_which_a_tensor_is_made_is_not_gone_through() -> None:
    """In a network that is read, some code runs at each call, and tables may be of millions."""
    table, profile = [float(number) for number in range(1000)], cProfile.Profile()
    with InFloat64():
        made = profile.runcall(torch.tensor, table)
    assert made.tolist() == table
    assert sum(entry.callcount for entry in profile.getstats()) < 100


def test_what_is_in_float32_in_a_list_is_taken_to_float64_beside_it() -> None:
    with InFloat64():
        assert torch.cat([torch.ones(1), torch.ones(1, dtype=torch.float64) / 3]).dtype == torch.float64
