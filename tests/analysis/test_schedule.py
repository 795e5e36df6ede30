"""schedule: which layer computes what, and that no boundary takes more channels than it must."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations

import pytest
from helpers.graphs import add, conv, graph, random_graphs, relu, source
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from memsr_compiler import ir
from memsr_compiler.analysis.schedule import Carrying, Schedule, body_output, is_pointwise, nonnegative, schedule

many = settings(max_examples=70, deadline=None, derandomize=True)


# -- an oracle that shares nothing with the schedule: what can be had from what -------------------------------------


def closed(graph: ir.Graph, known: Iterable[str]) -> set[str]:
    """These values and all that pointwise ops make of them."""
    found = set(known)
    for op in graph:
        if is_pointwise(op) and set(op.inputs) <= found:
            found.add(op.name)
    return found


def made_in(graph: ir.Graph, plan: Schedule, boundary: int) -> set[str]:
    """The pre-activations that the layer above a boundary can compute from what crosses it."""
    held = closed(graph, plan.crossing[boundary])
    convs = {n for n, layer in plan.layer.items() if layer == boundary + 1 and isinstance(graph[n], ir.Conv2d)}
    return closed(graph, held | {n for n in convs if set(graph[n].inputs) <= held})


def holdable(graph: ir.Graph, plan: Schedule, boundary: int) -> set[str]:
    """What a boundary can hold: pre-activations of the layer below it, and that layer's own ReLUs of them."""
    made = made_in(graph, plan, boundary - 1)
    relus = {n for n, layer in plan.layer.items() if layer == boundary and isinstance(graph[n], ir.Relu)}
    return made | {n for n in relus if set(graph[n].inputs) <= made}


def enough(graph: ir.Graph, plan: Schedule, boundary: int, held: Iterable[str]) -> bool:
    """Whether all that layers above a boundary compute can be had from these values."""
    later = {n for n, layer in plan.layer.items() if layer > boundary}
    known = closed(graph, {*held, *later})
    return body_output(graph) in known and all(i in known for n in later for i in graph[n].inputs)


def channels(graph: ir.Graph, name: str, carry: Carrying) -> int:
    """What it takes to hold a value: two halves of it, unless it cannot be negative or is shifted."""
    single = carry == "shift" or name in nonnegative(graph)
    return graph.type(name).channels * (1 if single else 2)


def subsets(values: set[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(values) + 1):
        yield from combinations(sorted(values), size)


def require_sound(graph: ir.Graph, plan: Schedule, carry: Carrying) -> None:
    assert plan.crossing[0] == (graph.input.name,) and len(plan.kernel) == len(plan.width) == plan.depth
    assert all(1 <= layer <= plan.depth for layer in plan.layer.values())
    for boundary in range(1, plan.depth):
        assert set(plan.crossing[boundary]) <= holdable(graph, plan, boundary)
        assert enough(graph, plan, boundary, plan.crossing[boundary])
        assert plan.width[boundary] == sum(channels(graph, n, carry) for n in plan.crossing[boundary])
    assert body_output(graph) in made_in(graph, plan, plan.depth - 1) | set(plan.crossing[-1])
    for number, size in enumerate(plan.kernel, start=1):
        convs = [graph[n] for n, layer in plan.layer.items() if layer == number and isinstance(graph[n], ir.Conv2d)]
        assert size == max((op.weight.shape[-1] for op in convs if isinstance(op, ir.Conv2d)), default=1)


# -- whatever the graph ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carry", ["auto", "split", "shift"])
@many
@given(random_graphs())
def test_every_boundary_holds_all_that_later_layers_need(carry: Carrying, before: ir.Graph) -> None:
    require_sound(before, schedule(before, carry), carry)


@st.composite
def deep_graphs(draw: st.DrawFn) -> ir.Graph:
    """Convolutions and ReLUs one upon the other, with skips from any value below, some of them narrow on the way."""
    ops: list[ir.Op] = [source(2, draw(st.sampled_from([0.0, -1.0])))]
    values = ["x"]
    for i in range(draw(st.integers(3, 5))):
        ops.append(conv(f"c{i}", values[-1], bias=draw(st.booleans())))
        terms = []
        for j, below in enumerate(draw(st.lists(st.sampled_from(values), max_size=2, unique=True))):
            if draw(st.booleans()):
                narrow = conv(f"n{i}.{j}", below, 1, 2, k=1, bias=draw(st.booleans()))
                ops += [narrow, conv(f"w{i}.{j}", narrow.name, 2, 1, k=1, bias=draw(st.booleans()))]
                below = f"w{i}.{j}"
            terms.append(below)
        ops += [add(f"s{i}", f"c{i}", *terms), relu(f"r{i}", f"s{i}")]
        values += [f"s{i}", f"r{i}"]
    return graph(*ops, conv("y", values[-1]))


def require_fewest(before: ir.Graph, plan: Schedule, carry: Carrying) -> None:
    """Against every set of values that could be held instead, boundary after boundary."""
    for boundary in range(1, plan.depth):
        candidates = holdable(before, plan, boundary)
        assume(len(candidates) <= 11)
        fewest = min(
            sum(channels(before, n, carry) for n in held)
            for held in subsets(candidates)
            if enough(before, plan, boundary, held)
        )
        assert plan.width[boundary] == fewest


@pytest.mark.parametrize("carry", ["auto", "shift"])
@many
@given(random_graphs(most=8))
def test_no_other_choice_takes_fewer_channels(carry: Carrying, before: ir.Graph) -> None:
    require_fewest(before, schedule(before, carry), carry)


@pytest.mark.parametrize("carry", ["auto", "shift"])
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
@given(deep_graphs())
def test_no_other_choice_takes_fewer_channels_in_many_layers(carry: Carrying, before: ir.Graph) -> None:
    plan = schedule(before, carry)
    assert plan.depth >= 4
    require_fewest(before, plan, carry)


# -- by hand ---------------------------------------------------------------------------------------------------------


def crossing(before: ir.Graph, carry: Carrying = "auto") -> tuple[tuple[str, ...], ...]:
    plan = schedule(before, carry)
    require_sound(before, plan, carry)
    return plan.crossing


def test_nested_skips() -> None:
    before = graph(
        source(2, 0.0), conv("a", "x"), relu("r", "a"), conv("b", "r"), relu("s", "b"), conv("c", "s"),
        add("inner", "c", "r"), relu("t", "inner"), conv("d", "t"), add("outer", "d", "x"),
    )  # fmt: skip
    assert crossing(before) == (("x",), ("x", "r"), ("x", "r", "s"), ("x", "t"))


def test_crossing_skips() -> None:
    before = graph(
        source(2, 0.0), conv("a", "x"), relu("r", "a"), conv("b", "r"), relu("s", "b"), conv("c", "s"),
        add("y", "c", "r"), relu("t", "y"), conv("d", "t"), add("z", "d", "s"),
    )  # fmt: skip
    assert crossing(before) == (("x",), ("r",), ("r", "s"), ("s", "t"))


def test_dense_skips_are_carried_as_one_sum_where_that_is_less() -> None:
    """Each layer reads the sum of all before it: the sum is carried, not its terms."""
    ops: list[ir.Op] = [source(2, -1.0), conv("a0", "x"), relu("r0", "a0")]
    total = "r0"
    for i in range(1, 4):
        ops += [conv(f"a{i}", total), relu(f"r{i}", f"a{i}"), add(f"y{i}", total, f"r{i}")]
        total = f"y{i}"
    held = crossing(graph(*ops, conv("z", total)))
    assert held == (("x",), ("r0",), ("r0", "r1"), ("y1", "r2"), ("y2", "r3"))


def test_what_is_never_negative_takes_half() -> None:
    def skip(low: float) -> ir.Graph:
        return graph(source(2, low), conv("a", "x"), relu("r", "a"), conv("b", "r"), add("y", "b", "x"))

    assert schedule(skip(0.0)).width == (2, 4) and schedule(skip(-1.0)).width == (2, 6)
    assert schedule(skip(-1.0), "shift").width == (2, 4)


def test_what_cannot_be_negative() -> None:
    positive = conv("p", "x", k=1)
    positive.weight.abs_()
    positive.bias.abs_()
    negative_bias = conv("n", "x", k=1)
    negative_bias.weight.abs_()
    negative_bias.bias.fill_(-1.0)
    ops = (
        positive, negative_bias, conv("c", "x"), relu("r", "c"), add("y", "r", "p"), add("z", "r", "c"),
        ir.Carry(name="k", inputs=("y",)), ir.Carry(name="l", inputs=("z",)),
    )  # fmt: skip
    assert nonnegative(graph(source(2, 0.0), *ops)) == {"x", "p", "r", "y", "k"}
    assert nonnegative(graph(source(2, -1.0), *ops)) == {"r"}
    twice = (relu("r", "x"), conv("w", "r", bias=False))
    assert nonnegative(graph(source(2, -1.0), *twice)) == {"r"}


def test_something_unused_is_not_carried() -> None:
    before = graph(
        source(2, 0.0), conv("a", "x"), relu("r", "a"), conv("unused", "x", 9), relu("nor", "unused"), conv("b", "r"),
        relu("s", "b"), conv("c", "s"),
    )  # fmt: skip
    assert crossing(before) == (("x",), ("r",), ("s",))


def test_of_equal_cuts_the_one_nearest_to_what_is_there() -> None:
    """r and p = conv1x1(r) take as much; r is there already, so it is kept as it is, boundary after boundary."""
    positive = conv("p", "r", k=1, bias=False)
    positive.weight.abs_()
    before = graph(
        source(2, -1.0), conv("a", "x"), relu("r", "a"), positive, conv("b", "r"), relu("s", "b"), conv("c", "s"),
        relu("t", "c"), conv("d", "t"), add("y", "d", "p"),
    )  # fmt: skip
    assert crossing(before) == (("x",), ("r",), ("r", "s"), ("r", "t"))


def test_a_pointwise_value_of_this_layers_relu_waits_for_the_next() -> None:
    """p = conv1x1(r) has one channel, r two; but at boundary 1 the layer has just made r, and p is not there yet."""
    before = graph(
        source(2, -1.0), conv("a", "x"), relu("r", "a"), conv("p", "r", 1, 2, 1), relu("q", "p"), conv("b", "q", 2, 1),
        relu("s", "b"), conv("c", "s", 1, 2), add("y", "c", "q"),
    )  # fmt: skip
    assert crossing(before) == (("x",), ("r",), ("q",), ("q", "s"))


def test_what_is_no_tensor_of_the_teacher_is_not_carried() -> None:
    """a + b takes half of a and b; but only with a name can a certificate speak of it."""

    def summed(**about: object) -> tuple[str, ...]:
        total = replace(add("s", "a", "b"), **about)  # type: ignore[arg-type]
        ops = (conv("a", "x", 1, 2), conv("b", "x", 1, 2), total, relu("r", "a"), conv("c", "r", 1, 1))
        return schedule(graph(source(2, -1.0), *ops, add("y", "c", total.name))).crossing[1]

    assert summed() == ("s", "r")
    assert summed(name="y~s") == ("a", "b", "r")
    assert summed(name="y~~1", part=ir.Part("y", ("a", "b"), ("c",))) == ("y~~1", "r")
    assert summed(name="y~~1", part=ir.Part("y~z", ("a", "b"), ("c",))) == ("a", "b", "r")
    assert summed(name="y~~sum", part=ir.Part("y", ("a", "b"), ())) == ("a", "b", "r")  # all but the bias


def test_a_part_is_never_free() -> None:
    """It is a share of a tensor that may be negative, whatever its terms are: its one channel takes two, as x does."""
    share = conv("y~<x>", "x", 1, 2, 1, bias=False)
    share.weight.abs_()
    before = graph(
        source(2, 0.0), conv("a", "x"), relu("r", "a"), conv("b", "r", 1, 2),
        replace(share, part=ir.Part("y", ("x",), ("b",))), add("y", "b", "y~<x>"),
    )  # fmt: skip
    assert crossing(before)[1] == ("x", "r")
    assert schedule(graph(*before.ops[:-2], replace(share, name="p"), add("y", "b", "p"))).crossing[1] == ("r", "p")


def test_a_shuffle_at_the_end_is_in_no_layer() -> None:
    shuffle = ir.PixelShuffle(name="up", inputs=("y",), factor=2)
    before = graph(source(4, 0.0), conv("a", "x", 2, 4), relu("r", "a"), conv("b", "r", 4), add("y", "b", "x"), shuffle)
    assert body_output(before) == "y" and crossing(before) == (("x",), ("x", "r"))


def body(layers: int) -> list[ir.Op]:
    """The image, never negative and one channel; four channels of features, and as many convolutions of them."""
    ops: list[ir.Op] = [source(1, 0.0), conv("head", "x", 4, 1), relu("r0", "head")]
    for i in range(layers):
        ops += [conv(f"b{i}", f"r{i}", 4, 4), relu(f"r{i + 1}", f"b{i}")]
    return ops


def test_what_grows_is_computed_late() -> None:
    """Four channels of the image that only the end reads: until then the image is carried."""
    before = graph(*body(4), conv("far", "x", 4, 1), conv("b", "r4", 4, 4), add("y", "b", "far"))
    plan = schedule(before)
    assert plan.layer["far"] == plan.depth and all(held[0] == "x" for held in plan.crossing)


def test_what_shrinks_is_computed_early() -> None:
    before = graph(*body(4), conv("n", "r0", 1, 4), relu("p", "n"), conv("b", "r4", 1, 4), add("y", "b", "p"))
    plan = schedule(before)
    assert plan.layer["p"] == 2 and all("p" in held for held in plan.crossing[2:])


def test_of_both_in_one_network_only_second_computations_wait() -> None:
    before = graph(
        *body(4), conv("n", "r0", 1, 4), relu("p", "n"), conv("q", "p", 4, 1, 1, bias=False), conv("head@6", "x", 4, 1),
        conv("b", "r4", 4, 4), add("y", "b", "q", "head@6"),
    )  # fmt: skip
    plan = schedule(before)
    assert (plan.layer["p"], plan.layer["head@6"], plan.depth) == (2, 6, 6)


def test_cost_counts_the_taps_of_each_layer_but_the_last() -> None:
    plan = Schedule({}, (("x",), ("a",), ("b",)), (3, 8, 5), (5, 3, 1))
    assert plan.depth == 3 and plan.cost == 3 * 8 * 25 + 8 * 5 * 9


def test_a_constant_beside_the_input_waits_a_layer() -> None:
    shifted = graph(source(2, -1.0), conv("shift", "x", 2, 2, 1), conv("a", "shift"))
    assert schedule(shifted).layer == {"a": 2} and schedule(shifted).depth == 2
    summed = graph(source(2, -1.0), conv("shift", "x", 2, 2, 1), add("y", "x", "shift"), conv("a", "y"))
    assert schedule(summed).layer == {"a": 2}
    bare = graph(source(2, -1.0), conv("mix", "x", 2, 2, 1, bias=False), conv("a", "mix"))
    assert schedule(bare).layer == {"a": 1} and schedule(bare).depth == 1
