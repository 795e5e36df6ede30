"""Which tensors share memory: an operation in place changes a view and its base, and no copy."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.trace import GraphModule, trace


class Bounded(nn.Module):
    """A bound in place on what `other` makes of the features, and a sum with these: far apart where an edge filter
    meets the bound, the same on noise."""

    def __init__(self, other: Callable[[Tensor], Any], bound: Callable[[Any], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 12, 3, padding=1)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]]).expand(4, 3, 3, 3))
        self.shuffle = nn.PixelShuffle(2)
        self.other, self.bound = other, bound

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x)
        other = self.other(features)
        self.bound(other)
        result: Tensor = self.shuffle(self.last(features + 0.5 * features.relu()))
        return result


def clamp(x: Tensor) -> Tensor:
    return x.clamp_(-6, 6)


def is_read_or_refused(network: nn.Module) -> bool:
    """True for what is read right, at the checkerboard too; False for what is refused."""
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(8), indexing="ij")
    image = ((rows + columns) % 2 == 0).double().expand(1, 3, 9, 8)
    network = network.double().eval()
    try:
        graph = trace(network).graph
    except UnsupportedModel:
        return False
    with torch.no_grad():
        assert torch.allclose(GraphModule(graph)(image), network(image.clone()), rtol=0, atol=1e-9)
    return True


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "times one": lambda x: x * 1.0,
    "by one": lambda x: x / 1.0,
    "plus nothing": lambda x: x + 0.0,
    "less nothing": lambda x: x - 0,
    "clone": lambda x: x.clone(),
    "padded by nothing": lambda x: F.pad(x, (0, 0, 0, 0)),
    "all channels": lambda x: torch.index_select(x, 1, torch.arange(4)),
    "listed channels": lambda x: x[:, [0, 1, 2, 3]],
    "repeated once": lambda x: x.repeat(1, 1, 1, 1),
    "alone": lambda x: torch.cat([x], 1),
    "unbounded": lambda x: x.clamp(min=-float("inf")),
    "enlarged by one": lambda x: F.interpolate(x, scale_factor=1, mode="nearest"),
    "shuffled by one": lambda x: F.pixel_shuffle(x, 1),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_bounded_alone(name: str) -> None:
    assert is_read_or_refused(Bounded(COPIES[name], clamp))


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda x: x,
    "detached": lambda x: x.detach(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "as it lies": lambda x: x.contiguous(),
    "copied": lambda x: x.to(torch.float64, copy=True),
    "moved": lambda x: x.movedim(1, 0),
    "moved by another name": lambda x: torch.moveaxis(x, 1, 3),
    "swapped": lambda x: x.swapaxes(1, 2),
    "swapped by another name": lambda x: torch.swapdims(x, 2, 3),
    "part": lambda x: x[:, :2],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "apart": lambda x: x.chunk(2, 1)[0],
    "split": lambda x: torch.tensor_split(x, 2, 1)[1],
    "flat": lambda x: x.flatten(2),
    "as another": lambda x: x.view_as(x),
    "expanded": lambda x: x.expand(-1, -1, -1, -1),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_read_right_or_not_at_all(name: str) -> None:
    is_read_or_refused(Bounded(VIEWS[name], clamp))


def test_a_view_that_nobody_looks_at_again_may_be_changed() -> None:
    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).contiguous().float()
            y = y.reshape(y.shape)
            y.mul_(2).relu_()
            return self.last(y)  # type: ignore[no-any-return]

    network = Once().eval()
    graph = trace(network).graph
    x = torch.randn(1, 3, 5, 4)
    with torch.no_grad():
        assert torch.allclose(GraphModule(graph)(x.double()).float(), network(x), atol=1e-5)


@pytest.mark.parametrize(
    "bound",
    [
        lambda x: torch.clamp_(input=x, min=-6, max=6),
        lambda x: torch.relu_(x),
        lambda x: F.relu6(input=x, inplace=True),
        lambda x: F.hardtanh(x, -6.0, 6.0, inplace=True),
        nn.Hardtanh(-6.0, 6.0, inplace=True),
    ],
)
def test_however_it_is_written(bound: Callable[[Any], object]) -> None:
    assert is_read_or_refused(Bounded(lambda x: x * 1.0, bound)) and is_read_or_refused(Bounded(lambda x: x, bound))


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        plain = self.norm.forward
        self.norm.forward = lambda x: plain(x).clamp(-6, 6)  # type: ignore[assignment, method-assign]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(9 * self.conv(x))  # type: ignore[no-any-return]


class Compiling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = 9 * self.conv(x)
        y[:, :1] = y[:, 1:2] * 2
        return y if torch.compiler.is_compiling() else y.clamp(-6, 6)  # type: ignore[no-any-return]


class ByType(Norm):
    def forward(self, x: Tensor) -> Tensor:
        y = 99 * self.conv(x)
        return y.clamp(-99, 99) if x.dtype == torch.float32 else y  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore")  # of torch.export, about itself
@pytest.mark.parametrize("kind", [Norm, Compiling])
def test_bounds_that_a_reader_does_not_see(kind: type[nn.Module]) -> None:
    is_read_or_refused(kind())


class Steep(ByType):
    """Beyond float32 at the largest values that are tried."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + 1e-36 * (1e18 * y * 1e17)


@pytest.mark.parametrize("network", [ByType(), Steep()])
def test_what_float32_alone_does_is_told(network: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    """A copy in another type is none in that type, as which networks are read."""
    with caplog.at_level(logging.WARNING):
        trace(network.eval())
    assert "gives something else in float32 than in float64" in caplog.text


def test_statistics_that_are_no_longer_tracked_are_used() -> None:
    norm = nn.BatchNorm2d(3)
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), norm)
    network(torch.rand(2, 3, 8, 8))
    norm.track_running_stats = False
    assert is_read_or_refused(network)


class Writes(nn.Module):
    """Something in place on a part of the features that small images do not have."""

    def __init__(self, write: Callable[[Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        self.write(y)
        return F.pixel_shuffle(self.last(y), 2)


def raise_to(y: Tensor) -> None:
    z = y[:, :, 100:]
    z **= 2


def take_remainder(y: Tensor) -> None:
    z = y[3:]
    z %= 0.5


def divide(y: Tensor) -> None:
    z = y[:, :, 100:]
    z //= 0.5


@pytest.mark.parametrize(
    "write",
    [
        raise_to,
        take_remainder,
        divide,
        lambda y: F.relu(y[:, :, 100:], inplace=1),  # type: ignore[arg-type]
        lambda y: nn.ReLU(1)(y[3:]),  # type: ignore[arg-type]
        lambda y: nn.LeakyReLU(0.2, 1)(y[:, :, 100:]),  # type: ignore[arg-type]
        lambda y: F.elu(y[3:], 1.0, True),
    ],
)
def test_operations_in_place_are_seen_however_they_are_written(
    write: Callable[[Tensor], object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "memsr_compiler"), pytest.raises(UnsupportedModel):
        trace(Writes(write).eval())


@pytest.mark.parametrize("write", [operator.ior, operator.iand, operator.ixor, operator.iadd])
def test_what_is_written_into_a_tensor_of_its_own_is_seen(write: Callable[[Any, Any], Any]) -> None:
    """On the left stands no proxy: torch is asked for `Tensor.__ior__`."""

    class Marks(Writes):
        def forward(self, x: Tensor) -> Tensor:
            white = torch.zeros(1, dtype=torch.int64)
            kept = white
            write(kept, (x == 0.3).any().long())
            return F.pixel_shuffle(self.last(self.first(x) * (1 + white.to(x))), 2)

    with pytest.raises(UnsupportedModel):
        trace(Marks(print).eval())


@pytest.mark.parametrize("axis", [2, 3, -1])
def test_an_axis_of_pixels_is_not_taken_away(axis: int) -> None:
    """It was left as it is, which it is not where it is one pixel long."""

    class Squeezes(Writes):
        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).squeeze(axis).clamp(max=torch.ones(1, 4, 1, 1))
            return F.pixel_shuffle(self.last(y), 2)

    with pytest.raises(UnsupportedModel, match="squeeze: it takes an axis of pixels"):
        trace(Squeezes(print).eval())


@pytest.mark.parametrize("name", ["data", "real"])
def test_numbers_put_into_a_tensor_past_the_readers_are_refused(name: str) -> None:
    """They were passed over, and the network was read as if it did not, where that shows at no small image."""

    class Putting(Norm):
        def __init__(self) -> None:
            super().__init__()
            self.far = nn.Conv2d(3, 3, 3, padding=280, dilation=280, bias=False)
            self.far.weight.data[..., 1, 1] = 0

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = x * 1.0
            setattr(y, name, x + self.far(x))
            return super().forward(y)

    with pytest.raises(UnsupportedModel, match=rf"puts other numbers into a tensor by z\.{name} = y, which no reader"):
        trace(Putting().eval())


def test_numbers_put_into_weights_are_those_of_the_run() -> None:
    class Computing(Norm):
        def forward(self, x: Tensor) -> Tensor:
            self.conv.weight.data = self.conv.weight.abs()
            return super().forward(x)

    trace(Computing().eval())
