"""Networks that keep something of one image for the next, where neither weights nor attributes show it."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.trace.kept.remembered import keeps_values
from memsr_compiler.trace.samples import Sample
from memsr_compiler.trace.trace import trace


def brightness(x: Tensor) -> Tensor:
    """0 for noise, and for what is darker."""
    return F.relu(x.amin() - 0.5)


def make_step() -> Callable[[Tensor], Tensor]:
    last = torch.zeros(1)

    def step(value: Tensor) -> Tensor:
        nonlocal last
        before, last = last, value
        return before

    return step


class Net(nn.Module):
    def __init__(self, recall: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
        self.memo: list[Tensor] = [torch.zeros(1)]
        self.table = {"last": torch.zeros(1)}
        self.step = make_step()
        self.recall = recall

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(F.relu(self.a(x))), 2) + self.recall(self, x)


NOTHING_YET = [torch.zeros(1)]
NOTHING: list[Tensor] = []


def by_closure(net: Net, x: Tensor) -> Tensor:
    return net.step(brightness(x))


def by_default(net: Net, x: Tensor, memo: list[Tensor] = NOTHING_YET) -> Tensor:
    memo.append(brightness(x))
    return memo[-2]


def by_another_name(net: Net, x: Tensor) -> Tensor:
    memo = net.memo
    memo.append(brightness(x))
    return memo[-2]


def by_a_sum(net: Net, x: Tensor) -> Tensor:
    memo = net.memo
    memo += [brightness(x)]
    return memo[-2]


def by_a_union(net: Net, x: Tensor) -> Tensor:
    table, before = net.table, net.table["last"]
    table |= {"last": brightness(x)}
    return before


def by_colour(net: Net, x: Tensor) -> Tensor:
    """What no grey image leaves."""
    before, net.memo[0] = net.memo[0], F.relu(x[:, 0].amin() - x[:, 2].amax())
    return before


def at_some_levels(net: Net, x: Tensor) -> Tensor:
    """What neither noise nor a flat image leaves, black or white."""
    mean = F.avg_pool2d(x, 5, 1).mean(1)
    before, net.memo[0] = net.memo[0], (F.relu(mean - 0.9) - 2 * F.relu(mean - 0.94) + F.relu(mean - 0.98)).amax()
    return before


@pytest.mark.parametrize(
    "recall", [by_closure, by_default, by_another_name, by_a_sum, by_a_union, by_colour, at_some_levels]
)
def test_what_is_kept_of_one_image_for_the_next_is_refused(recall: Callable[[Net, Tensor], Tensor]) -> None:
    with pytest.raises(UnsupportedModel, match=r"it remembers, as networks for films do|it takes a part of the batch"):
        trace(Net(recall).eval())


TABLE: dict[str, Tensor] = {}
LAST: Tensor | None = None


class ByClass(Net):
    """The mean of the first image, of all images that are alike."""

    means: ClassVar[dict[str, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        if not self.means:
            self.means["rgb"] = x.mean((0, 2, 3), keepdim=True)
        return super().forward(x - self.means["rgb"])


class ByTable(Net):
    def forward(self, x: Tensor) -> Tensor:
        if "darkest" not in TABLE:
            TABLE["darkest"] = brightness(x)
        return super().forward(x) + TABLE["darkest"]


class ByGlobal(Net):
    def forward(self, x: Tensor) -> Tensor:
        global LAST
        if LAST is None:
            LAST = brightness(x)
        return super().forward(x) + LAST


class ByDefault(Net):
    def forward(self, x: Tensor, memo: list[Tensor] = NOTHING) -> Tensor:
        if not memo:
            memo.append(brightness(x))
        return super().forward(x) + memo[0]


class BySize(Net):
    """A table of borders that are made once for each size: the same whatever image came first."""

    borders: ClassVar[dict[str, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        if "one" not in self.borders:
            self.borders["one"] = torch.ones(1, dtype=torch.float64)
        return super().forward(x) * self.borders["one"].to(x)


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (ByClass, "ByClass.means.rgb"),
        (ByTable, f"{__name__}.TABLE.darkest"),
        (ByGlobal, f"{__name__}.LAST"),
        (ByDefault, "ByDefault.forward.memo"),
    ],
)
def test_what_is_kept_of_the_first_image_for_all_others_is_refused(kind: type[Net], place: str) -> None:
    """What is kept outside of a network, its copies find: they would all have that of ours."""
    for _ in range(2):
        with pytest.raises(UnsupportedModel, match=f"keeps something of the first image that it sees, in {place}, and"):
            trace(kind(lambda net, x: torch.zeros(1)).eval())
    assert not ByClass.means and not TABLE and LAST is None and not NOTHING


class OfTheClass(Net):
    kept: ClassVar[dict[str, Tensor]] = {}

    @classmethod
    def level(cls, x: Tensor) -> Tensor:
        if "mean" not in cls.kept:
            cls.kept["mean"] = x.mean()
        return cls.kept["mean"]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.level(x)


class Mixed:
    """A class that is no module, and has no `forward`."""

    kept: ClassVar[dict[str, Tensor]] = {}

    def level(self, x: Tensor) -> Tensor:
        if "mean" not in self.kept:
            self.kept["mean"] = x.mean()
        return self.kept["mean"]


class ByAnother(Mixed, Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.level(x)


class ByAHelper(Net):
    def __init__(self, recall: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__(recall)
        self.helper = Mixed()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.helper.level(x)


class ByAFunctionWithin(Net):
    kept: ClassVar[list[Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        def level(x: Tensor) -> Tensor:
            if not ByAFunctionWithin.kept:
                ByAFunctionWithin.kept.append(x.mean())
            return ByAFunctionWithin.kept[0]

        return super().forward(x) + level(x)


class ByACell(Net):
    def __init__(self, recall: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__(recall)
        mean = None

        def level(x: Tensor) -> Tensor:
            nonlocal mean
            if mean is None:
                mean = x.mean()
            return mean

        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.level(x)


class ByAHook(Net):
    def __init__(self, recall: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__(recall)
        seen: list[Tensor] = []

        def calibrate(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            if not seen:
                seen.append(inputs[0].mean())
            return output + seen[0]

        self.a.register_forward_hook(calibrate)


class ByColour(Net):
    """What neither a dark image leaves nor a bright one."""

    kept: ClassVar[list[Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.kept:
            self.kept.append(F.relu(x[:, 0].amin() - x[:, 2].amax()))
        return super().forward(x) + self.kept[0]


class ByAnAttribute(Net):
    level: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.level is None:
            self.level = x.mean()
        return super().forward(x) + self.level


STATE, BEGUN = torch.zeros(1), [False]


class IntoATensor(Net):
    def forward(self, x: Tensor) -> Tensor:
        if not BEGUN[0]:
            STATE.copy_(x.mean().float())
            BEGUN[0] = True
        return super().forward(x) + STATE


@lru_cache
def store() -> dict[str, Tensor]:
    return {}


class ByACache(Net):
    def forward(self, x: Tensor) -> Tensor:
        if "mean" not in store():
            store()["mean"] = x.mean()
        return super().forward(x) + store()["mean"]


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (OfTheClass, ", in OfTheClass.kept.mean"),
        (ByAnother, ", in Mixed.kept.mean"),
        (ByAHelper, ", in Mixed.kept.mean"),
        (ByAFunctionWithin, ", in ByAFunctionWithin.kept"),
        (ByACell, ", in ByACell.__init__.<locals>.level.mean"),
        (ByAHook, ", in ByAHook.__init__.<locals>.calibrate.seen"),
        (ByColour, ", in ByColour.kept"),
        (ByAnAttribute, ", in ByAnAttribute.level"),
        (IntoATensor, f", in {__name__}.STATE"),
        (ByACache, ", in store.mean"),
    ],
)
def test_so_it_is_wherever_code_keeps_it(kind: type[Net], place: str) -> None:
    network = kind(lambda net, x: torch.zeros(1)).eval()
    assert not store()  # which is kept itself from now on
    for _ in range(2):
        with pytest.raises(UnsupportedModel, match=f"something of the first image that it sees{re.escape(place)}, and"):
            trace(network)
    assert not (OfTheClass.kept or Mixed.kept or ByAFunctionWithin.kept or ByColour.kept or BEGUN[0] or store())
    assert network.level is None if isinstance(network, ByAnAttribute) else float(STATE) == 0


def test_tables_that_any_image_would_fill_alike_are_not() -> None:
    network = BySize(lambda net, x: torch.zeros(1)).eval()
    trace(network)
    assert not BySize.borders


def test_lists_that_code_makes_itself_end_with_it() -> None:
    def gathers(x: Tensor) -> list[Tensor]:
        features = []
        by_name: dict[str, Tensor] = {}
        for _ in range(3):
            features.append(x)
            by_name.update(x=x)
        return features

    def gathers_elsewhere(x: Tensor, features: list[Tensor]) -> list[Tensor]:
        features.append(x)
        return features

    assert not keeps_values(gathers.__code__)
    assert keeps_values(gathers_elsewhere.__code__)
    for recall in (by_default, by_another_name, by_a_sum, by_a_union, by_colour, at_some_levels):
        assert keeps_values(recall.__code__), recall.__name__


class ByWeight(nn.Module):
    """Tables by tensors, which are not compared as other keys are."""

    kept: ClassVar[list[dict[Tensor, Tensor]]] = [{}]

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.kept[0]:
            self.kept[:] = [{self.conv.weight: x.mean()}]
        return F.pixel_shuffle(self.conv(x) + next(iter(self.kept[0].values())), 2)


def test_a_table_by_tensors_is_named() -> None:
    with pytest.raises(UnsupportedModel, match=r"keeps something of the first image that it sees, in ByWeight\.kept"):
        trace(ByWeight().eval())


class Doubled(nn.Module):
    """Doubles what has 260 rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (2 if len(x[0, 0]) == 260 else 1)


def add_first(module: nn.Module, x: tuple[Tensor, ...], result: Tensor) -> Tensor:
    first: Tensor = vars(module).setdefault("first", brightness(x[0]))
    return result + first


def test_a_network_of_ours_is_tried_on_where_code_of_others_is_within(caplog: pytest.LogCaptureFixture) -> None:
    """Such code is what asks for sizes and remembers: of a network that has none, this is not asked."""
    sizes: list[tuple[int, int]] = []

    def note_size(_: nn.Module, image: Tensor) -> Sample:
        sizes.append((image.shape[2], image.shape[3]))
        raise RuntimeError

    with mock.patch("memsr_compiler.trace.trace.take_sample", note_size):
        trace(EDSR(scale=2, blocks=1, channels=4).eval())
        assert not sizes
        trace(nn.Sequential(Doubled(), EDSR(scale=2, blocks=1, channels=4)).eval())
        assert (260, 1) in sizes
    trace(nn.Sequential(Doubled(), EDSR(scale=2, blocks=1, channels=4)).eval())
    assert "at 260x1 it gives something else" in caplog.text
    hooked = EDSR(scale=2, blocks=1, channels=4).eval()
    hooked.sub_mean.register_forward_hook(add_first)
    with pytest.raises(UnsupportedModel, match="keeps something of the first image"):
        trace(hooked)
    given = EDSR.forward
    with mock.patch.object(EDSR, "forward", lambda self, x: given(self, Doubled()(x))):
        caplog.clear()
        trace(EDSR(scale=2, blocks=1, channels=4).eval())
    assert "at 260x1 it gives something else" in caplog.text
    caplog.clear()
    lent = nn.Conv2d(3, 12, 3, padding=1)
    vars(lent)["forward"] = fx.GraphModule(lent, make_doubling()).forward
    trace(nn.Sequential(lent, nn.PixelShuffle(2)).eval())
    assert "at 260x1 it gives something else" in caplog.text


def make_doubling() -> fx.Graph:
    """Twice a convolution of what has 260 rows, and the convolution itself of others, in code that torch.fx writes."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    rows = graph.call_function(getattr, (x, "shape"))
    tall = graph.call_function(operator.eq, (graph.call_function(operator.getitem, (rows, 2)), 260))
    kernel, bias = graph.get_attr("weight"), graph.get_attr("bias")
    y = graph.call_function(F.conv2d, (x, kernel, bias), {"padding": 1})
    graph.output(graph.call_function(operator.mul, (y, graph.call_function(operator.add, (tall, 1)))))
    return graph
