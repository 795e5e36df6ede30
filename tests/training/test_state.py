"""The state of a run: its average of weights, its best score, and what a checkpoint holds of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.training.losses import Supervised
from memsr_compiler.training.recipe import Recipe
from memsr_compiler.training.state import Average, RunState


def one_weight() -> nn.Linear:
    """A module of one number, 0."""
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(layer.weight)
    return layer


def test_the_average_is_over_fewer_steps_at_first() -> None:
    module = one_weight()
    average = Average(module, decay=0.25)
    expected = 0.0
    for step, decay in ((1, 2 / 11), (2, 0.25), (3, 0.25)):  # (1 + t) / (10 + t) at most
        nn.init.constant_(module.weight, step)
        average.add(module, step)
        expected = decay * expected + (1 - decay) * step
        assert float(average.values["weight"]) == pytest.approx(expected, rel=1e-14)  # a few float64 roundings


def test_the_average_is_lent_and_given_back() -> None:
    module = one_weight()
    state = RunState(Supervised(module), Recipe(average=0.9))
    assert state.average is not None
    nn.init.ones_(module.weight)
    with state.use_average():
        assert module.weight.item() == 0.0
    assert module.weight.item() == 1.0 and state.average.values["network.weight"].item() == 0.0
    with pytest.raises(ZeroDivisionError), state.use_average():
        raise ZeroDivisionError
    assert module.weight.item() == 1.0


def test_the_best_score_is_kept_with_its_step() -> None:
    state = RunState(Supervised(one_weight()), Recipe())
    assert math.isnan(state.best)
    for step, psnr in enumerate((1.0, 5.0, 5.0, 2.0)):
        state.step = step
        state.note_score(psnr)
    assert (state.start, state.best, state.best_step, state.last) == (1.0, 5.0, 1, 2.0)  # the first of equals
    state.forget_best()
    assert math.isnan(state.best) and state.best_step == 0 and state.start == 1.0


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    state = RunState(Supervised(one_weight()), Recipe())
    for step, psnr in enumerate((math.nan, 4.0, math.nan, 3.0, math.nan)):
        state.step = step
        state.note_score(psnr)
        assert state.best_step == min(step, 1)  # the first network is kept while there is no better one
    assert (state.start, state.best) == (4.0, 4.0) and math.isnan(state.last)


def test_a_state_is_restored_as_it_was_and_only_into_its_own_run() -> None:
    def train_a_step() -> RunState:
        module = one_weight()
        state = RunState(Supervised(module), Recipe(steps=5, average=0.9))
        module.weight.grad = torch.ones_like(module.weight)
        state.optimizer.step()
        state.advance()
        state.note_score(3.0)
        return state

    content = train_a_step().content()
    again = RunState(Supervised(one_weight()), Recipe(steps=5, average=0.9))
    again.restore(content)
    assert (again.step, again.best, again.rate) == (1, 3.0, train_a_step().rate)
    assert again.content()["objective"] == content["objective"]
    for recipe, reason in (
        (Recipe(steps=6, average=0.9), "of a run of 5 steps"),
        (Recipe(steps=5), "averages weights"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            RunState(Supervised(one_weight()), recipe).restore(content)


@pytest.mark.parametrize(("steps", "warm_up"), [(9, 0.1), (1, 0.5), (4, 0.2), (99, 0.01)])
def test_a_peak_at_the_first_step_has_no_warm_up(steps: int, warm_up: float) -> None:
    state = RunState(Supervised(one_weight()), Recipe(steps=steps, warm_up=warm_up, rate=1e-3))
    assert state.rate == pytest.approx(1e-3, rel=1e-6)
    rates = []
    for _ in range(steps):
        rates.append(state.rate)
        state.optimizer.step()
        state.advance()
    assert rates == sorted(rates, reverse=True) and state.rate < 1e-6
