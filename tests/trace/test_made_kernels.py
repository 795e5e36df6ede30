"""Kernels that `forward` makes in torch's own type, and writes weights into, are read as they are in float32."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.torch_helpers import InFloat64
from memsr_compiler.trace.trace import GraphModule, trace


class Net(nn.Module):
    """`make` writes the weights of its first convolution into zeros."""

    mask: Tensor
    places: Tensor

    def __init__(self, make: Callable[[Net, Tensor, Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail, self.make = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1), make
        self.register_buffer("mask", torch.rand(4, 3, 3, 3) > 0.5)
        self.register_buffer("places", torch.tensor([2, 0, 3, 1]))

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.zeros(4, 3, 3, 3)
        self.make(self, kernel, self.head.weight)
        return F.pixel_shuffle(self.tail(F.relu(F.conv2d(x, kernel, self.head.bias, padding=1))), 2)


class OnItsDevice(Net):
    """The same zeros, of which a tracer knows no numbers yet."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.head.weight
        kernel = torch.zeros(4, 3, 3, 3, device=weight.device)
        self.make(self, kernel, weight)
        return F.pixel_shuffle(self.tail(F.relu(F.conv2d(x, kernel, self.head.bias, padding=1))), 2)


class Held(Net):
    """Zeros that the network holds, as no weight."""

    def __init__(self, make: Callable[[Net, Tensor, Tensor], object]) -> None:
        super().__init__(make)
        self.kernel = torch.zeros(4, 3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.make(self, self.kernel.zero_(), self.head.weight)
        return F.pixel_shuffle(self.tail(F.relu(F.conv2d(x, self.kernel, self.head.bias, padding=1))), 2)


def by_mask(net: Net, kernel: Tensor, weight: Tensor) -> object:
    kernel[net.mask] = weight[net.mask]
    return None


def by_rows(net: Net, kernel: Tensor, weight: Tensor) -> object:
    kernel[net.places] = weight
    return None


def a_part(net: Net, kernel: Tensor, weight: Tensor) -> object:
    kernel[:, :, 1:] = weight[:, :, :2]
    return None


def rows_of_rows(net: Net, kernel: Tensor, weight: Tensor) -> object:
    for i in range(4):
        kernel[i][1] = weight[i, 2]
    return None


MADE: dict[str, Callable[[Net, Tensor, Tensor], object]] = {
    "mask": by_mask,
    "rows": by_rows,
    "part": a_part,
    "rows of rows": rows_of_rows,
    "out": lambda net, kernel, weight: torch.mul(weight, 2, out=kernel),
    "small out": lambda net, kernel, weight: torch.mul(weight, 1e-3, out=kernel),
    "index_copy_": lambda net, kernel, weight: kernel.index_copy_(0, net.places, weight),
    "masked_scatter_": lambda net, kernel, weight: kernel.masked_scatter_(net.mask, weight),
    "lerp_": lambda net, kernel, weight: kernel.lerp_(weight, 0.5),
    "addmm_": lambda net, kernel, weight: kernel.view(4, 27).addmm_(weight.view(4, 27), torch.eye(27)),
}


@pytest.mark.parametrize("kind", [Net, OnItsDevice])
@pytest.mark.parametrize("way", MADE)
def test_what_is_written_into_them_is_read(
    kind: type[Net], way: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """`out=` was written into a copy; others were said to fail on a float64 image, some with torch's own report."""
    network = kind(MADE[way]).eval()
    with caplog.at_level(logging.WARNING):
        traced = trace(network)
    assert not caplog.records and not traced.assumed and not "".join(capfd.readouterr())
    assert traced.reader == "torch.fx.symbolic_trace"
    image = torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(traced.graph)(image.double()).float(), network(image))


def test_what_is_read_of_them_afterwards_has_these_weights(caplog: pytest.LogCaptureFixture) -> None:
    """Decisions by them too, which were refused; a tracer had their numbers of before."""

    def adds(net: Net, kernel: Tensor, weight: Tensor) -> object:
        by_mask(net, kernel, weight)
        return kernel.add_(kernel.sum()) if kernel.abs().sum() > 0 else kernel

    network, image = Net(adds).eval(), torch.rand(1, 3, 7, 9)
    traced = trace(network)
    assert traced.reader == "torch.fx.symbolic_trace"
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(traced.graph)(image.double()).float(), network(image))


def test_so_is_what_the_graph_alone_knows(caplog: pytest.LogCaptureFixture) -> None:
    """Weights that the graph changes are no numbers while torch.fx traces, nor is what is made of them."""

    def adds(net: Net, kernel: Tensor, weight: Tensor) -> object:
        weight.mul_(2).mul_(0.5)
        kernel[0] = weight[0]
        return kernel.add_(kernel.sum())

    network, image = Net(adds).eval(), torch.rand(1, 3, 7, 9)
    with caplog.at_level(logging.INFO, "memsr_compiler"), torch.no_grad():
        graph = trace(network).graph
        torch.testing.assert_close(GraphModule(graph)(image.double()).float(), network(image))
    assert "used after it was changed" in caplog.text


def test_tensors_of_float32_that_others_hold_are_written_into() -> None:
    """Of `torch.Tensor(...)` torch tells nobody; what is written into it, `out=` or in place, is rounded there."""
    held, weight = torch.Tensor(2).zero_(), torch.tensor([1.5, 2.5], dtype=torch.float64)
    with InFloat64():
        assert torch.mul(weight, 2, out=held) is held
        assert held.tolist() == [3.0, 5.0] and held.dtype == torch.float32
        held[torch.tensor([1])] = weight[:1]
        assert held.tolist() == [3.0, 1.5]
        assert torch.mm(weight[None], weight[:, None], out=torch.Tensor(0)).tolist() == [[8.5]]


@pytest.mark.parametrize("way", ["mask", "out", "index_copy_"])
def test_kernels_that_are_held_are_written_into(way: str) -> None:
    network, image = Held(MADE[way]).eval(), torch.rand(1, 3, 7, 9)
    traced = trace(network)
    assert traced.reader == "torch.fx.symbolic_trace"
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(traced.graph)(image.double()).float(), network(image))


def test_random_kernels_are_the_ones_of_float32() -> None:
    def draw() -> Tensor:
        return torch.empty(20).uniform_(generator=torch.Generator().manual_seed(0))

    with InFloat64():
        drawn = draw()
    assert drawn.dtype == torch.float64 and torch.equal(drawn.float(), draw())


CASTS: dict[str, Callable[[Tensor], Tensor]] = {
    "double": lambda held: held.detach().double(),
    "to float64": lambda held: held.to(torch.float64),
    "type": lambda held: held.type("torch.DoubleTensor"),
    "type itself": lambda held: held.type(torch.DoubleTensor),  # type: ignore[call-overload]
    "as_tensor": lambda held: torch.as_tensor(held, dtype=torch.float64),
    "asarray": lambda held: torch.asarray(held.detach(), dtype=torch.float64),
    "copy": lambda held: held.to(torch.float32, copy=True),
    "copy by place": lambda held: held.to(torch.float32, False, True),
}


@pytest.mark.parametrize("way", CASTS)
def test_casts_that_copy_do_so_in_float64(way: str) -> None:
    """`self.weight.double()` gave a copy its own weights, which code wrote into, as it may into another tensor."""
    cast = CASTS[way]

    class Doubled(Net):
        def forward(self, x: Tensor) -> Tensor:
            kernel = cast(self.head.weight)
            kernel.clamp_(-0.1, 0.1)
            y = F.conv2d(x, kernel.to(x.dtype), self.head.bias, padding=1) + self.head(x)
            return F.pixel_shuffle(self.tail(F.relu(y)), 2)

    network, image = Doubled(by_rows).eval(), torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(trace(network).graph)(image.double()).float(), network(image))


def test_casts_of_features_that_copy_do_so_in_float64() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.head(x))
            doubled = y.double()
            doubled *= 2
            return F.pixel_shuffle(self.tail(y + doubled.float()), 2)

    network, image = Twice(by_rows).eval(), torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(trace(network).graph)(image.double()).float(), network(image))


class Mixed(Net):
    """Holds numbers in float64 beside its weights, and computes `change` of feature maps."""

    mean: Tensor
    change: Callable[[Tensor, Tensor], Tensor]

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(by_rows)
        self.register_buffer("mean", torch.linspace(0.5, 2, 4, dtype=torch.float64).view(1, 4, 1, 1))
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(self.change(F.relu(self.head(x)), self.mean)), 2)


def halve_mean(y: Tensor, mean: Tensor) -> Tensor:
    half = mean.float()
    half *= 0.5
    return y * half + mean.float()


def clamp_mean(y: Tensor, mean: Tensor) -> Tensor:
    return y * mean.float().clamp_(0, 0.7) + mean.float()


def double_mean_of_its_type(y: Tensor, mean: Tensor) -> Tensor:
    twice = mean.to(y)
    twice *= 2
    return y * twice + mean.float()


def narrow_features(y: Tensor, mean: Tensor) -> Tensor:
    doubled = y.double()
    narrow = doubled.float()
    narrow *= 2
    return y + narrow + doubled.float()


def doubled_twice(y: Tensor, mean: Tensor) -> Tensor:
    doubled = y.double()
    again = doubled.double()
    again *= 2
    return (y + doubled).float()


def beside_a_number(y: Tensor, mean: Tensor) -> Tensor:
    """Without axes it makes nothing float64."""
    scaled = y * mean.view(4)[2]
    same = scaled.float()
    same += 1
    return y + scaled


@pytest.mark.parametrize(
    "change",
    [halve_mean, clamp_mean, narrow_features, doubled_twice, beside_a_number],
)
def test_what_is_of_float64_in_the_network_itself_is_another_tensor_in_float32(
    change: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """It was said to change its weights, or read as if a copy were written into it."""
    network, image = Mixed(change).eval(), torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(trace(network).graph)(image.double()).float(), network(image))


def like_mean(y: Tensor, mean: Tensor) -> Tensor:
    wide = y.type_as(mean)
    wide *= 2
    return (y + wide).float()


def to_mean(y: Tensor, mean: Tensor) -> Tensor:
    wide = y.to(mean)
    wide *= 2
    return (y + wide).float()


def promoted(y: Tensor, mean: Tensor) -> Tensor:
    scaled = y * mean
    narrow = scaled.to(torch.float32)
    narrow += 1
    return (scaled + narrow).float()


@pytest.mark.parametrize("change", [like_mean, to_mean, promoted, double_mean_of_its_type])
def test_what_an_export_loses_of_types_is_refused(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """It was read, as if that were written into the feature maps."""
    with pytest.raises(UnsupportedModel, match=r"of several types, .* write z = z \* 2 in place of z \*= 2"):
        trace(Mixed(change).eval())


TAKEN: dict[str, Callable[[Tensor], Tensor]] = {
    "to": lambda x: torch.eye(3).expand(4, 1, 3, 3).to(x),
    "to its type": lambda x: torch.tensor([[0, 0.1, 0], [0.2, 0.3, 0], [0, 0, 0.1]]).expand(4, 1, 3, 3).to(x.dtype),
    "type_as": lambda x: (torch.arange(9).float() / 9).view(1, 1, 3, 3).repeat(4, 1, 1, 1).type_as(x),
    "where": lambda x: torch.where(torch.eye(3) > 0, torch.tensor(0.5), torch.tensor(0.1)).expand(4, 1, 3, 3).to(x),
}


class Filtered(Net):
    """A kernel of its own, which `filter` makes for feature maps, of their type."""

    filter: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.head(x))
        return F.pixel_shuffle(self.tail(F.conv2d(y, self.filter(y), padding=1, groups=4)), 2)


@pytest.mark.parametrize("way", TAKEN)
def test_kernels_of_the_type_of_feature_maps_are_no_decisions(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whether `x` of `kernel.to(x)` is a word was a decision to a tracer: by the size of the image, it was said."""
    network, image = Filtered(by_rows).eval(), torch.rand(1, 3, 7, 9)
    network.filter = TAKEN[way]
    with caplog.at_level(logging.WARNING):
        traced = trace(network)
    assert not caplog.records and not traced.assumed and traced.reader == "torch.fx.symbolic_trace"
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(traced.graph)(image.double()).float(), network(image))


def test_kernels_of_a_type_that_is_named_are_read() -> None:
    """torch.export makes `torch.FloatTensor(numbers)` by a cast of its own, which is to stay one."""
    network, image = Filtered(by_rows).eval(), torch.rand(1, 3, 7, 9)
    numbers = np.arange(36.0).reshape(4, 1, 3, 3) / 36
    network.filter = lambda x: torch.FloatTensor(numbers).type(x.type())
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(trace(network).graph)(image.double()).float(), network(image))
