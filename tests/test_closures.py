"""Functions that copies hold: they name the copy, where they named what was copied."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any
from weakref import WeakMethod, ref

from memsr_compiler.closures import rename_in_copies


class Held:
    """Whatever is copied: its calls write into itself."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.calls: dict[str, Callable[..., Any]] = {}


@dataclass(frozen=True, slots=True)
class Slotted:
    call: Callable[..., Any]
    others: tuple[int, ...] = (1, 2)


def copied(value: Any) -> Any:
    copies: dict[int, Any] = {}
    result = copy.deepcopy(value, copies)
    rename_in_copies(copies)
    return result


def test_functions_of_a_copy_write_into_the_copy() -> None:
    held = Held()
    held.calls["closure"] = lambda: held.written.append("closure")
    held.calls["default"] = lambda of=held: of.written.append("default")

    def named(*, of: Held = held) -> None:
        """Whose text is kept."""
        of.written.append("named")

    named.mark = 3  # type: ignore[attr-defined]
    named.owner = held  # type: ignore[attr-defined]
    held.calls["named"] = named
    other = copied(held)
    for call in other.calls.values():
        call()
    assert (held.written, other.written) == ([], ["closure", "default", "named"])
    kept = other.calls["named"]
    assert (kept.__name__, kept.__qualname__, kept.__module__) == (named.__name__, named.__qualname__, __name__)
    assert (kept.__doc__, kept.mark, kept.owner) == (named.__doc__, 3, other)


def test_functions_that_name_its_methods() -> None:
    """As those do that are put in the place of one: `old = network.forward; network.forward = lambda x: old(x) * 2`."""
    held = Held()
    note = MethodType(lambda self, text: self.written.append(text), held)
    held.calls["twice"] = lambda: (note("once"), note("twice"))
    other = copied(held)
    other.calls["twice"]()
    assert (held.written, other.written) == ([], ["once", "twice"])


def test_weak_references_to_its_methods() -> None:
    class Noting(Held):
        def note(self) -> None:
            self.written.append("noted")

    held = Noting()
    method = WeakMethod(held.note)
    held.calls["note"] = lambda: method()()  # type: ignore[misc]
    other = copied(held)
    other.calls["note"]()
    assert (held.written, other.written) == ([], ["noted"])


def test_functions_that_name_each_other_and_themselves() -> None:
    held = Held()

    def count(n: int) -> None:
        held.written.append(str(n))
        if n:
            again(n - 1)

    def again(n: int) -> None:
        count(n)

    held.calls["count"] = count
    other = copied([held, again])
    other[0].calls["count"](2)
    other[1](0)
    assert (held.written, other[0].written) == ([], ["2", "1", "0", "0"])


def test_what_two_functions_share_they_share_in_the_copy() -> None:
    """And what lies outside of both stays where it is."""
    held, outside, last = Held(), ["shared by all"], ""

    def put(text: str) -> None:
        nonlocal last
        last = text
        held.written.append(text)
        outside.append(text)

    held.calls.update(put=put, get=lambda: (last, held, outside))
    other = copied(held)
    other.calls["put"]("new")
    assert other.calls["get"]() == ("new", other, ["shared by all", "new"])
    assert other.calls["get"]()[2] is outside
    assert last == "new"  # a value that was not copied is one for both


def test_functions_that_name_nothing_of_it_are_the_same() -> None:
    def later() -> object:
        return unset

    held, plain = Held(), (lambda: 3)
    held.calls.update(plain=plain, later=later)
    other = copied(held)
    assert other.calls["plain"] is plain
    assert other.calls["later"] is later
    unset = 1
    assert later() == unset


def test_functions_in_what_leads_to_them() -> None:
    """Partial functions, tuples, lists and tables, in whatever is copied or closed over."""
    held = Held()

    def put(text: str) -> None:
        held.written.append(text)

    owners, table = [held], {"of": held}
    held.calls["list"] = lambda: owners[0].written.append("list")
    held.calls["table"] = lambda: table["of"].written.append("table")
    held.calls["partial"] = partial(put, "partial")
    held.calls["weak"] = partial(lambda owner: owner().written.append("weak"), ref(held))
    held.slotted = Slotted(lambda: held.written.append("slot"))  # type: ignore[attr-defined]
    held.pair = (put, deque([partial(put)]))  # type: ignore[attr-defined]
    other = copied(held)
    for name in ("list", "table", "partial", "weak"):
        other.calls[name]()
    other.slotted.call()
    other.pair[0]("pair")
    other.pair[1][0]("within")
    assert (held.written, other.written) == ([], ["list", "table", "partial", "weak", "slot", "pair", "within"])
    assert owners == [held]


def nested(held: Held, levels: int) -> Callable[[str], None]:
    """A function that calls one that calls one, and so on, which writes into what is held."""

    def around(inner: Callable[[str], None]) -> Callable[[str], None]:
        return lambda text: inner(text)

    call: Callable[[str], None] = partial(lambda to, text: to.written.append(text), held)
    for _ in range(levels):
        call = around(call)
    return call


def test_functions_that_close_over_each_other_many_times() -> None:
    held = Held()
    held.calls["f"] = nested(held, 200)
    other = copied(held)
    other.calls["f"]("copied")
    assert (held.written, other.written) == ([], ["copied"])
