"""All that a network holds is put back after a run, wherever its code comes to it."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from functools import cached_property, lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from weakref import WeakValueDictionary, ref

import pytest
import torch
from torch import nn

from memsr_compiler.trace.kept.held_values import Held, leaving_nothing, putting_back


class Slotted:
    __slots__ = ("later", "value")
    later: int

    def __init__(self) -> None:
        self.value = 1


class Owner:
    @cached_property
    def made(self) -> list[int]:
        return []


class Kind(type):
    table: ClassVar[dict[str, int]] = {}


LATE: int
LOCAL, SPACE, SLOTTED, OWNER = threading.local(), SimpleNamespace(), Slotted(), Owner()
COUNTS, TENSOR, NORM = defaultdict[str, list[int]](list), torch.zeros(2), nn.BatchNorm2d(1)
WEAK = WeakValueDictionary[str, Owner]()


@lru_cache
def cached() -> dict[str, int]:
    return {}


class Keeping(nn.Module, metaclass=Kind):
    of_all: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.own: list[Any] = [(SLOTTED, {"by": ref(OWNER)})]
        count = 0

        def step(table: dict[str, int], /) -> None:
            nonlocal count
            count += 1
            table["steps"] = count

        self.step = partial(step, {})
        self.count = lambda: count

    @staticmethod
    def change() -> None:
        global LATE
        LATE = 1
        LOCAL.value, SPACE.value, SLOTTED.value, SLOTTED.later = 2, 2, 2, 2
        OWNER.made.append(1)
        COUNTS["a"].append(1)
        TENSOR.fill_(1)
        NORM.get_buffer("running_mean").fill_(1)
        WEAK["owner"] = OWNER
        cached()["a"] = 1
        Keeping.of_all.add(1)
        Keeping.added = 1  # type: ignore[attr-defined]
        Kind.table["a"] = 1
        Keeping.change.called = True  # type: ignore[attr-defined]
        globals()["BY_TEXT"] = 1

    def forward(self, x: Any) -> Any:
        self.change()
        self.step()
        self.own.append(1)
        self.later = x
        with torch.no_grad():
            self.weight.data.fill_(1)
        return x


def test_everything_is_put_back_as_it_was() -> None:
    network: Any = Keeping()
    with putting_back(network, weights=True) as held:
        network(3)
        assert network.count() == 1
        places = {str(change.place) for change in held.list_changes()}
    assert held.list_changes() == []
    assert {"Keeping.own", "Keeping.later", f"{__name__}.TENSOR", f"{__name__}.LOCAL.value"} <= places
    assert {"Kind.table.a", "Keeping.of_all", "Keeping.weight", f"{__name__}.LATE"} <= places
    assert not (vars(LOCAL) or vars(SPACE) or vars(OWNER) or COUNTS or Keeping.of_all or Kind.table or WEAK)
    assert SLOTTED.value == 1
    assert not hasattr(SLOTTED, "later")
    assert not any(bool(tensor.any()) for tensor in (TENSOR, NORM.get_buffer("running_mean"), network.weight))
    assert not cached()
    assert (network.count(), network.step.args, len(network.own)) == (0, ({},), 1)
    assert not hasattr(network, "later")
    assert not hasattr(Keeping, "added")
    assert not vars(Keeping.change)
    assert {"LATE", "BY_TEXT"}.isdisjoint(globals())


def test_as_it_was_and_as_it_is_again() -> None:
    network: Any = Keeping()
    held = Held([network], weights=True)
    network(3)
    with held.as_it_was():
        assert network.count() == 0
    assert network.count() == 1
    held.put_back()
    assert network.count() == 0
    assert leaving_nothing(network)(torch.ones(1)) == 1
    assert not hasattr(network, "later")


def test_what_is_imported_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would import it again; and packages that are installed have their own affairs."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    (tmp_path / "imported_later.py").write_text("")
    (folder / "logs_much.py").write_text("LINES = []\ndef log():\n    LINES.append(1)\n")
    code = "import logs_much\ndef run():\n    global imported_later\n    import imported_later\n    logs_much.log()\n"
    namespace: dict[str, Any] = {"__name__": "somebodys"}
    exec(code, namespace)
    network: Any = nn.Identity()
    network.run = namespace["run"]
    with putting_back(network):
        network.run()
    assert namespace["imported_later"] is sys.modules["imported_later"]
    assert sys.modules["logs_much"].LINES == [1]
    monkeypatch.delitem(sys.modules, "imported_later")
    monkeypatch.delitem(sys.modules, "logs_much")


def test_tables_by_tensors_are_put_back() -> None:
    """Whether one key is another is a tensor of answers, of which Python makes none."""
    network: Any = nn.Identity()
    key = torch.rand(2, 3)
    network.seen = {key: 1}
    with putting_back(network) as held:
        network.seen.clear()
        network.seen[torch.rand(2, 3)] = 1
        assert len(held.list_changes()) == 1
    assert next(iter(network.seen)) is key
