"""skip_to_conv: what later layers need is carried, past one ReLU at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.graphs import add, apply, conv, graph, relu, residual, source

from memsr_compiler import ir
from memsr_compiler.analysis.schedule import schedule
from memsr_compiler.errors import PassError
from memsr_compiler.passes import skip_to_conv


def test_a_residual_block() -> None:
    assert (
        apply(skip_to_conv, residual(), idempotent=False).text()
        == """\
x: 2x1 = Input(channels=2, low=0.0, high=1.0)
a: 2x1 = Conv2d(x, weight=2x2x3x3, bias=2, groups=1, dilation=1)
a@1: 2x1 = Carry(a)
r: 2x1 = Relu(a)
b: 2x1 = Conv2d(r, weight=2x2x3x3, bias=2, groups=1, dilation=1)
y: 2x1 = Sum(b, a@1)
y@2: 2x1 = Carry(y)
s: 2x1 = Relu(y)
c: 2x1 = Conv2d(s, weight=2x2x3x3, bias=2, groups=1, dilation=1)
z: 2x1 = Sum(c, y@2)
return z
"""
    )


def test_levels_are_even() -> None:
    """On every path from the input to an op there are equally many ReLUs and Carries."""
    crossing = graph(
        source(),
        conv("a", "x"),
        relu("r", "a"),
        conv("b", "r"),
        relu("s", "b"),
        add("y", "s", "a"),
        conv("c", "y"),
        relu("t", "c"),
        add("z", "t", "r", "x"),
        conv("d", "z"),
    )
    level: dict[str, set[int]] = {}
    for op in apply(skip_to_conv, crossing, idempotent=False):
        below = set().union(*(level[i] for i in op.inputs)) if op.inputs else {0}
        level[op.name] = {n + isinstance(op, (ir.Relu, ir.Carry)) for n in below}
        assert len(level[op.name]) == 1


def test_a_sum_is_carried_as_one() -> None:
    """MemSR carries a and b; their sum takes half the channels."""
    before = graph(
        source(),
        conv("a", "x"),
        conv("b", "x"),
        add("y", "a", "b"),
        relu("r", "y"),
        conv("c", "r"),
        relu("s", "c"),
        conv("d", "s"),
        add("z", "d", "y"),
    )
    after = apply(skip_to_conv, before, idempotent=False)
    assert [op.name for op in after if isinstance(op, ir.Carry)] == ["y@1", "y@2"]


def test_what_is_never_negative_is_carried_in_preference() -> None:
    """Two channels of a ReLU, rather than two of a convolution of it, split into four."""
    before = graph(
        source(),
        conv("a", "x"),
        relu("r", "a"),
        conv("p", "r", 2, 2, 1),
        relu("s", "p"),
        conv("b", "s"),
        relu("t", "b"),
        add("z", "t", "p"),
    )
    assert schedule(before, "auto").crossing[1:] == (("r",), ("r", "s"), ("r", "t"))


def test_a_relu_that_is_needed_later_is_carried_not_made_again() -> None:
    before = graph(
        source(), conv("a", "x"), relu("r", "a"), conv("b", "r"), relu("s", "b"), conv("c", "s"), relu("t", "c"),
        conv("d", "t"), add("y", "d", "r"),
    )  # fmt: skip
    after = apply(skip_to_conv, before, idempotent=False)
    assert [(op.name, type(op)) for op in after if op.name.startswith("r")] == [
        ("r", ir.Relu),
        ("r@2", ir.Carry),
        ("r@3", ir.Carry),
    ]


def test_a_part_that_is_carried_stays_one() -> None:
    """Four channels of x, of which y reads one: the term is carried, and says of what it is a part."""
    part = ir.Part("y", ("x",), ("c",))
    term = replace(conv("y~<x>", "x", 1, 4, 1, bias=False), part=part)
    before = graph(
        source(4), conv("a", "x", 1, 4), relu("r", "a"), conv("b", "r", 1, 1), relu("s", "b"), conv("c", "s", 1, 1),
        term, add("y", "c", "y~<x>"),
    )  # fmt: skip
    after = apply(skip_to_conv, before, idempotent=False)
    assert {op.name: op.part for op in after if isinstance(op, ir.Carry)} == {"y~<x>@1": part, "y~<x>@2": part}


def test_a_shuffle_stays_at_the_end() -> None:
    up = ir.PixelShuffle(name="up", inputs=("b",), factor=2)
    after = apply(
        skip_to_conv, graph(source(), conv("a", "x"), relu("r", "a"), conv("b", "r", 4), up), idempotent=False
    )
    assert after.output == "up" and after["up"].inputs == ("b",)


def test_what_is_carried_depends_on_how() -> None:
    """The image, from which the head is computed again; MemSR's construction carries the head itself."""
    before = graph(
        source(1, 0.0), conv("head", "x", 4, 1), relu("r0", "head"), conv("b0", "r0", 4, 4), relu("r1", "b0"),
        conv("b1", "r1", 4, 4), relu("r2", "b1"), conv("b2", "r2", 4, 4), relu("r3", "b2"), conv("b3", "r3", 4, 4),
        relu("r4", "b3"), conv("b4", "r4", 4, 4), add("y", "b4", "head"),
    )  # fmt: skip
    carried = {
        carry: {op.name.partition("@")[0] for op in skip_to_conv(before, carry=carry) if isinstance(op, ir.Carry)}
        for carry in ("auto", "shift")
    }
    assert carried == {"auto": {"x"}, "shift": {"head"}}


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_network_that_ends_with_a_relu_ends_with_a_copy_of_it(low: float) -> None:
    after = apply(skip_to_conv, graph(source(2, low), conv("a", "x"), relu("r", "a")), idempotent=False)
    assert after.text().endswith("""\
r: 2x1 = Relu(a)
r~copy: 2x1 = Conv2d(r, weight=2x2x1x1, bias=2, groups=1, dilation=1)
return r~copy
""")
    assert apply(skip_to_conv, graph(source(2, low)), idempotent=False).output == "x~copy"


def test_a_constant_beside_the_input_waits_a_layer() -> None:
    """conv(x + 1) needs a channel of ones, which no layer below the first can make."""
    after = apply(skip_to_conv, graph(source(), conv("shift", "x", 2, 2, 1), conv("a", "shift")), idempotent=False)
    assert [op.name for op in after if isinstance(op, ir.Carry)] == ["x@1"]


def test_what_it_does_not_read() -> None:
    with pytest.raises(PassError, match="c: skip-to-conv does not read Concat; run the passes before it"):
        skip_to_conv(graph(source(), ir.Concat(name="c", inputs=("x", "x"))))
