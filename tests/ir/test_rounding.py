"""Bounds on rounding: of single numbers, where weights amplify and large terms cancel; what is wrong is far beyond."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import torch
from helpers import graphs
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import NotEquivalent
from memsr_compiler.ir.interpreter import run
from memsr_compiler.ir.pipeline import run_passes
from memsr_compiler.ir.rewrite import Pass
from memsr_compiler.ir.rounding import rounding_at
from memsr_compiler.passes import activation_to_relu

UNIT = 2.0**-53


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def affine(name: str, of: str, scale: float, shift: float) -> ir.Affine:
    return ir.Affine(name=name, inputs=(of,), scale=numbers(scale), shift=numbers(shift))


def gamma(terms: int) -> float:
    return terms * UNIT / (1 - terms * UNIT)


def pixel(value: float) -> Tensor:
    return numbers(value).reshape(1, 1, 1, 1)


def test_what_is_rounded_first_is_amplified_by_what_follows() -> None:
    graph = graphs.graph(graphs.source(1, 0.0), affine("a", "x", 3.0, -2.0), affine("y", "a", 1e4, -1e4))
    x = 0.9
    a = 3 * x - 2
    expected = gamma(2) * (1e4 * (3 * x + 2) + 1e4 * a + 1e4)
    assert float(rounding_at(graph, pixel(x), [(0, 0, 0)], 0.0)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("x", "tie", "slope"), [(0.5, 0.0, 1), (-0.5, 0.0, 0), (-0.5, 1.0, 1), (0.0, 1e-9, 1)])
def test_near_a_kink_the_steeper_slope_counts(x: float, tie: float, slope: int) -> None:
    for bend, other in (
        (ir.Relu(name="r", inputs=("a",)), 0.0),
        (ir.PRelu(name="r", inputs=("a",), slope=numbers(0.25)), 0.25),
        (ir.Clamp(name="r", inputs=("a",), low=0.0, high=9.0), 0.0),
        (ir.Maximum(name="r", inputs=("a", "b")), 0.0),
    ):
        graph = graphs.graph(graphs.source(1), affine("a", "x", 1.0, 0.0), affine("b", "x", 0.0, 0.0), bend)
        own = gamma(1) * abs(x) * (other if x < 0 else 1) if isinstance(bend, ir.PRelu) else 0.0
        found = float(rounding_at(graph, pixel(x), [(0, 0, 0)], tie))
        assert found == pytest.approx(gamma(2) * abs(x) * (slope or other) + own, rel=1e-12, abs=0)


@pytest.mark.parametrize("seed", range(20))
def test_no_run_is_farther_from_exact_numbers(seed: int) -> None:
    """Chains of convolutions of one pixel, whose weights go from 1e-4 to 1e4, in fractions."""
    rng, channels = random.Random(seed), 3
    ops: list[ir.Op] = [graphs.source(channels, -1.0)]
    exact = [Fraction(rng.uniform(-1, 1)) for _ in range(channels)]
    x = numbers(*map(float, exact)).reshape(1, channels, 1, 1)
    for i in range(5):
        weight = [[rng.uniform(-1, 1) * 10 ** rng.randint(-4, 4) for _ in range(channels)] for _ in range(channels)]
        bias = [rng.uniform(-1, 1) * 10 ** rng.randint(-4, 4) for _ in range(channels)]
        kernel = torch.tensor(weight, dtype=torch.float64)[:, :, None, None]
        ops.append(ir.Conv2d(name=f"c{i}", inputs=(ops[-1].name,), weight=kernel, bias=numbers(*bias)))
        exact = [
            sum((Fraction(w) * v for w, v in zip(row, exact, strict=True)), Fraction(b))
            for row, b in zip(weight, bias, strict=True)
        ]
    graph = graphs.graph(*ops)
    found = run(graph, x)[0, :, 0, 0].tolist()
    bounds = rounding_at(graph, x.expand(channels, -1, -1, -1), [(c, 0, 0) for c in range(channels)], 0.0).tolist()
    for value, true, bound in zip(found, exact, bounds, strict=True):
        assert abs(Fraction(value) - true) <= bound


def cancelling() -> ir.Graph:
    """The larger of a small number and a large negative one, amplified: as x + relu(y - x) it is rounded where x is."""
    return graphs.graph(
        graphs.source(1, 0.0), affine("a", "x", 2.7, 0.1), affine("b", "x", -3.1, -1e4 / 3),
        ir.Maximum(name="m", inputs=("b", "a")), affine("y", "m", 1e4, 0.0),
    )  # fmt: skip


def test_a_right_pass_whose_rounding_is_amplified_is_no_wrong_one() -> None:
    """It was said to have changed the network."""
    (_, (report,)) = run_passes(cancelling(), [activation_to_relu])
    assert 1e-10 < report.deviation <= report.bound < 1e-7


@pytest.mark.parametrize("by", [1e-10, -1e-6, 1.0])
def test_a_wrong_pass_is_one_there_too(by: float) -> None:
    def wrong(graph: ir.Graph) -> ir.Graph:
        right = activation_to_relu(graph)
        last = affine("y", right["y"].inputs[0], 1e4 * (1 + by), 0.0)
        return ir.Graph((*right.ops[:-1], last), right.output)

    with pytest.raises(NotEquivalent, match="wrong changed what the network computes"):
        run_passes(cancelling(), [Pass("wrong", "", wrong, (ir.Op,), ())])
