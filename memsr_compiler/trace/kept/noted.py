"""Things that code can change, noted as they are: what of them is another later, and how to put that back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import CellType, MemberDescriptorType, ModuleType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

ABSENT: Any = object()
"""In the place of what there is not."""


class Place(NamedTuple):
    """Where something is held: a name within another place.

    outside   whether copies of a network have it in common with the network
    """

    name: object
    within: Place | None
    outside: bool

    def __str__(self) -> str:
        if self.within is None:
            return str(self.name)
        by_name = isinstance(self.name, str) and self.name.replace(".", "").isidentifier()
        return f"{self.within}.{self.name}" if by_name else f"{self.within}[{self.name!r}]"

    def inside(self, name: object) -> Place:
        """The place of this name in it."""
        return Place(name, self, self.outside)


class Change(NamedTuple):
    """Something that is not as it was: where, and what there is now."""

    place: Place
    now: object


class Noted(Protocol):
    """Something that was noted."""

    def changes(self) -> Iterator[Change]:
        """List all of it that is not as it was."""

    def put_back(self) -> None:
        """Make it what it was."""


@dataclass
class NotedContainer:
    """A list, a set or a table, that of an object's attributes for one."""

    place: Place
    container: Any
    values: Any

    @classmethod
    def of(cls, place: Place, container: Any) -> NotedContainer:
        """As it is now."""
        return cls(place, container, dict(container) if isinstance(container, dict) else list(container))

    def changes(self) -> Iterator[Change]:
        if not isinstance(self.container, dict):
            if not self._is_as_it_was():
                yield Change(self.place, list(self.container))
            return
        for key, value in list(self.container.items()):
            if self.values.get(key, ABSENT) is not value:
                yield Change(self.place.inside(key), value)

    def put_back(self) -> None:
        if not self._is_as_it_was():
            self.container.clear()
            add = self.container.update if isinstance(self.container, (dict, set)) else self.container.extend
            add(self.values)

    def _is_as_it_was(self) -> bool:
        now, values = self.container, self.values
        alike = len(now) == len(values) and all(a is b for a, b in zip(now, values, strict=True))  # keys may be tensors
        return alike and (not isinstance(now, dict) or all(now[key] is value for key, value in values.items()))


@dataclass
class NotedKind:
    """The attributes of a class."""

    place: Place
    kind: type
    values: dict[str, Any]

    def changes(self) -> Iterator[Change]:
        for name in self._list_others():
            yield Change(self.place.inside(name), vars(self.kind).get(name))

    def put_back(self) -> None:
        for name in self._list_others():
            if name in self.values:
                type.__setattr__(self.kind, name, self.values[name])
            else:
                type.__delattr__(self.kind, name)

    def _list_others(self) -> list[str]:
        now, were = vars(self.kind), self.values
        names = (name for name in {**were, **now} if not name.startswith("__"))
        return [name for name in names if now.get(name, ABSENT) is not were.get(name, ABSENT)]


@dataclass
class NotedNames:
    """Some of the names in a file of code.  What it has imported meanwhile stays: nobody would import it again."""

    place: Place
    namespace: dict[str, Any]
    values: dict[str, Any]

    def changes(self) -> Iterator[Change]:
        for name in self._list_others():
            yield Change(self.place.inside(name), self.namespace.get(name))

    def put_back(self) -> None:
        for name in self._list_others():
            if self.values[name] is ABSENT:
                del self.namespace[name]
            else:
                self.namespace[name] = self.values[name]

    def _list_others(self) -> list[str]:
        now = ((name, self.namespace.get(name, ABSENT), value) for name, value in self.values.items())
        return [name for name, value, was in now if value is not was and not isinstance(value, ModuleType)]


@dataclass
class NotedCell:
    """A cell of a closure."""

    place: Place
    cell: CellType
    value: Any

    def changes(self) -> Iterator[Change]:
        if (now := open_cell(self.cell)) is not self.value:
            yield Change(self.place, now)

    def put_back(self) -> None:
        if open_cell(self.cell) is self.value:
            return
        if self.value is ABSENT:
            del self.cell.cell_contents
        else:
            self.cell.cell_contents = self.value


def open_cell(cell: CellType) -> Any:
    """The value in a cell, or ABSENT."""
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


@dataclass
class NotedSlot:
    """An attribute of an object for which its class has a slot."""

    place: Place
    holder: Any
    slot: MemberDescriptorType
    value: Any

    def changes(self) -> Iterator[Change]:
        if (now := read_slot(self.holder, self.slot)) is not self.value:
            yield Change(self.place, now)

    def put_back(self) -> None:
        if read_slot(self.holder, self.slot) is self.value:
            return
        if self.value is ABSENT:
            self.slot.__delete__(self.holder)
        else:
            self.slot.__set__(self.holder, self.value)


def read_slot(holder: Any, slot: MemberDescriptorType) -> Any:
    """The value in a slot of an object, or ABSENT."""
    try:
        return slot.__get__(holder)
    except AttributeError:
        return ABSENT


@dataclass
class NotedTensor:
    """The values of a tensor, which code may write into."""

    place: Place
    tensor: Tensor
    values: Tensor

    def changes(self) -> Iterator[Change]:
        if not self._is_as_it_was():
            yield Change(self.place, self.tensor.detach().clone())

    def put_back(self) -> None:
        if self._is_as_it_was():
            return
        with torch.no_grad(), suppress(RuntimeError):  # of inference_mode, outside of which nobody writes into it
            if self.tensor.shape == self.values.shape and self.tensor.dtype == self.values.dtype:
                self.tensor.data.copy_(self.values)
            else:
                self.tensor.data = self.values

    def _is_as_it_was(self) -> bool:
        now, were = self.tensor.detach(), self.values
        if now.shape != were.shape or now.dtype != were.dtype or now.device != were.device:
            return False
        return torch.equal(now, were) or (now.is_floating_point() and torch.equal(now.nan_to_num(), were.nan_to_num()))


@dataclass
class NotedCache:
    """Results of calls, as functools.lru_cache keeps them, where there were none: some cannot be put back."""

    place: Place
    cache: Any

    def changes(self) -> Iterator[Change]:
        if self.cache.cache_info().currsize:
            yield Change(self.place, None)

    def put_back(self) -> None:
        self.cache.cache_clear()
