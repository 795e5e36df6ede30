"""Copies of modules: in another precision, and of the same weights."""

from __future__ import annotations

import cProfile
import weakref
from collections import deque
from dataclasses import dataclass
from threading import Lock
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memsr_compiler import check_certificate
from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.torch_helpers import InFloat64, copy_module, list_weights, prepare, unwrap_inside


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
    """Of these three nobody holds a lock."""
    closing = Holding(None)
    call: Any = closing.forward
    for _ in range(1000):
        call = (lambda inner: lambda: inner())(call)
    closing.held = call
    with pytest.raises(InvalidInput, match="Holding cannot be copied: what it holds, functions too, lies within each"):
        copy_module(closing, None)
    nested: nn.Module = nn.ReLU()
    for _ in range(400):
        nested = nn.Sequential(nested)
    with pytest.raises(InvalidInput, match=r"more deeply than Python goes, 401 of them at held\.0\.0"):
        copy_module(Holding(nested), None)
    model = Holding(None)
    model.conv.weight = nn.Parameter(model.conv.weight.data.to_sparse())
    with pytest.raises(InvalidInput, match=r"conv\.weight: is kept as sparse_coo, which is not read; .* to_dense"):
        copy_module(model, None)


@dataclass
class State:
    """What a network keeps of its last run."""

    last: Tensor


def test_computed_tensors_are_copied_wherever_they_are_held() -> None:
    model = Holding(None)
    kernel = model.conv.weight * 3
    model.held = {"kernels": [kernel, deque([kernel]), State(kernel), SimpleNamespace(last=kernel)]}
    copied = copy_module(model, torch.float64)
    assert isinstance(copied, Holding) and isinstance(copied.held, dict)
    in_list, in_deque, state, namespace = copied.held["kernels"]
    assert torch.equal(in_list, kernel) and in_list is not kernel
    assert in_deque[0] is in_list and state.last is in_list and namespace.last is in_list
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


@dataclass(unsafe_hash=True)
class Block(nn.Module):
    """Blocks of as many channels are equal; their weights are not."""

    channels: int = 3

    def __post_init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(self.channels, self.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.conv(x))


@dataclass
class Unhashable(Block):
    """What a dataclass is by default."""


@dataclass(unsafe_hash=True)
class Double(nn.Module):
    """Nothing is lost where one of these is taken for another."""

    factor: int

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_modules_that_compare_equal_are_refused() -> None:
    """The second was taken for the first."""
    first, second = Block(), Block()
    network = nn.Sequential(first, nn.DataParallel(second), nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    plain = unwrap_inside(network)
    assert plain.get_submodule("0") is first and plain.get_submodule("1") is second
    with pytest.raises(InvalidInput, match=r"0: Block has an __eq__ of its own \(it is equal to 1\.module\)"):
        compile_to_plain(network.eval())
    with pytest.raises(InvalidInput, match=r"0: Unhashable has an __eq__ of its own \(unhashable type"):
        compile_to_plain(nn.Sequential(Unhashable(), nn.Conv2d(3, 12, 3, padding=1)))
    shared = nn.Conv2d(3, 3, 3, padding=1)
    tail = (nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    compile_to_plain(nn.Sequential(shared, Double(2), shared, Double(2), *tail))


class WithItsParent(nn.Module):
    def __init__(self, parent: nn.Module) -> None:
        super().__init__()
        self.parent = weakref.proxy(parent)


def test_a_proxy_of_a_module_is_no_module() -> None:
    """It was said to have an __eq__ of its own."""
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    network.append(WithItsParent(network))
    with pytest.raises(InvalidInput, match=r"1\.parent: is a weakref\.proxy .* hold a weakref\.ref"):
        copy_module(network, torch.float64)


class Centred(nn.Module):
    """Its mean is in no file."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.pixel_shuffle(self.conv(x - self.mean), 2)


def test_buffers_that_stay_without_numbers_are_named() -> None:
    """As after `load_state_dict(..., assign=True)` into a network that was built on meta."""
    with torch.device("meta"):
        network = nn.Sequential(Centred())
    network.load_state_dict(nn.Sequential(Centred()).state_dict(), assign=True)
    for use in (compile_to_plain, prepare):
        with pytest.raises(InvalidInput, match=r"^0\.mean: has no values, and no file holds any for it: make it anew"):
            use(network)
    network.get_submodule("0").register_buffer("mean", torch.zeros(3, 1, 1), persistent=False)
    compile_to_plain(prepare(network))
    lazy = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.LazyBatchNorm2d(affine=False)).eval()
    with pytest.raises(InvalidInput, match=r"^1\.running_mean: has no values yet; load the weights first"):
        compile_to_plain(lazy)


def test_damaged_norms_are_named() -> None:
    """They were told to do the same at every size."""
    norm = nn.BatchNorm2d(12)
    norm.running_var.fill_(-1)  # type: ignore[union-attr]
    with pytest.raises(InvalidInput, match=r"^1: running_var has values below 0; the checkpoint is damaged"):
        compile_to_plain(nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), norm).eval())


class DividesByNothing(Holding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (torch.zeros(1) / torch.zeros(1))


def test_networks_that_give_no_numbers_are_told_so() -> None:
    with pytest.raises(UnsupportedModel, match="DividesByNothing itself gives NaN or infinite values"):
        compile_to_plain(DividesByNothing(None).eval())


def test_a_to_of_its_own_that_refuses_is_passed_over() -> None:
    """Networks in 8 bits refuse so, those whose weights are none, too."""

    class Stays(Holding):
        def to(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError(".to is not supported")

    compile_to_plain(Stays(None).eval())


class Forgets(Holding):
    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "held": None}


def test_what_is_unwrapped_keeps_all_that_it_holds() -> None:
    network = Forgets([3])
    network.conv = nn.DataParallel(network.conv)  # type: ignore[assignment]
    network.register_forward_hook(lambda module, inputs, output: output * 2)
    plain, image = unwrap_inside(network), torch.rand(1, 3, 4, 4)
    assert isinstance(plain, Forgets) and plain.held == [3] and isinstance(plain.conv, nn.Conv2d)
    assert torch.equal(plain(image), network(image)) and isinstance(network.conv, nn.DataParallel)


class Own(Holding):
    """Its methods give what an optimiser is given."""

    def parameters(self, recurse: bool = True) -> Any:
        return [{"params": [self.conv.weight], "lr": 1e-4}]

    def named_parameters(self) -> Any:  # type: ignore[override]
        return [("bias", self.conv.bias)]

    def buffers(self, which: str) -> Any:  # type: ignore[override]
        return []


def test_weights_are_listed_by_no_method_of_a_networks_own() -> None:
    network = Own(None).eval()
    assert list(list_weights(network)) == ["conv.weight", "conv.bias"]
    check_certificate(network, compile_to_plain(network))
    assert compile_to_plain(network.double())(torch.ones(1, 3, 2, 2, dtype=torch.float64)).dtype == torch.float64
