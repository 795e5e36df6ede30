"""Straight pieces fitted to curves: exact where that can be, closer with more of them, and where the inputs lie."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler.ir import Graph, Input
from memsr_compiler.ir.approximation import Replacement, replacement_ops
from memsr_compiler.ir.interpreter import run
from memsr_compiler.trace.approximate.fit import ENOUGH, fit_curve


def samples(*centres: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(centres), 1000, generator=generator, dtype=torch.float64)
    return noise + torch.tensor(centres, dtype=torch.float64)[:, None]


def missed(r: Replacement, x: Tensor, y: Tensor) -> Tensor:
    return (r.evaluate(x[None, :, None])[0, :, 0] - y).square().mean(dim=1)


@pytest.mark.parametrize("curve", [F.gelu, F.silu, torch.sigmoid, torch.tanh, F.softplus, F.hardswish, F.mish])
def test_the_error_falls_with_the_number_of_relus(curve: Callable[[Tensor], Tensor]) -> None:
    x = samples(0.0, 0.5, -1.0)
    y = curve(x)
    errors = [float(missed(fit_curve("a", "curve", x, y, relus=n), x, y).mean()) for n in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < errors[0] / 4 and errors[3] <= 2 * ENOUGH * float(y.var())
    chosen = fit_curve("a", "curve", x, y)
    assert float(missed(chosen, x, y).mean()) <= max(ENOUGH * float(y.var(dim=1).mean()), errors[3])


def test_curves_of_straight_pieces_are_met() -> None:
    x = samples(0.0, 1.0)
    y = F.leaky_relu(x - 0.25, 0.1)
    r = fit_curve("a", "leaky", x, y)
    assert len(r.knots) == 1 and any(r.scale)
    assert float(missed(r, x, y).max()) < 1e-3 * float(y.var())
    level = fit_curve("a", "relu", x, F.relu(x))
    assert len(level.knots) == 1 and level.scale == (0.0,)


def test_each_channel_is_fitted_where_its_inputs_lie() -> None:
    x = samples(-4.0, 0.0, 6.0)
    y = F.gelu(x)
    r = fit_curve("a", "gelu", x, y)
    right = torch.linspace(4, 8, 50, dtype=torch.float64).expand(3, 50)
    assert float((r.evaluate(right[None, :, None])[0, 2, 0] - right[2]).abs().max()) < 0.05
    assert float(missed(r, x, y)[0]) < 1e-3


@pytest.mark.parametrize("sloped", [False, True])
def test_the_ops_compute_what_the_numbers_say(sloped: bool) -> None:
    knots = ((0.25, -1.0), (0.5,))
    r = Replacement("act", "curve", (0.5, -2.0) if sloped else (0.0,), (1.0, 3.0), knots, ((2.0, 1.0), (-1.5, 0.25)))
    ops = replacement_ops(r, "x", 2)
    graph = Graph((Input(name="x", channels=2), *ops), "act")
    x = torch.arange(-16, 16, dtype=torch.float64).reshape(1, 2, 4, 4) / 8
    assert torch.equal(run(graph, x), r.evaluate(x))
    assert sum("relu" in op.name for op in ops) == (3 if sloped else 2)


def test_one_knot_and_none() -> None:
    x = torch.arange(-8, 8, dtype=torch.float64).reshape(1, 1, 4, 4)
    for r in (
        Replacement("act", "gate", (0.5,), (1.0,)),
        Replacement("act", "c", (0.0,), (1.0,), ((2.0,),), ((3.0,),)),
    ):
        ops = replacement_ops(r, "x", 1)
        assert ops[-1].name == "act"
        assert torch.equal(run(Graph((Input(name="x", channels=1), *ops), "act"), x), r.evaluate(x))


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "gate", "scale": [1.0], "shift": [0.0]},
        {"name": "a", "kind": "gate", "scale": [], "shift": [0.0]},
        {"name": "a", "kind": "gate", "scale": [float("nan")], "shift": [0.0]},
        {"name": "a", "kind": "gate", "scale": [1.0], "shift": [0.0], "knots": [[1.0]]},
        {"name": "a", "kind": "gate", "scale": ["x"], "shift": [0.0]},
        {"name": "a", "kind": "gate", "scale": [1.0], "shift": [0.0], "knots": [[1.0]] * 17, "slopes": [[1.0]] * 17},
    ],
)
def test_damaged_numbers_are_refused(data: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Replacement.from_data(data)


def test_numbers_are_read_as_they_were_written() -> None:
    for r in (
        Replacement("body.0.gate", "gate", (0.5, 0.25)),
        Replacement("act", "gelu", (0.0,), (1.0,), ((0.5,), (1.0,)), ((2.0,), (3.0,))),
    ):
        assert Replacement.from_data(r.to_data()) == r
