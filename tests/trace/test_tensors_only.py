"""Code that takes anything but tensors out of tensors: whatever it makes of that, the reader is told of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.trace.own_code.tensors_only import mark_image
from memsr_compiler.trace.own_code.unheard import noting_code
from memsr_compiler.trace.trace import trace

LIMIT = 64


class Net(nn.Module):
    """What is done beside the convolutions, its subclasses decide."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))
        self.kept: dict[str, Any] = {"large": True, "side": 0}

    def body(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(F.relu(self.a(x))), 2)


def told(network: nn.Module, caplog: pytest.LogCaptureFixture) -> str:
    """What reading a network says: its refusal, or its warnings; none where nothing is said."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        try:
            trace(network.eval())
        except (InvalidInput, UnsupportedModel) as refusal:
            return str(refusal)
    return "\n".join(record.getMessage() for record in caplog.records)


class IsOfATable(Net):
    """A comparison is no member of a table; torch.fx's symbol is never one."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y * 2 if (x.shape[2] > LIMIT) is self.kept["large"] else y


class Done(IndexError):
    """An end of a loop, by a name of its own."""


class Stages(nn.Module):
    """As many stages as the image is small."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def __getitem__(self, i: int) -> nn.Module:
        if self.seen[-1].shape[2] > LIMIT:
            raise Done
        return self.convs[i]


class EndsALoop(Net):
    def __init__(self) -> None:
        super().__init__()
        self.stages: Any = Stages()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        self.stages.seen.append(y)
        for stage in self.stages:
            y = F.relu(stage(y))
        return F.pixel_shuffle(self.tail(y), 2)


class Weight(nn.Parameter):
    """Multiplies as it likes."""

    def mul(self, other: Tensor) -> Tensor:  # type: ignore[override]
        return torch.mul(self, other) * (2 if other.shape[2] > LIMIT else 1)


class OfOwnWeight(Net):
    def __init__(self) -> None:
        super().__init__()
        self.weight = Weight(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.mul(self.body(x))


class ByStatistics(Net):
    """The image goes into the buffers of a norm whose result nobody needs."""

    def forward(self, x: Tensor) -> Tensor:
        F.batch_norm(x, self.mean, self.var, training=True, momentum=1.0)
        y = self.body(x)
        return y * 2 if bool(self.var.max() < 0.001) else y


class ByTheImageBefore(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y = y * 2 if self.kept["side"] > LIMIT else y
        self.kept["side"] = x.shape[2]
        return y


class InAnAssertion(Net):
    def any(self, x: Tensor) -> bool:
        self.kept["side"] = 1
        return True

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] < LIMIT or self.any(x)
        y = self.body(x)
        return y * 2 if self.kept["side"] else y


class InAnAssertionByItsName(InAnAssertion):
    """What stands in a list is not known by what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.tools: list[Any] = [Noting(self.kept)]

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] < LIMIT or self.tools[0].any(x)
        y = self.body(x)
        return y * 2 if self.kept["side"] else y


class Noting:
    def __init__(self, kept: dict[str, Any]) -> None:
        self.kept = kept

    def any(self, x: Tensor) -> bool:
        self.kept["side"] = 1
        return True


class OfRows(Net):
    """Rows stand in the place of channels, and there are five at most."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1)[:, :5]
        y = self.body(x)
        return y * 2 if rows.shape[1] < 5 else y


class ByWhichIsWhich(Net):
    """Where an image is laid out as it is to be, `contiguous` gives that itself."""

    def forward(self, x: Tensor) -> Tensor:
        z = x[:, :, -6:3].transpose(2, 3)
        y = self.body(x)
        return y * len({z: 0, z.contiguous(): 0})


def list_layouts(x: Tensor) -> tuple[Any, Any]:
    """Two tensors that are one where the image has no more than seven rows, as samples have."""
    z = x[:, :, 7:].transpose(2, 3)
    return z, z.contiguous()


def is_among_others(x: Tensor) -> bool:
    z, laid = list_layouts(x)
    return laid in [z]


def is_in_a_place(x: Tensor) -> bool:
    z, laid = list_layouts(x)
    return [z].index(laid) == 0


def is_counted(x: Tensor) -> bool:
    z, laid = list_layouts(x)
    return [z].count(laid) > 0


def is_in_the_same_list(x: Tensor) -> bool:
    z, laid = list_layouts(x)
    return [z] == [laid]


def comes_first(x: Tensor) -> bool:
    z, laid = list_layouts(x)
    return (z, 1) < (laid, 2)


@pytest.mark.parametrize("asks", [is_among_others, is_in_a_place, is_counted, is_in_the_same_list, comes_first])
def test_which_of_two_tensors_are_one_is_asked_of_them(asks: Callable[[Tensor], bool]) -> None:
    """Python compares by identity first, of which torch hears nothing."""
    with noting_code(Net().eval()) as noted:
        for rows in (6, 7):
            assert asks(torch.full((1, 3, rows, 5), 0.5))
    assert noted.asking == asks.__name__


def test_what_torch_gives_back_is_still_the_image_and_a_parameter_one(caplog: pytest.LogCaptureFixture) -> None:
    class Casts(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = x.contiguous().to(x.dtype)
            self.mean = self.mean.to(x.dtype)
            y = F.relu(x + 1, inplace=True)
            y += (x == x.contiguous()).to(x.dtype)
            return self.body(y.clamp_(0, 1) if x.shape[1] == 3 else x)

    network = Casts().eval()
    with noting_code(network) as noted:
        y = network(mark_image(torch.rand(1, 3, 5, 5)))
        weight = network.a.weight.contiguous()
    assert weight is network.a.weight and not noted.asking and not noted.unknown
    assert torch.equal(y, network(torch.ones(1, 3, 5, 5)))


def test_tensors_without_memory_stay_what_they_are() -> None:
    """Sparse ones, and those of torch.vmap, of which nobody can be told where they are."""
    with noting_code(Net().eval()):
        assert torch.eye(3).to_sparse().coalesce().coalesce().is_sparse
        assert torch.ones(2, 2).to_mkldnn().contiguous().is_mkldnn
        assert torch.vmap(lambda x: (x == x).float())(torch.ones(2, 3)).sum() == 6


class ByAMethodInPython(Net):
    """torch has `Tensor.__len__` and others in Python, and calls them for the code."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y * 2 if type(x) is Tensor and len(x[0, 0]) > LIMIT else y


class ByAxes(Net):
    """There are three, where one side is a pixel."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y * 2 if x.squeeze(2).dim() == 3 else y


class CallsItself(Net):
    """What it then gives itself is no image."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kept["large"]:
            self.kept["large"] = False
            self(x.permute(0, 2, 3, 1)[:, :5])
            self.kept["large"] = True
        elif x.size(1) < 5:
            self.kept["side"] = 1
        return self.body(x) * (2 if self.kept["side"] else 1) if x.size(1) == 3 else x


class ByHowManyParts(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        parts: Any = x
        return y * 2 if type(x) is Tensor and len(parts.split(100, 2)) > 1 else y


class Kind(Tensor):
    """A tensor of which `relu` is another."""

    def new_empty(self, *size: Any, **options: Any) -> Any:
        return super().new_empty(*size, **options).as_subclass(Kind)

    def relu(self) -> Tensor:
        return torch.relu(self) * 2


class OfOwnKind(Net):
    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.zeros(1).as_subclass(Kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.body((x + self.shift).relu())


class Rows(nn.Module):
    """An image by its rows; of one that is not there torch says so by an IndexError, which ends a loop."""

    seen: list[Tensor]

    def __getitem__(self, i: int) -> Tensor:
        return self.seen[0][:, :, i]


class ByTheEndOfRows(Net):
    def __init__(self) -> None:
        super().__init__()
        self.rows: Any = Rows()

    def forward(self, x: Tensor) -> Tensor:
        self.rows.seen = [x]
        y = self.body(x)
        for _ in zip(range(5), self.rows, strict=False):
            y = y * 2
        return y


@pytest.mark.parametrize(
    "network",
    [
        IsOfATable, EndsALoop, OfOwnWeight, ByStatistics, ByTheImageBefore, InAnAssertion,
        InAnAssertionByItsName, OfRows, ByWhichIsWhich, ByAMethodInPython, ByAxes, CallsItself,
        ByHowManyParts, OfOwnKind, ByTheEndOfRows,
    ],
)  # fmt: skip
def test_what_decides_by_more_than_tensors_is_told(network: type[nn.Module], caplog: pytest.LogCaptureFixture) -> None:
    assert told(network(), caplog)


def test_a_parameter_with_attributes_is_not_what_its_copy_is(caplog: pytest.LogCaptureFixture) -> None:
    class Plain(Net):
        def __init__(self) -> None:
            super().__init__()
            self.weight: Any = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.body(x) * self.weight
            return y

    network = Plain()
    assert not told(network, caplog)
    network.weight.unit = 3
    assert told(network, caplog)


@pytest.mark.parametrize("takes", [lambda y: y.chunk(2, 1), lambda y: y.split(2, 1), lambda y: y.unbind(1)[:2]])
def test_parts_may_be_taken_by_their_number(takes: Callable[[Any], Any], caplog: pytest.LogCaptureFixture) -> None:
    """As IMDN does.  What takes a part of how many there are is told."""

    class Parts(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.a(x))
            a, b = y.chunk(2, dim=1)
            return F.pixel_shuffle(self.tail(torch.cat([b, a.relu()], 1)), 2)

    class ByAFunction(Parts):
        def forward(self, x: Tensor) -> Tensor:
            parts = takes(self.a(x))
            return self.body(x) * len(parts)

    assert not told(Parts(), caplog)
    assert told(ByAFunction(), caplog)


def test_hooks_of_all_modules_are_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    class Plain(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    def double(module: nn.Module, _: Any, result: Tensor) -> Any:
        return result * 2 if isinstance(module, Plain) and result.shape[2] > LIMIT else None

    assert not told(Plain(), caplog)
    hook = nn.modules.module.register_module_forward_hook(double)
    try:
        assert told(Plain(), caplog)
    finally:
        hook.remove()


@pytest.mark.parametrize(
    "factor",
    [
        lambda n: (n + 3) // 4,
        lambda n: 1 + (n >> 2),
        lambda n: 1 + (n - 1 > 3),
        lambda n: 1 + (n - 1) * (n - 2) * (n - 3),
    ],
)
def test_arithmetic_with_how_many_images_there_are_is_told(
    factor: Callable[[int], int], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it shows for one to three images."""

    class Counts(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) * factor(x.shape[0])

    assert told(Counts(), caplog)


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: x.shape[1],
        lambda x: x.shape[-3],
        lambda x: x.size(1),
        lambda x: x.size(dim=1),
        lambda x: 3 if x.dim() == 4 else 0,
        lambda x: 3 if x.ndim == 4 else 0,
    ],
)
def test_what_is_the_same_of_every_image_may_be_asked(
    asks: Callable[[Tensor], int], caplog: pytest.LogCaptureFixture
) -> None:
    class Careful(Net):
        def forward(self, x: Tensor) -> Tensor:
            if asks(x) != 3:
                raise ValueError("three channels are wanted")
            return self.body(x)

    assert not told(Careful(), caplog)


def test_uses_of_sizes_are_assumed_to_be_alike(caplog: pytest.LogCaptureFixture) -> None:
    """A pixel shuffle by hand is read, and right; what else code could make of a size, no tracer can exclude."""

    class ByHand(Net):
        def forward(self, x: Tensor) -> Tensor:
            n, _, h, w = x.shape
            y: Tensor = self.tail(F.relu(self.a(x))).view(n, 3, 2, 2, h, w)
            return y.permute(0, 1, 4, 2, 5, 3).reshape(n, 3, 2 * h, 2 * w)

    assert "ByHand.forward does the same to every image" in told(ByHand(), caplog)


class Demanding(Net):
    """Refuses images of other channels, which are tried too, and says what it was given."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:  # an assertion would be written anew by pytest
            raise ValueError(f"not of three channels: {tuple(x.shape)}")
        y = self.body(x)
        if y.shape[2] < 2:
            raise ValueError("too small")
        return y


class RaisesOneOfTwo(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        try:
            raise Done if y.shape[2] > 2 * LIMIT else ValueError(y.shape)
        except Done:
            return y * 2
        except ValueError:
            return y


def test_what_is_asked_to_refuse_an_image_decides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert told(Demanding(), caplog) == ""
    assert told(RaisesOneOfTwo(), caplog)
