"""The size of what a pickle makes: things that hold the same ones again and again."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers import pickle_scan, pickle_shape
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.teachers.pickle_shape import Shape


def shape_of(content: bytes) -> Shape:
    shape = Shape()
    for opcode, argument, _ in pickletools.genops(content):
        shape.take(opcode, argument)
    return shape


def count(value: Any) -> int:
    """By recursion, as whoever lists what is in it does."""
    held = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return 1 + sum(map(count, held)) if isinstance(value, (dict, list, tuple)) else 1


@st.composite
def shared(draw: st.DrawFn) -> Any:
    """Containers, each of which may hold the ones before it, as often as it likes."""
    made: list[Any] = [draw(st.integers()), draw(st.text())]
    for i in range(draw(st.integers(1, 7))):
        held = draw(st.lists(st.sampled_from(range(len(made))), max_size=4))
        kind = draw(st.sampled_from((list, tuple, dict)))
        parts = [made[at] for at in held]
        made.append({f"{i} {n}": part for n, part in enumerate(parts)} if kind is dict else kind(parts))
    return made[-1]


@settings(max_examples=200, deadline=None)
@given(shared(), st.integers(0, 5))
def test_things_are_counted_as_often_as_they_are_met(value: Any, protocol: int) -> None:
    shape = shape_of(pickle.dumps([value], protocol=protocol))
    assert shape.count_largest() == 1 + count(value)
    shape.require_small()


def nested(times: int) -> Any:
    value: Any = 1
    for _ in range(times):
        value = (value, value)
    return value


TWICE = {
    "tuples": b"h\xffh\xff\x86",
    "lists": b"](h\xffh\xffe",
    "dictionaries": b"}(X\x01\0\0\0ah\xffX\x01\0\0\0bh\xffu",
}
"""Opcodes that make what holds number 255 of the memo twice."""


@pytest.mark.parametrize("twice", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("times", [40, 5_000])
def test_what_holds_the_same_again_and_again_is_refused(twice: bytes, times: int) -> None:
    with pytest.raises(InvalidInput, match="of the same few things, millions of times over"):
        shape_of(b"\x80\x02K\x01" + times * (b"q\xff0" + twice) + b".").require_small()


def test_so_is_what_comes_to_a_list_that_is_held_already() -> None:
    value = outermost = list[Any]()
    for _ in range(40):
        inner = list[Any]()
        value.extend([inner, inner])
        value = inner
    with pytest.raises(InvalidInput, match="of the same few things"):
        pickle_scan.imports(io.BytesIO(pickle.dumps(outermost)))


def test_what_was_thrown_away_counts_too() -> None:
    """A key was hashed when it was put into a dictionary."""
    key = pickle.dumps(nested(40), protocol=2)[:-1]
    with pytest.raises(InvalidInput, match="of the same few things"):
        shape_of(b"\x80\x02}" + key[2:] + b"K\x01s0}.").require_small()


@pytest.mark.parametrize("hold", [dict.fromkeys, set, frozenset, Counter, lambda keys: [dict.fromkeys(keys), {}]])
@pytest.mark.parametrize("protocol", [2, 4])
def test_keys_that_are_no_names_are_few(
    hold: Callable[[list[int]], Any], protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Multiples of 2^61 - 1 have one hash, and each is compared with all the others."""
    monkeypatch.setattr(pickle_shape, "_MOST_NUMBERS", 500)

    def require_small(value: Any) -> None:
        shape_of(pickle.dumps(value, protocol=protocol)).require_small()

    require_small(hold([i * (2**61 - 1) for i in range(495)]))
    with pytest.raises(InvalidInput, match=r"a pickle with 50\d keys in one place that are no names"):
        require_small(hold([i * (2**61 - 1) for i in range(501)]))
    require_small({f"layer.{i}": i for i in range(2_000)})
    require_small([hold([*range(100)]) for _ in range(20)])


def test_lists_within_themselves_are_counted() -> None:
    ring: list[Any] = []
    ring.extend([[1], ring, ring, [ring, [2]], 1])
    shape = shape_of(pickle.dumps(ring))
    shape.require_small()
    assert shape.count_largest() == 7


@pytest.mark.parametrize("zipped", [True, False])
def test_such_checkpoints_are_refused(zipped: bool, tmp_path: Path) -> None:
    """Torch's own reader of weights computes for ever, of a file of a kilobyte."""
    torch.save({nested(22): torch.ones(3)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert (tmp_path / "a.pth").stat().st_size < 3000
    with pytest.raises(InvalidInput, match=r"a\.pth: is truncated or damaged: a pickle of the same few things"):
        read_teacher(tmp_path / "a.pth")


def test_weights_and_states_of_optimisers_are_none(tmp_path: Path) -> None:
    network = torch.nn.Sequential(*(torch.nn.Conv2d(4, 4, 3) for _ in range(20)))
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.rand(1, 4, 64, 64)).sum().backward()
    optimiser.step()
    torch.save({"state": network.state_dict(), "optimizer": optimiser.state_dict()}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        content = archive.read("a/data.pkl")
    assert shape_of(content).count_largest() < len(content)
