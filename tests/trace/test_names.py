"""Modules, parameters and buffers of any name are read: the reader needs no code that torch.fx makes of them."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.trace.approximate.freeze import find_places, freeze
from memsr_compiler.trace.trace import GraphModule, trace


class Net(nn.Module):
    """Modules in a table, and some that torch.fx's own modules have something else under the names of."""

    code: Tensor

    def __init__(self, names: tuple[str, ...], *, gated: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail, self.gated = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1), gated
        self.table = nn.ModuleDict({name: nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for name in names})
        self.graph, self.meta = nn.Conv2d(4, 4, 1), nn.Parameter(torch.tensor(1.5))
        self.register_buffer("code", torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        for module in self.table.values():
            y = F.relu(module(y))
        z = self.graph(y) * self.meta + self.code
        return F.pixel_shuffle(self.tail(z * torch.sigmoid(z.mean((2, 3), keepdim=True)) if self.gated else z), 2)


NAMES = [("in", "out"), ("class", "is"), ("2x", "a b"), ('"', "'"), ("\\", "\n")]


@pytest.mark.parametrize("names", NAMES)
def test_it_is_read(names: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    """`invalid syntax`, or `attribute 'code' already exists`, was said."""
    network, image = Net(names).eval(), torch.rand(1, 3, 7, 9)
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        traced = trace(network)
    assert not caplog.records and traced.reader == "torch.fx.symbolic_trace"
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(traced.graph)(image.double()).float(), network(image))


def test_so_it_is_by_torch_export() -> None:
    """torch.export writes code with them as well, where code decides by the size of the image."""

    class Decides(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.shape[2] < 10**6 else x * 2)

    network, image = Decides(("in", "class")).eval(), torch.rand(1, 3, 7, 9)
    traced = trace(network)
    assert traced.reader == "torch.export"
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(traced.graph)(image.double()).float(), network(image))


def test_its_gates_are_frozen() -> None:
    network = Net(("in", "out"), gated=True).eval()
    assert find_places(network) == ("gate",)
    assert freeze(network, [torch.rand(1, 3, 16, 16)]).psnr > 30
