"""What code does is asked of the objects themselves, not of their names; and what it leaves behind is the user's."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.module import register_module_forward_hook

from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.trace.approximate.freeze import find_places
from memsr_compiler.trace.trace import trace

LIMIT = 100


class Net(nn.Module):
    """Code of known forms, which does the same at every size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(F.relu(self.head(x))), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def warned(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)


# -- kinds of tensors and numbers with methods of their own: a proxy has none of these -----------------------


class Weight(nn.Parameter):
    def times(self, x: Tensor) -> Tensor:
        return torch.mul(self, x) * 2 if x.shape[2] > LIMIT else torch.mul(self, x)

    def mul(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.times(x)

    def __rmul__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.times(x)


class Tagged(nn.Parameter):
    """One that only says more of itself."""

    def __repr__(self) -> str:  # type: ignore[override]
        return "a gain"


class Unit(int):
    def __rmul__(self, other: Any) -> Any:
        return other * int(self)


class Multiplied(Net):
    def __init__(self, by: Any, multiply: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.by, self.multiply = by, multiply

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.multiply(self.body(x), self.by)
        return y


@pytest.mark.parametrize("multiply", [lambda y, by: by.mul(y), lambda y, by: y * by])
def test_parameters_with_methods_of_their_own(
    multiply: Callable[[Any, Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    traced = trace(Multiplied(Weight(torch.tensor(0.7)), multiply).eval())
    assert traced.assumed == ("Weight does the same to every image",)
    assert "at 260x1 it gives something else than what was read" in warned(caplog)


def test_numbers_with_operators_of_their_own() -> None:
    assert trace(Multiplied(Unit(2), lambda y, by: y * by).eval()).assumed == ("Unit does the same to every image",)


def test_parameters_that_only_show_themselves_otherwise() -> None:
    assert trace(Multiplied(Tagged(torch.tensor(0.7)), lambda y, by: y * by).eval()).assumed == ()


# -- norms that write their statistics into buffers ----------------------------------------------------------


class Normed(Net):
    def __init__(self, note: Callable[..., Any]) -> None:
        super().__init__()
        self.register_buffer("m", torch.zeros(3))
        self.register_buffer("v", torch.ones(3))
        self.note = note

    def forward(self, x: Tensor) -> Tensor:
        self.note(x, self.m, self.v)
        y = self.body(x)
        return y * 2 if self.get_buffer("v").max() < 0.001 else y


@pytest.mark.parametrize(
    "note",
    [
        lambda x, m, v: F.batch_norm(x, m, v, training=True, momentum=1.0),
        lambda x, m, v: F.batch_norm(x, running_mean=m, running_var=v, training=True),
        lambda x, m, v: F.instance_norm(x, m, v, momentum=1.0),
        lambda x, m, v: torch.batch_norm(x, None, None, m, v, True, 1.0, 1e-5, False),
        lambda x, m, v: torch.amax(x.expand(-1, 3, -1, -1)[0], (1, 2), out=v),
        lambda x, m, v: torch._foreach_copy_([m.clone(), v], [m, x.amax((0, 2, 3))]),
    ],
)
def test_statistics_that_are_written_into_buffers(note: Callable[..., Any]) -> None:
    with pytest.raises(UnsupportedModel, match="it writes something of the image into a tensor that the network keeps"):
        trace(Normed(note).eval())


# -- names that are somebody's own ---------------------------------------------------------------------------


class Small(IndexError):
    pass


class Missing(AttributeError):
    pass


class Stages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, Any] = {}

    def __getitem__(self, at: int) -> Callable[[Tensor], Tensor]:
        if self.held["x"].shape[2] > LIMIT:
            raise Small
        if at == 2:
            raise IndexError
        return F.relu


class Staged(Net):
    def __init__(self) -> None:
        super().__init__()
        self.stages = Stages()

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        self.stages.held["x"] = x
        for stage in self.stages:  # type: ignore[attr-defined]
            y = stage(y)
        return F.pixel_shuffle(self.tail(y), 2)


class Falling(Net):
    """Falls back to the module of that name where the property has none."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, Any] = {}
        self._modules["end"] = nn.Conv2d(4, 12, 3, padding=1)

    @property
    def end(self) -> nn.Module:
        if self.held["x"].shape[2] > LIMIT:
            raise Missing
        return self.tail

    def forward(self, x: Tensor) -> Tensor:
        self.held["x"] = x
        return F.pixel_shuffle(self.end(self.head(x)), 2)


class Noting(Net):
    def __init__(self) -> None:
        super().__init__()
        self.notes = ["0"]

    def info(self, text: str) -> None:
        self.notes[0] = text

    def forward(self, x: Tensor) -> Tensor:
        self.info(f"{x.shape[2]}")
        y = self.body(x)
        return y * 2 if self.notes[0] == "128" else y


class Flagging(Net):
    def __init__(self) -> None:
        super().__init__()
        self.flags = [1.0]

    def any(self, _: Tensor) -> bool:
        self.flags[0] = 2.0
        return True

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] < LIMIT or self.any(x)
        return self.body(x) * self.flags[0]


@pytest.mark.parametrize("kind", [Staged, Falling, Noting, Flagging])
def test_what_has_the_name_of_something_harmless_is_looked_at(
    kind: type[Net], caplog: pytest.LogCaptureFixture
) -> None:
    try:
        trace(kind().eval())
    except UnsupportedModel:
        return
    assert f"{kind.__name__} " in warned(caplog) and "decides by the size of the image" in warned(caplog)


class Telling(Net):
    def __init__(self) -> None:
        super().__init__()
        self.log = logging.getLogger("somebody's")

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ValueError(f"{x.dim()} axes")
        self.log.debug(f"{x.shape[2]} rows")
        return self.body(x)


def test_what_tells_a_person_is_read_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    trace(Telling().eval())
    assert "decides" not in warned(caplog)


# -- hooks, and what is left behind --------------------------------------------------------------------------


def test_a_hook_for_every_module_is_refused() -> None:
    handle = register_module_forward_hook(lambda module, given, y: None)
    try:
        with pytest.raises(InvalidInput, match="torch has a hook for every module"):
            trace(Net().eval())
    finally:
        handle.remove()


class Registered(Net):
    known: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls) -> None:
        assert cls.__name__ not in Registered.known, "registered twice"
        Registered.known[cls.__name__] = cls


class Scaled(Registered):
    def forward(self, x: Tensor, scale: int = 2) -> Tensor:
        return self.body(x) * scale


def test_no_class_is_made_of_the_networks() -> None:
    assert trace(Scaled().eval()).assumed == ()
    assert Registered.known == {"Scaled": Scaled}


KEPT: dict[str, Tensor] = {}


class Keeping(Net):
    def forward(self, x: Tensor) -> Tensor:
        if "kernel" not in KEPT:
            KEPT["kernel"] = self.head.weight * 2
        return F.pixel_shuffle(self.tail(F.conv2d(x, KEPT["kernel"], padding=1)), 2)


def test_what_is_kept_outside_is_of_the_networks_own_type() -> None:
    network = Keeping().eval()
    KEPT.clear()
    trace(network)
    assert network(torch.rand(1, 3, 5, 5)).dtype == torch.float32


class Recalling(Net):
    """Decides by what it saw before."""

    def __init__(self, note: Callable[[Tensor], Any], asks: Callable[[Any], bool]) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}
        self.note, self.asks = note, asks

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if "last" in self.state and self.asks(self.state["last"]):
            y = y * 2
        self.state["last"] = self.note(x)
        return y


@pytest.mark.parametrize(
    ("note", "asks"),
    [
        (lambda x: x.shape[2], lambda last: last > LIMIT),
        (lambda x: x.amin(), lambda last: last > 0.95),
        (lambda x: x.amax(), lambda last: last < 0.1),
    ],
)
def test_what_is_recalled_of_other_images_is_refused(
    note: Callable[[Tensor], Any], asks: Callable[[Any], bool]
) -> None:
    with pytest.raises(UnsupportedModel, match="after it has seen another: it remembers"):
        trace(Recalling(note, asks).eval())


class Itself(nn.Conv2d):
    def __deepcopy__(self, memo: dict[int, Any]) -> Itself:
        return self


def test_a_copy_that_is_the_network_itself_is_refused() -> None:
    network = nn.Sequential(Itself(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
    with pytest.raises(InvalidInput, match=r"^0\.weight: a copy of the network has the same tensor"):
        trace(network)
    assert next(network.parameters()).dtype == torch.float32


class FewRows(Net):
    """Asks for the length of an axis that is another number at small images alone."""

    def forward(self, x: Tensor) -> Tensor:
        y, rows = self.body(x), x.permute(0, 2, 3, 1)[:, :5]
        return y * 2 if rows.shape[1] < 5 else y


class RestOfRows(Net):
    """The same, where no window divides them."""

    def forward(self, x: Tensor) -> Tensor:
        y, rows = self.body(x), x.permute(0, 2, 3, 1)[:, x.shape[2] // 48 * 48 + 7 :]
        return y * 2 if rows.shape[1] > 0 else y


@pytest.mark.parametrize("kind", [FewRows, RestOfRows])
def test_an_axis_that_has_one_length_at_some_sizes_only(kind: type[Net], caplog: pytest.LogCaptureFixture) -> None:
    try:
        trace(kind().eval())
    except UnsupportedModel:
        return
    assert re.search(
        "decides by the size|runs other operations at|gives something else than what was read", warned(caplog)
    )


# -- where torch makes its tensors ---------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def test_another_device_by_default_is_told(elsewhere: None) -> None:
    with torch.device("cpu"):
        network = Net().eval()
    with pytest.raises(InvalidInput, match=r"new tensors on 'meta' here .* call torch\.set_default_device\('cpu'\)"):
        trace(network)


def test_tensors_without_numbers_are_told() -> None:
    network = Net().eval()
    with FakeTensorMode(), pytest.raises(InvalidInput, match=r"a FakeTensor of every tensor here"):
        trace(network)


# -- what classes hold ---------------------------------------------------------------------------------------


class Options:
    def __init__(self) -> None:
        self.seen: Any = None


class Holding(Net):
    """Keeps what it sees in its class, wherever there is a place."""

    last: Any = None
    table: ClassVar[dict[str, Any]] = {"first": 1}
    tables: ClassVar[dict[str, Any]] = {"inner": {}, "set": {1}}
    features: ClassVar[list[Any]] = [0]
    options: ClassVar[Options] = Options()

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        kind: Any = type(self)
        kind.last = kind.other = y
        self.table["y"] = self.tables["inner"]["y"] = self.options.seen = y
        self.tables["set"].add(y.shape)
        self.features.append(y)
        return F.pixel_shuffle(self.tail(F.relu(y)), 2)


class Stopping(Holding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.sin(x))


def require_as_they_were() -> None:
    assert Holding.last is None and not hasattr(Holding, "other")
    assert Holding.table == {"first": 1} and Holding.tables == {"inner": {}, "set": {1}}
    assert Holding.features == [0] and Holding.options.seen is None
    assert "last" not in vars(Stopping) and "other" not in vars(Stopping)


def test_classes_are_left_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    """They held proxies of torch.fx, and tensors of float64, which the next run of the network would have met."""
    traced = trace(Holding().eval())
    assert "Holding.forward does the same to every image" in traced.assumed
    require_as_they_were()
    with pytest.raises(UnsupportedModel):
        trace(Stopping().eval())
    require_as_they_were()
    find_places(Stopping().eval())
    require_as_they_were()
