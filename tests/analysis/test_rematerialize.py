"""plan: sums term by term, and what is computed again because that takes less than carrying it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.graphs import add, conv, graph, random_graphs, relu, require_equal, source
from hypothesis import given, settings

from memsr_compiler import ir
from memsr_compiler.analysis import schedule as scheduling
from memsr_compiler.analysis.rematerialize import FAR, SHALLOW, chain_sums, compute_again, plan
from memsr_compiler.analysis.schedule import Carrying, schedule
from memsr_compiler.ir import names
from memsr_compiler.ir.interpreter import run
from memsr_compiler.passes import skip_to_conv

many = settings(max_examples=80, deadline=None, derandomize=True)


# -- whatever the graph ----------------------------------------------------------------------------------------------


@many
@given(random_graphs(most=14))
def test_chained_sums_mean_the_same(before: ir.Graph) -> None:
    after = chain_sums(before)
    require_equal(before, after)
    assert all(len(op.inputs) <= 2 for op in after if isinstance(op, ir.Sum))
    assert after.output == before.output and [op.name for op in after if op.name in before] == [
        op.name for op in before
    ]
    assert chain_sums(after).text() == after.text()


@pytest.mark.parametrize("carry", ["auto", "split", "shift"])
@many
@given(random_graphs(most=14))
def test_what_is_computed_again_means_the_same_and_takes_no_more(carry: Carrying, before: ir.Graph) -> None:
    after, planned = plan(before, carry)
    require_equal(before, after)
    assert planned.cost <= schedule(chain_sums(before), carry).cost
    again = [op.name for op in after if names.is_again(op.name)]
    assert carry != "shift" or not again
    depth = depths(after)
    assert all(0 < depth[name] <= SHALLOW for name in again)
    require_equal(before, skip_to_conv(before, carry=carry))


@many
@given(random_graphs(most=14))
def test_a_copy_computes_what_it_is_a_copy_of(before: ir.Graph) -> None:
    after = compute_again(before, schedule(before))
    seen: dict[str, torch.Tensor] = {}
    x = torch.arange(before.input.channels * 12.0, dtype=torch.float64).reshape(1, -1, 3, 4)
    run(after, x, watch=lambda name, value: seen.update({name: value}))
    for name, value in seen.items():
        original = seen.get(names.value(name))
        assert original is None or torch.equal(value, original)


def depths(graph: ir.Graph) -> dict[str, int]:
    depth: dict[str, int] = {}
    for op in graph:
        own = isinstance(op, ir.Conv2d) and not op.pointwise
        depth[op.name] = own + max((depth[i] for i in op.inputs), default=0)
    return depth


# -- sums ------------------------------------------------------------------------------------------------------------


def test_terms_are_added_in_the_order_in_which_they_are_ready() -> None:
    """Written late first; each partial sum is a part of the whole, so that it may be carried."""
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), conv("b", "r"), relu("s", "b"), add("y", "s", "r", "b", "a"),
    )  # fmt: skip
    after = chain_sums(before)
    sums = {op.name: (op.inputs, op.part) for op in after if isinstance(op, ir.Sum)}
    assert sums == {
        "y~~1": (("a", "r"), ir.Part("y", ("a", "r"), ("b", "s"))),
        "y~~2": (("y~~1", "b"), ir.Part("y", ("a", "r", "b"), ("s",))),
        "y": (("y~~2", "s"), None),
    }


def test_terms_that_are_parts_already_count_by_their_sources() -> None:
    """As gather_terms leaves them: y = M x + r + s, the term of x being a part of y."""
    term = ir.Conv2d(
        name="y~<x>", inputs=("x",), weight=conv("m", "x", k=1).weight, bias=torch.zeros(2).double(),
        part=ir.Part("y", ("x",), ("r", "s")),
    )  # fmt: skip
    other = ir.Conv2d(
        name="z~<x>", inputs=("x",), weight=conv("m", "x", k=1).weight, bias=torch.zeros(2).double(),
        part=ir.Part("z", ("x",), ("r",)),
    )  # fmt: skip
    ops = (source(), conv("a", "x"), relu("r", "a"), conv("b", "r"), relu("s", "b"), term, other)
    total = {op.name: op for op in chain_sums(graph(*ops, add("y", "s", "y~<x>", "r")))}
    assert total["y~~1"].part == ir.Part("y", ("x", "r"), ("s",))
    foreign = {op.name: op for op in chain_sums(graph(*ops, add("y", "s", "z~<x>", "r")))}
    assert foreign["y~~1"].part == ir.Part("y", ("z~<x>", "r"), ("s",))  # a part of another tensor is a term itself


def test_a_sum_that_is_a_part_is_chained_for_its_tensor() -> None:
    whole = ir.Sum(name="y~~sum", inputs=("x", "r", "s"), part=ir.Part("y", ("x", "r", "s"), ()))
    ops = (source(), conv("a", "x"), relu("r", "a"), conv("b", "r"), relu("s", "b"), whole, conv("y", "y~~sum", k=1))
    after = chain_sums(graph(*ops))
    assert after["y~~sum~~1"].part == ir.Part("y", ("x", "r"), ("s",))
    assert after["y~~sum"].part == whole.part and after["y~~sum"].inputs == ("y~~sum~~1", "s")


# -- what is computed again ------------------------------------------------------------------------------------------


def global_skip(layers: int, *, low: float = 0.0, head: int = 1) -> ir.Graph:
    """head(x) + body(head(x)), EDSR's way: `layers` convolutions in the body, ReLUs between."""
    ops: list[ir.Op] = [source(1, low)]
    value, width = "x", 1
    for i in range(head):
        ops.append(conv(f"head{i}", value, 4, width))
        value, width = f"head{i}", 4
    top = value
    for i in range(layers):
        ops += [relu(f"r{i}", value), conv(f"b{i}", f"r{i}", 4, 4)]
        value = f"b{i}"
    return graph(*ops, add("y", value, top))


def copies(before: ir.Graph) -> list[str]:
    return [op.name for op in plan(before)[0] if names.is_again(op.name)]


def test_a_global_skip_carries_the_image() -> None:
    """One channel that is never negative, instead of four in two halves."""
    before = global_skip(5)
    after, planned = plan(before)
    assert copies(before) == ["head0@6"]
    assert planned.crossing == (("x",), ("x", "r0"), ("x", "r1"), ("x", "r2"), ("x", "r3"), ("x", "r4"))
    assert planned.layer["head0@6"] == 6 and planned.layer["head0"] == 1
    assert after["y"].inputs == ("b4", "head0@6")
    require_equal(before, after)


@pytest.mark.parametrize("layers", range(1, 7))
def test_only_for_what_is_far_above(layers: int) -> None:
    """The reader is in layer `layers` + 1, the value one layer deep."""
    assert bool(copies(global_skip(layers))) == (layers + 1 - 1 > FAR)


@pytest.mark.parametrize("head", range(1, 5))
def test_only_what_is_shallow(head: int) -> None:
    assert bool(copies(global_skip(8, head=head))) == (head <= SHALLOW)


def test_what_is_computed_again_takes_its_own_operands_along() -> None:
    """Two layers deep: both are computed again, in the layers just below the reader."""
    before = global_skip(8, head=2)
    after, planned = plan(before)
    assert copies(before) == ["head0@10", "head1@10"]
    assert (planned.layer["head0@10"], planned.layer["head1@10"]) == (9, 10)
    require_equal(before, after)


def test_not_where_it_would_take_more() -> None:
    """A narrow head, and an image of many channels: carrying the head is less."""
    ops: list[ir.Op] = [source(9, -1.0), conv("head", "x", 1, 9)]
    value = "head"
    for i in range(6):
        ops += [relu(f"r{i}", value), conv(f"b{i}", f"r{i}", 1, 1)]
        value = f"b{i}"
    before = graph(*ops, add("y", value, "head"))
    assert names.is_again("".join(op.name for op in compute_again(before, schedule(before))))
    assert copies(before) == []


def test_two_readers_in_one_layer_share_a_copy() -> None:
    before = global_skip(5)
    ops = (*before.ops[:-1], add("p", "b4", "head0"), add("q", "head0", "b4"), add("y", "p", "q"))
    assert copies(graph(*ops)) == ["head0@6"]


def test_dense_skips_have_a_copy_for_each_layer_that_is_far_enough() -> None:
    """Every block reads the head: the near ones as it is, the others their own copy of it."""
    ops: list[ir.Op] = [source(1, 0.0), conv("head", "x", 4, 1), relu("r", "head")]
    value = "r"
    for i in range(6):
        ops += [conv(f"b{i}", value, 4, 4), add(f"y{i}", f"b{i}", "head"), relu(f"s{i}", f"y{i}")]
        value = f"s{i}"
    before = graph(*ops, conv("z", value, 4, 4))
    again = copies(before)
    assert again == [f"head@{layer}" for layer in range(5, 8)]
    require_equal(before, plan(before)[0])


def test_the_output_counts_as_read_in_the_last_layer_also_before_a_shuffle() -> None:
    before = global_skip(5)
    shuffled = graph(*before.ops, ir.PixelShuffle(name="up", inputs=("y",), factor=2))
    assert copies(shuffled) == ["head0@6"]


def test_a_sum_before_a_shuffle_is_computed_in_the_last_layer() -> None:
    """Its ReLU is made in layer 6, the sum with it can only be computed in layer 7."""
    before = global_skip(6)
    ends = (*before.ops[:-1], relu("last", "b5"), add("y", "last", "head0"))
    assert copies(graph(*ends, ir.PixelShuffle(name="up", inputs=("y",), factor=2))) == ["head0@8"]


def test_what_is_shallow_itself_reads_no_copy() -> None:
    """Far above by its ReLUs, but as few convolutions from the image as what it reads."""
    ops: list[ir.Op] = [source(1, 0.0), conv("head", "x", 4, 1), relu("r0", "head")]
    for i in range(6):
        ops += [conv(f"p{i}", f"r{i}", 4, 4, 1), relu(f"r{i + 1}", f"p{i}")]
    before = graph(*ops, add("y", "r6", "head"))
    assert compute_again(before, schedule(before)) is before


def test_the_paper_computes_everything_once() -> None:
    before = global_skip(5)
    after, planned = plan(before, "shift")
    assert after.text() == chain_sums(before).text() and planned.crossing[3] == ("head0", "r2")


def test_nothing_to_compute_again_leaves_the_graph_as_it_is() -> None:
    before = graph(source(), conv("a", "x"), relu("r", "a"), conv("b", "r"))
    assert compute_again(before, schedule(before)) is before


def test_what_nobody_reads_any_more_goes() -> None:
    """The head has one reader, far above: its copy stays, itself not."""
    ops: list[ir.Op] = [source(1, 0.0), conv("head", "x", 4, 1), conv("a", "x", 4, 1)]
    value = "a"
    for i in range(5):
        ops += [relu(f"r{i}", value), conv(f"b{i}", f"r{i}", 4, 4)]
        value = f"b{i}"
    before = graph(*ops, add("y", value, "head"))
    after = compute_again(before, schedule(before))
    assert "head@6" in after and "head" not in after
    require_equal(before, after)


def test_copies_are_never_all_carried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of 200 sums with its first features took a minute, by cuts through 200 copies that waited."""
    ops: list[ir.Op] = [source(2, low=0.0), conv("z", "x")]
    for i in range(20):
        ops += [conv(f"c{i}", ops[-1].name), relu(f"r{i}", f"c{i}"), add(f"y{i}", f"r{i}", "z")]
    widest = 0
    cut = scheduling._cut

    def watch(regions: Any, timing: Any, sources: Any, wanted: list[str], boundary: int) -> tuple[str, ...]:
        nonlocal widest
        widest = max(widest, len(wanted))
        return cut(regions, timing, sources, wanted, boundary)

    monkeypatch.setattr(scheduling, "_cut", watch)
    before = graph(*ops)
    assert sum(names.is_again(op.name) for op in compute_again(before, schedule(before))) > 10
    plan(before)
    assert widest <= 4
