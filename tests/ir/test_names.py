"""The grammar of names: what is marked can be taken apart again, and no other file spells a mark."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memsr_compiler.ir import names
from memsr_compiler.trace.trace import trace

ROOT = Path(__file__).parents[2]
paths = st.text(alphabet="ab.1:#@~<>+-C", max_size=12).map(names.escape)
places = st.integers(0, 99)


@settings(deadline=None, derandomize=True)
@given(paths, places, places)
def test_what_is_marked_can_be_taken_apart_again(path: str, place: int, other: int) -> None:
    assert names.value(path) == path
    assert not names.is_relu(path) and not names.is_again(path) and not names.is_internal(path)
    for once_more in (names.again(path, place), names.above(path, place)):
        assert names.value(once_more) == path and names.is_again(once_more)
        assert names.value(names.again(once_more, other)) == path
        for carried in (names.held(once_more), names.signs(once_more), names.raised(once_more)):
            assert names.value(carried) == path and carried != once_more
    relu = names.relu(path, place)
    assert names.is_relu(relu) and not names.is_internal(relu) and names.value(names.again(relu, other)) == relu
    for made in (names.internal(path, "sum"), names.term(path, relu), names.partial_sum(path, place)):
        assert names.is_internal(made) and names.is_internal(names.again(made, place)) and not names.is_again(made)


def test_how_names_are_spelled() -> None:
    assert names.relu("body.3.act", 1) == "body.3.act#1"
    assert names.again("body.3.conv1", 12) == "body.3.conv1@12"
    assert names.above("body.3.conv1", 12) == "body.3.conv1@above12"
    assert [f("a@1") for f in (names.held, names.signs, names.raised)] == ["a@1+", "a@1+-", "a@1+C"]
    assert (names.internal("body.3", "sum"), names.internal("", "layer1")) == ("body.3~sum", "~layer1")
    assert (names.term("y", "x"), names.partial_sum("y", 1)) == ("y~<x>", "y~~1")
    assert [names.number("body.3.add", i) for i in (1, 2)] == ["body.3.add", "body.3.add:2"]


class Marked(nn.Module):
    """Its convolution bears, as a module may, the marks; one `add` follows another."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("a#b@c~d", nn.Conv2d(1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.get_submodule("a#b@c~d")(x)
        return y + x + y


def test_a_teacher_bears_no_marks() -> None:
    graph = trace(Marked()).graph
    assert [op.name for op in graph] == ["input", "a-b-c-d", "add", "add:2"]


def spelled(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The texts of a file, but for documentation and messages, which have spaces."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "folder", ["passes", "memsr_compiler/ir", "memsr_compiler/analysis", "memsr_compiler/lowering"]
)
def test_marks_are_spelled_in_one_place(folder: str) -> None:
    files = [path for path in (ROOT / folder).glob("*.py") if path.name != "names.py"]
    assert files
    for path in files:
        marked = [
            (line, text) for line, text in spelled(ast.parse(path.read_text("utf-8"))) if set(text) & set(names.MARKS)
        ]
        assert not marked, f"{path.name}: {marked}"
