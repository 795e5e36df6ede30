"""Terms of forms: how much float64 may have lost of each number, by hand and against exact fractions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from helpers import graphs
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.proof.forms import SPARE_STEPS, HeldLevel, Known, LinearForm, never_negative

ONE = ir.Meaning("one", (3,))


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conv(name: str, operand: str, c_out: int, c_in: int, k: int = 1) -> ir.Conv2d:
    """A convolution whose numbers are no integers."""
    weight, bias = numbers(c_out, c_in, k, k, seed=len(name)), numbers(c_out, seed=ord(name[0]))
    return replace(graphs.conv(name, operand, c_out, c_in, k), weight=weight, bias=bias)


def affine(name: str, operand: str, width: int) -> ir.Affine:
    return ir.Affine(
        name=name,
        inputs=(operand,),
        scale=numbers(width, seed=ord(name[0])),
        shift=numbers(width, seed=ord(name[0]) + 1),
    )


def level_of(graph: ir.Graph, *meanings: ir.Meaning) -> HeldLevel:
    return HeldLevel(Known(graph, never_negative(graph)), 1, meanings, nonnegative=True)


def image(kind: str = "value", constant: float = 0.0) -> ir.Meaning:
    return ir.Meaning(kind, (0, 1, 2), "x", (0, 1, 2), constant)  # type: ignore[arg-type]


def test_what_a_level_s_channels_reach_is_what_their_tensors_do() -> None:
    """Each of the pixels folded into a channel as much as the channel; a channel that is not there nothing."""
    graph = ir.Graph(
        (
            graphs.source(2, 0.0),
            graphs.conv("a", "x", 8, 2),
            ir.PixelShuffle(name="s", inputs=("a",), factor=2),
            graphs.conv("y", "s", 1, 2),
        ),
        "y",
    )
    reach = {"x": numbers(2, seed=0).abs(), "s": torch.tensor([3.0, 5.0]).double()}
    meanings = [
        ir.Meaning("value", (4, -1, 0, 2), "s", (1, 7, 6, 3)),
        ir.Meaning("positive", (-1, -1), "x", (0, 1)),
        ir.Meaning("shifted", (1,), "x", (1,), 100.0),
        ir.Meaning("one", (3,)),
        ir.Meaning("zero", (5,)),
    ]
    level = HeldLevel(Known(graph, frozenset(), lambda: reach), 1, meanings, nonnegative=True)
    assert level.reach().tolist() == [5.0, float(reach["x"][1]), 3.0, 1.0, 3.0, 0.0]
    assert not HeldLevel(Known(graph, frozenset()), 1, meanings, nonnegative=True).reach().any()


def absolute(graph: ir.Graph) -> ir.Graph:
    """The same teacher with the absolute value of every number."""

    def of(op: ir.Op) -> ir.Op:
        tensors = {f.name: getattr(op, f.name) for f in fields(op)}
        return replace(op, **{name: v.abs() for name, v in tensors.items() if isinstance(v, Tensor)})  # type: ignore[arg-type]

    return ir.Graph(tuple(map(of, graph)), graph.output)


def teachers() -> dict[str, ir.Graph]:
    """Definitions of every linear kind, through one another, with terms that cancel."""
    x = graphs.source(3, 0.0)
    less = replace(conv("less", "x", 3, 3), weight=-0.999 * torch.eye(3).double()[:, :, None, None])
    rest = (less, graphs.add("s", "x", "less"))
    ends: dict[str, Sequence[ir.Op]] = {
        "sum": (),
        "biases that cancel": (replace(less, name="more", bias=-0.99 * less.bias), graphs.add("y", "s", "more")),
        "affine": (affine("y", "s", 3),),
        "1x1": (conv("y", "s", 4, 3),),
        "3x3": (conv("y", "s", 2, 3, 3),),
        "3x3 of several": (conv("u", "x", 4, 3), conv("y", "u", 2, 4, 3)),
        "5x5 of a sum of others": (conv("u", "x", 3, 3), graphs.add("v", "u", "s"), conv("y", "v", 1, 3, 5)),
        "concat": (conv("u", "x", 2, 3, 3), ir.Concat(name="y", inputs=("s", "u"))),
        "select": (ir.Select(name="y", inputs=("s",), index=(2, 0)),),
        "shuffle": (conv("u", "s", 4, 3), ir.PixelShuffle(name="y", inputs=("u",), factor=2)),
        "sum of 3x3": (conv("u", "x", 3, 3, 3), conv("v", "s", 3, 3), graphs.add("y", "u", "v", "s")),
        "groups": (graphs.conv("y", "s", 3, 3, 3, groups=3),),
    }
    return {name: graphs.graph(x, *rest, *end) for name, end in ends.items()}


@pytest.mark.parametrize("name", teachers())
def test_terms_are_those_of_the_same_sum_without_signs(name: str) -> None:
    graph = teachers()[name]
    form = level_of(graph, image(), ONE).form(graph.output)
    without_signs = level_of(absolute(graph), image(), ONE).form(graph.output)
    assert torch.allclose(form.terms, without_signs.kernel, rtol=1e-12, atol=0)
    assert torch.allclose(form.bias_terms, without_signs.bias, rtol=1e-12, atol=0)
    assert torch.allclose(without_signs.terms, without_signs.kernel, rtol=1e-12, atol=0)


def exact(tensor: Tensor) -> Any:
    """Numbers as fractions, which lose nothing."""
    return np.vectorize(Fraction, otypes=[object])(tensor.numpy())


@pytest.mark.parametrize("seed", range(4))
def test_what_float64_loses_is_within_the_slack(seed: int) -> None:
    """y = b * (x + a x), a nearly -1: a thousandth is left.  Half of the slack is the other computation's."""
    a = replace(
        conv("a", "x", 3, 3), weight=-torch.eye(3).double()[:, :, None, None] + numbers(3, 3, 1, 1, seed=seed) / 1e3
    )
    b = replace(conv("b", "s", 2, 3, 3), weight=numbers(2, 3, 3, 3, seed=seed + 9))
    graph = graphs.graph(graphs.source(3, 0.0), a, graphs.add("s", "x", "a"), b)
    form = level_of(graph, image(), ONE).form("b")
    kernel, matrix = exact(b.weight), exact(a.weight)[:, :, 0, 0] + exact(torch.eye(3).double())
    composed = np.einsum("omij,mc->ocij", kernel, matrix)
    constant = np.einsum("omij,m->oij", kernel, exact(a.bias))
    bias = exact(b.bias) + constant[:, 1, 1]
    constant[:, 1, 1] = 0
    for have, want, terms in (
        (form.kernel, np.concatenate([composed, constant[:, None]], 1), form.terms),
        (form.bias, bias, form.bias_terms),
    ):
        off = torch.from_numpy((exact(have) - want).astype(float)).abs()
        assert off.any() and (off <= form.slack / 2 * terms).all()


def test_the_slack_is_two_roundings_for_each_step() -> None:
    """One of this form's own, one of the compiler's."""
    nothing = torch.zeros(1).double()
    for steps in (0, 1, 1000):
        form = LinearForm(torch.zeros(1, 1, 1, 1).double(), nothing, nothing, steps=steps)
        assert form.slack == (2 * steps + SPARE_STEPS) * 2.0**-53


def test_every_operation_counts_its_steps() -> None:
    """A product and a sum for each term that one number has."""
    graph = graphs.graph(graphs.source(3, 0.0), conv("a", "x", 3, 3), conv("b", "a", 2, 3, 3), affine("y", "b", 2))
    level = level_of(graph, image(), ONE)
    steps = [level.form(name).steps for name in "xaby"]
    assert steps[0] == 0 and all(b - a >= n for a, b, n in zip(steps, steps[1:], (4, 5, 2), strict=False))
    read = level.form("x")
    for operate in OPERATIONS:
        assert operate(replace(read, steps=7)).steps >= 7


OPERATIONS: tuple[Callable[[LinearForm], LinearForm], ...] = (
    lambda form: form.pick([0]),
    lambda form: form.take(2),
    lambda form: form.pad(3),
    lambda form: form + replace(form, steps=0),
    lambda form: replace(form, steps=0) + form,
)


@pytest.mark.parametrize("constant", [0.5, 1000.0])
def test_the_constant_of_a_shift_is_a_term(constant: float) -> None:
    """z - C loses of C what it loses, though 0 may be left of it; through taps C is a term at the border too."""
    back = ir.Affine(name="s", inputs=("x",), scale=torch.ones(3).double(), shift=torch.full((3,), constant).double())
    y = conv("y", "s", 1, 3, 3)
    level = level_of(graphs.graph(graphs.source(3, 0.0), back, y), image("shifted", constant), ONE)
    read, shifted, form = level.form("x"), level.form("s"), level.form("y")
    assert torch.equal(read.bias, torch.full((3,), -constant).double())
    assert torch.equal(read.bias_terms, torch.full((3,), constant).double())
    assert not shifted.bias.any() and torch.equal(shifted.bias_terms, torch.full((3,), 2 * constant).double())
    taps = 2 * constant * y.weight.abs().sum(1)[0]
    assert float(form.bias_terms) == pytest.approx(float(abs(y.bias) + taps[1, 1]))
    taps[1, 1] = 0
    assert not form.kernel[0, 3].any() and torch.allclose(form.terms[0, 3], taps)


def test_a_form_is_at_least_zero_only_beyond_what_it_may_have_lost() -> None:
    graph = graphs.graph(graphs.source(3, 0.0), conv("y", "x", 1, 3))
    level = level_of(graph, image(), ONE)
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    kernel = torch.zeros(1, 4, 1, 1).double()
    slack = SPARE_STEPS * 2.0**-53
    for number, right in ((0.0, False), (0.9 * slack, False), (1.1 * slack, True), (-1.1 * slack, False), (1.0, True)):
        assert level.at_least_zero(LinearForm(kernel, number * one, one)) is right
        in_kernel = replace(
            LinearForm(kernel, zero, zero), kernel=kernel.clone(), kernel_terms=torch.zeros_like(kernel)
        )
        in_kernel.kernel[0, 2], in_kernel.terms[0, 2] = number, 1.0
        assert level.at_least_zero(in_kernel) is right
    assert level.at_least_zero(LinearForm(kernel, zero, zero))
    assert not level_of(graph, replace(image(), positions=(0, 1, 2))).at_least_zero(LinearForm(kernel, -one, one))
