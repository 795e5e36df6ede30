"""Batch norms, by whatever function: which of its operands is which, and whether it writes statistics."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from memsr_compiler.trace.trace import GraphModule, trace

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export, about itself


class Net(nn.Module):
    def __init__(self, norm: Callable[[Tensor, nn.BatchNorm2d], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1), norm
        self.bn = nn.BatchNorm2d(4)
        for held in (self.bn.running_mean, self.bn.running_var, self.bn.weight.data, self.bn.bias.data):
            assert isinstance(held, Tensor)
            held.copy_(torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(F.relu(self.norm(self.head(x), self.bn))), 2)


def of_module(y: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    normed: Tensor = bn(y)
    return normed


def by_default(y: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    return F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias)


def by_name(y: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    return F.batch_norm(y, weight=bn.weight, running_mean=bn.running_mean, running_var=bn.running_var)


def of_torch(y: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    return torch.batch_norm(y, bn.weight, bn.bias, bn.running_mean, bn.running_var, False, 0.1, 1e-5, True)


def require_read(network: Any, expected: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        traced = trace(network)
    assert not [r for r in caplog.records if r.name.startswith("memsr_compiler")] and not traced.assumed
    assert traced.reader == "torch.fx.symbolic_trace"
    image = torch.rand(1, 3, 7, 9, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(traced.graph)(image), expected.double()(image), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [by_default, by_name, of_torch])
def test_functions_of_it(norm: Callable[[Tensor, nn.BatchNorm2d], Tensor], caplog: pytest.LogCaptureFixture) -> None:
    """torch.batch_norm's weights were taken for its mean and variance."""
    require_read(Net(norm).eval(), Net(norm).eval(), caplog)


@pytest.mark.parametrize("decomposed", [True, False])
def test_programs_of_torch_export(decomposed: bool, caplog: pytest.LogCaptureFixture) -> None:
    """They were read at one size, and assumed to do the same at others."""
    shapes = ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    program = torch.export.export(Net(of_module).eval(), (torch.rand(1, 3, 9, 8),), dynamic_shapes=shapes)
    program = program.run_decompositions({}) if decomposed else program
    require_read(program.module(check_guards=False), Net(of_module).eval(), caplog)
