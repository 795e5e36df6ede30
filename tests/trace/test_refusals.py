"""Networks that cannot be read: what is said, and that it does not take long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.export
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.builder import Builder
from memsr_compiler.trace.fx_reader import refuse_impossible
from memsr_compiler.trace.trace import trace
from memsr_compiler.trace.tracers import export_module, trace_symbolically
from memsr_compiler.trace.views import Unreadable, WrongChannels


class Between(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int = 3) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 3, 3, padding=1)
        self.mix = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.function(self.first(x)))
        return y


def decide(y: Tensor) -> Tensor:
    return -y if y.mean() > 0.5 else y


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of each export, from now on."""
    calls: list[Any] = []
    export = torch.export.export

    def count(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return export(*args, **options)

    monkeypatch.setattr(torch.export, "export", count)
    return calls


def test_what_no_reader_reads_is_exported_once(exports: list[Any]) -> None:
    with pytest.raises(
        UnsupportedModel, match=r"neither torch\.fx\.symbolic_trace nor torch\.export can read Betw"
    ) as e:
        trace(Between(decide))
    assert len(exports) == 1
    assert "test_refusals.py:" in str(e.value) and "rewrite that line" in str(e.value)


def test_only_images_that_the_network_takes_are_tried(exports: list[Any]) -> None:
    """The first convolution that is found takes one channel; the network takes three."""

    class Unused(Between):
        def modules(self, remove_duplicate: bool = True) -> Iterator[nn.Module]:
            yield nn.Conv2d(1, 1, 1)
            yield from super().modules(remove_duplicate)

    network = Unused(decide)
    with pytest.raises(UnsupportedModel):
        trace(network)
    assert [arguments[1][0].shape[1] for arguments in exports] == [3]


def test_a_network_that_fails_itself_says_so(exports: list[Any]) -> None:
    def fail(y: Tensor) -> Tensor:
        raise RuntimeError(f"no weights were downloaded{chr(10)}for {len(y)} images")

    with pytest.raises(UnsupportedModel) as e:
        trace(Between(fail))
    assert str(e.value).startswith(
        "Between itself fails on a float64 image (1, 3, 6, 10): no weights were downloaded (at "
    )
    assert "for 1 images" not in str(e.value) and "whatever its height and width" in str(e.value)
    assert not exports


def test_a_network_that_fails_without_a_word() -> None:
    def fail(y: Tensor) -> Tensor:
        raise RuntimeError

    with pytest.raises(UnsupportedModel, match=r"itself fails .*: RuntimeError"):
        trace(Between(fail))


def test_attention_is_refused_before_the_rest_is_understood(exports: list[Any]) -> None:
    """Padding to a multiple of the window comes first, and is nothing that torch.fx's reader understands."""

    def attend(y: Tensor) -> Tensor:
        y = F.pad(y, (0, -y.shape[3] % 4, 0, -y.shape[2] % 4))
        return y * torch.softmax(y, dim=1)

    with pytest.raises(UnsupportedModel, match=r"^the network: softmax: it is curved"):
        trace(Between(attend))
    assert not exports


def refuse(model: nn.Module) -> None:
    graph = trace_symbolically(model).graph
    refuse_impossible(graph, frozenset(node.name for node in graph.nodes if node.op == "placeholder"))


def test_only_what_the_image_goes_through_is_refused() -> None:
    model = Between(torch.sigmoid)
    with pytest.raises(UnsupportedModel, match="sigmoid"):
        refuse(model)
    model.function = lambda y: y * torch.softmax(model.mix, 0)[:, None, None]  # weights
    refuse(model)
    model.function = lambda y: (torch.sigmoid(y), y)[1]  # not part of the result
    refuse(model)
    model.function = lambda y: y * torch.exp(model.mix[0] * y.shape[1])  # of a size
    refuse(model)
    model.function = lambda y: y.mean(1, keepdim=True) + y  # for which there is a word
    refuse(model)


def test_an_export_is_refused_before_it_is_taken_apart() -> None:
    with pytest.raises(UnsupportedModel, match="gelu: it is curved"):
        export_module(Between(F.gelu), 3)


def test_a_wrong_number_of_channels_has_a_type_of_its_own() -> None:
    builder = Builder(3, 0.0, 1.0)
    weight, bias = torch.zeros(2, 4, 3, 3).double(), torch.zeros(2).double()
    with pytest.raises(WrongChannels, match="takes 4 channels, is given 3"):
        builder.add(ir.Conv2d(name="a", inputs=(builder.input.op,), weight=weight, bias=bias))
    with pytest.raises(WrongChannels):
        builder.add(
            ir.ConvTranspose2d(name="b", inputs=(builder.input.op,), weight=weight, bias=bias, stride=1, padding=1)
        )
    with pytest.raises(UnsupportedModel) as e:
        builder.add(ir.PixelShuffle(name="c", inputs=(builder.input.op,), factor=2))
    assert not isinstance(e.value, WrongChannels)


def test_an_error_knows_whether_it_is_located() -> None:
    assert not Unreadable("a reshape loses elements").located
    with pytest.raises(Unreadable) as e:
        Builder(3, 0.0, 1.0).give_up("not read")
    assert e.value.located
