"""Networks that run for images of several numbers of channels: as which they are read, and what is said of that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.lowering.equivalence import check_equivalence
from memsr_compiler.trace.approximate.freeze import find_places
from memsr_compiler.trace.trace import trace

MEAN = torch.tensor([0.4, 0.3, 0.2, 0.1])


class BodyFirst(nn.Module):
    """Its body is registered before its head."""

    def __init__(self, begin: Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.begin = begin
        self.body, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(channels, 8, 3, padding=1)
        self.tail = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.begin(x))
        return F.pixel_shuffle(self.tail((self.body(y) + y).relu()), 2)


def luma(x: Tensor) -> Tensor:
    return 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


SEVERAL: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "without alpha": (lambda x: x[:, :3], 3),
    "mean": (lambda x: x.mean(1, keepdim=True), 1),
    "luma": (luma, 1),
    "first channel": (lambda x: x[:, :1], 1),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_where_several_are_possible_it_is_rgb_and_told(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """They were read for 8 channels, which the first convolution that is registered takes, without a word."""
    network = BodyFirst(*SEVERAL[name]).eval()
    plain = compile_to_plain(network)
    assert plain[0].in_channels == 3 and "images of 3 channels" in plain.info.assumed
    assert "BodyFirst: assumed: images of 3 channels" in caplog.text
    check_equivalence(network, plain).require()


ONE: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {
    "a convolution": (lambda x: x, 3, 3),
    "a convolution of grey": (lambda x: x, 1, 1),
    "a convolution of RAW": (lambda x: x, 4, 4),
    "a convolution of two images": (lambda x: x, 6, 6),
    "a mean": (lambda x: x - MEAN[:3].to(x.dtype).view(1, 3, 1, 1), 3, 3),  # grey by broadcasting
    "a mean of RAW": (lambda x: x - MEAN.to(x.dtype).view(1, 4, 1, 1), 4, 4),
    "grey as RGB": (lambda x: x.repeat(1, 3, 1, 1), 3, 1),
}


@pytest.mark.parametrize("name", ONE)
def test_where_the_first_operation_says_it_nothing_is_assumed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    begin, channels, expected = ONE[name]
    traced = trace(BodyFirst(begin, channels).eval())
    assert (traced.graph.input.channels, traced.assumed) == (expected, ()) and not caplog.records


def test_grey_is_another_network_where_it_is_no_rgb_of_one_grey() -> None:
    class Either(BodyFirst):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.shape[1] == 3 else torch.cat([x, x * 0, x], 1))

    assert "images of 3 channels" in trace(Either(lambda x: x, 3).eval()).assumed


def test_gates_are_found_in_networks_of_other_images() -> None:
    """A mean for each of four channels cannot be taken off RGB, and is no reason to look no further."""
    network = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 4, 1)).eval()
    assert find_places(network) == ("2",)


class Restoring(BodyFirst):
    """Doubles a weight while it runs."""

    def forward(self, x: Tensor) -> Tensor:
        before = self.body.weight.data.clone()
        self.body.weight.data.mul_(2.0)
        y = super().forward(x)
        self.body.weight.data.copy_(before)
        return y


def test_runs_that_fail_leave_no_weights_behind() -> None:
    """Of images of a number of channels that it does not take: "sets weights by the first image"."""
    network = Restoring(lambda x: x, 3).eval()
    check_equivalence(network, compile_to_plain(network)).require()
