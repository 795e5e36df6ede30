"""insert_relu: a ReLU that leaves each carried value whole."""

from __future__ import annotations

import pytest
import torch
from helpers.graphs import add, apply, conv, graph, integers, prelu, relu, require_equal, residual, source

from memsr_compiler import ir
from memsr_compiler.analysis.schedule import Carrying
from memsr_compiler.errors import PassError
from memsr_compiler.ir.interpreter import run
from memsr_compiler.passes import insert_relu, skip_to_conv


def meanings(after: ir.Graph, name: str) -> tuple[ir.Meaning, ...]:
    op = after[name]
    assert isinstance(op, ir.Relu)
    return op.meaning


def test_split() -> None:
    after = apply(insert_relu, skip_to_conv(residual()), idempotent=False)
    assert [line for line in after.text().splitlines() if line.startswith("a@1")] == [
        "a@1+-: 4x1 = Conv2d(a, weight=4x2x1x1, bias=4, groups=1, dilation=1)",
        "a@1+: 4x1 = Relu(a@1+-, positive a[2], negative a[2])",
        "a@1: 2x1 = Conv2d(a@1+, weight=2x4x1x1, bias=2, groups=1, dilation=1)",
    ]
    assert meanings(after, "r") == (ir.Meaning("value", (0, 1), "r", (0, 1)),)
    assert meanings(after, "a@1+")[1] == ir.Meaning("negative", (2, 3), "a", (0, 1))
    assert not any(isinstance(op, ir.Carry) for op in after)


def far() -> ir.Graph:
    """The input, and a convolution of it, past two ReLUs."""
    return graph(
        source(2, 0.0), conv("a", "x"), relu("r", "a"), conv("b", "r"), relu("s", "b"), conv("c", "s"),
        add("y", "c", "a", "x"),
    )  # fmt: skip


def test_what_is_never_negative_is_carried_as_it_is() -> None:
    carries = [
        ir.Carry(name="x@1", inputs=("x",)), ir.Carry(name="a@1", inputs=("a",)), relu("r", "a"), conv("b", "r"),
        add("y", "b", "a@1", "x@1"),
    ]  # fmt: skip
    after = apply(insert_relu, graph(source(2, 0.0), conv("a", "x"), *carries), idempotent=False)
    assert meanings(after, "x@1") == (ir.Meaning("value", (0, 1), "x", (0, 1)),)
    signed = insert_relu(graph(source(2, -1.0), conv("a", "x"), *carries))
    assert [m.kind for m in meanings(signed, "x@1+")] == ["positive", "negative"]


def test_carried_again_it_is_copied() -> None:
    after = apply(insert_relu, skip_to_conv(far(), carry="split"), idempotent=False, carry="split")
    again = [op for op in after if isinstance(op, ir.Relu) and op.name.endswith("@2+")]
    assert again and all(isinstance(after[op.inputs[0]], ir.Relu) for op in again)


def test_shift() -> None:
    before = skip_to_conv(residual(), carry="shift")
    after = insert_relu(before, carry="shift", constant=1024.0)
    require_equal(before, after)
    assert meanings(after, "a@1+") == (ir.Meaning("shifted", (0, 1), "a", (0, 1), 1024.0),)
    each = insert_relu(before, carry="shift", constant={"a": 512.0, "y": 2048.0})
    require_equal(before, each)
    assert [m.constant for name in ("a@1+", "y@2+") for m in meanings(each, name)] == [512.0, 2048.0]


def a_part() -> tuple[ir.Op, ...]:
    """One term of y, never negative itself, carried."""
    part = ir.Part("y", ("x",), ("b",))
    return (
        source(2, 0.0), conv("a", "x"), relu("r", "a"), conv("b", "r"),
        ir.Carry(name="y~<x>@1", inputs=("x",), part=part), add("y", "b", "y~<x>@1"),
    )  # fmt: skip


def test_a_part_is_carried_in_two_halves_whatever_it_is() -> None:
    """What a certificate says of it is only that it is a share of y, which may be negative."""
    after = apply(insert_relu, graph(*a_part()), idempotent=False)
    held = meanings(after, "y~<x>@1+")
    assert [(m.kind, m.tensor, m.positions) for m in held] == [("positive", "y", (0, 1)), ("negative", "y", (2, 3))]
    assert {m.part for m in held} == {ir.Part("y", ("x",), ("b",))}


def test_a_part_has_the_constant_of_its_tensor() -> None:
    after = insert_relu(graph(*a_part()), carry="shift", constant={"y": 64.0})
    assert meanings(after, "y~<x>@1+") == (
        ir.Meaning("shifted", (0, 1), "y", (0, 1), 64.0, ir.Part("y", ("x",), ("b",))),
    )
    require_equal(graph(*a_part()), after)


@pytest.mark.parametrize("carry", ["split", "shift"])
def test_carried_past_three_relus_it_is_copied_twice(carry: Carrying) -> None:
    ops: list[ir.Op] = [source(2, -1.0), conv("a", "x"), ir.Carry(name="a@1", inputs=("a",))]
    for i in (2, 3):
        ops.append(ir.Carry(name=f"a@{i}", inputs=(f"a@{i - 1}",)))
    before = graph(*ops, conv("y", "a@3"))
    after = insert_relu(before, carry=carry, constant=512.0 if carry == "shift" else None)
    require_equal(before, after)
    held = [after[f"a@{i}+"] for i in (1, 2, 3)]
    assert [op.inputs[0] for op in held[1:]] == ["a@1+", "a@2+"]
    assert all(op.meaning == held[0].meaning for op in held if isinstance(op, ir.Relu) and isinstance(held[0], ir.Relu))


def test_too_small_a_shift_is_wrong_which_is_why_it_is_no_default() -> None:
    before = skip_to_conv(residual(), carry="shift")
    after = insert_relu(before, carry="shift", constant=0.5)
    x = integers(1, 2, 4, 5)
    assert not torch.equal(run(before, x), run(after, x))


@pytest.mark.parametrize("constant", [None, 0.0, -1.0, float("nan"), {"y": 1.0}])
def test_a_shift_without_a_constant_is_refused(constant: float | dict[str, float] | None) -> None:
    with pytest.raises(PassError, match="a: a shift needs a constant C > 0 above its largest magnitude, not"):
        insert_relu(skip_to_conv(residual(), carry="shift"), carry="shift", constant=constant)


def slopes(after: ir.Graph) -> dict[str, list[float]]:
    return {op.name: ir.slopes_of(op, 2).tolist() for op in after if isinstance(op, ir.ACTIVATIONS)}


def test_where_a_slope_lets_all_pass_nothing_is_split() -> None:
    after = apply(insert_relu, skip_to_conv(residual(), carry="pass"), idempotent=False, carry="pass")
    assert slopes(after) == {"r": [0, 0], "a@1": [1, 1], "s": [0, 0], "y@2": [1, 1]}
    held = after["y@2"]
    assert isinstance(held, ir.PRelu) and held.meaning == (ir.Meaning("value", (0, 1), "y", (0, 1)),)


def test_beside_relus_what_is_never_negative_is_one_of_them() -> None:
    """And beside slopes it has one of 1, which is right for every image."""
    x = [ir.Carry(name="x@1", inputs=("x",)), conv("b", "r"), add("y", "b", "x@1")]
    relus = graph(source(2, 0.0), conv("a", "x"), relu("r", "a"), *x)
    assert slopes(insert_relu(relus, carry="pass")) == {"r": [0, 0], "x@1": [0, 0]}
    bent = graph(source(2, 0.0), conv("a", "x"), prelu("r", "a", 0.5, -1.0), *x)
    assert slopes(apply(insert_relu, bent, idempotent=False, carry="pass")) == {"r": [0.5, -1], "x@1": [1, 1]}
    carried = [ir.Carry(name="a@1", inputs=("a",)), add("z", "y", "a@1")]
    mixed = graph(source(2, 0.0), conv("a", "x"), relu("r", "a"), *x, *carried)
    assert slopes(insert_relu(mixed, carry="pass")) == {"r": [0, 0], "x@1": [1, 1], "a@1": [1, 1]}
    with pytest.raises(PassError, match="r: a PRelu is for the PReLU form; run activation-to-relu first"):
        insert_relu(bent)
