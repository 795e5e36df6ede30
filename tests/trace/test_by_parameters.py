"""What code decides by parameters alone it decides for every image: it is read as what it does by buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.trace import GraphModule, trace


class Net(nn.Module):
    """Which of its blocks run, `choose` decides by `alpha`."""

    alpha: Tensor
    blocks: Any

    def __init__(self, choose: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.alpha, self.choose = nn.Parameter(torch.tensor([0.1, 1.0, 0.3])), choose

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(self.choose(self, self.head(x))), 2)


def all_large(net: Net, y: Tensor) -> Tensor:
    for weight, block in zip(net.alpha, net.blocks, strict=True):
        if weight > 0.2:
            y = block(y) * weight
    return y


def all_large_in_a_list(net: Net, y: Tensor) -> Tensor:
    numbers = net.alpha.tolist()
    for i in range(len(net.alpha)):
        if numbers[i] > 0.2:
            y = net.blocks[i](y) * numbers[i]
    return y


def all_kept(net: Net, y: Tensor) -> Tensor:
    for i in torch.nonzero(net.alpha > 0.2).flatten().tolist():
        y = net.blocks[i](y)
    return y


def sorted_by_weight(net: Net, y: Tensor) -> Tensor:
    for i in torch.argsort(net.alpha, descending=True):
        y = F.relu(net.blocks[i](y))
    return y


CHOICES: list[Callable[[Net, Tensor], Any]] = [
    all_large,
    all_large_in_a_list,
    all_kept,
    sorted_by_weight,
    lambda net, y: net.blocks[net.alpha.argmax().item()](y),
    lambda net, y: net.blocks[torch.argmax(net.alpha, dim=-1)](y),
    lambda net, y: net.blocks[int(net.alpha.detach().numpy().argmax())](y),
]


@pytest.mark.parametrize("choose", CHOICES)
def test_it_is_read(choose: Callable[[Net, Tensor], Tensor]) -> None:
    """It was refused as a decision that depends on the image."""
    network, image = Net(choose).eval(), torch.rand(1, 3, 7, 9)
    traced = trace(network)
    assert traced.reader == "torch.fx.symbolic_trace"
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(traced.graph)(image.double()).float(), network(image))


def test_parameters_that_are_changed_are_no_numbers_yet() -> None:
    """The graph changes them when it runs; a tracer has their numbers of before."""

    def halves(net: Net, y: Tensor) -> Any:
        part = net.alpha[1:]
        part.mul_(0.5)
        y = y * net.alpha.sum().item()
        part.mul_(2)
        return y

    network, image = Net(halves).eval(), torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        read = GraphModule(trace(network).graph)(image.double()).float()
        torch.testing.assert_close(read, network(image))


def test_numbers_of_the_image_are_still_refused() -> None:
    with pytest.raises(UnsupportedModel, match="a decision depends on the image"):
        trace(Net(lambda net, y: net.blocks[int(y.mean() > 0)](y)).eval())


class Partial(nn.Conv2d):
    """As of NVIDIA: a mask of ones, as large as the image, tells how much of each window lies within it."""

    size: tuple[int, int] | None = None
    ratio: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.size != (x.shape[2], x.shape[3]):
            self.size = (x.shape[2], x.shape[3])
            mask = torch.ones(1, 1, *self.size).to(x)
            self.ratio = 9 / F.conv2d(mask, torch.ones(1, 1, 3, 3).to(x), padding=1)
        return super().forward(x) * self.ratio


def test_masks_of_the_size_of_the_image_are_named_as_such() -> None:
    """Only that a convolution does not take a tensor of no axes was said."""
    network = nn.Sequential(Partial(3, 12, 3, padding=1), nn.PixelShuffle(2))
    with pytest.raises(UnsupportedModel, match="0: conv2d: it computes with the height or width of the image"):
        trace(network.eval())
