"""Muon: its steps are orthogonal, of Adam's size, and find the minimum."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from memsr_compiler.training.muon import Muon, orthogonalise


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_singular_values_are_brought_near_1(rows: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    matrix = torch.randn(rows, columns)
    before, after = torch.linalg.svd(matrix), torch.linalg.svd(orthogonalise(matrix))
    felt = before.S / before.S[0] > 0.02  # what is far smaller takes more rounds
    assert bool((after.S[felt] > 0.3).all()) and bool((after.S < 1.3).all())


def test_a_step_is_as_large_as_adams() -> None:
    """0.2 of the learning rate for each number of a kernel, whatever its shape; for a bias the rate, at first."""
    torch.manual_seed(0)
    kernel, bias = nn.Parameter(torch.zeros(16, 16, 3, 3)), nn.Parameter(torch.zeros(16))
    optimizer = Muon([kernel, bias], lr=0.01)
    kernel.grad, bias.grad = torch.randn_like(kernel), torch.randn_like(bias)
    optimizer.step()
    assert float(kernel.detach().pow(2).mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.3)
    assert bias.detach().abs() == pytest.approx(torch.full((16,), 0.01), rel=1e-3)


def test_its_state_goes_on() -> None:
    """Two steps, or one, a checkpoint, and another: the same weights, bit for bit."""

    def begin() -> tuple[nn.Conv2d, Muon]:
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3)
        return conv, Muon(conv.parameters(), lr=0.01)

    def step(conv: nn.Conv2d, optimizer: Muon) -> None:
        conv(torch.ones(1, 3, 5, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    conv, optimizer = begin()
    step(conv, optimizer)
    other, resumed = begin()
    other.load_state_dict(conv.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net, steps in ((conv, optimizer), (other, resumed)):
        step(net, steps)
    assert all(torch.equal(p, q) for p, q in zip(conv.parameters(), other.parameters(), strict=True))


def test_it_finds_a_kernel() -> None:
    torch.manual_seed(0)
    wanted, found = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
    optimizer = Muon(found.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, 200)
    x = torch.randn(8, 3, 10, 10)
    for _ in range(200):
        loss = (found(x) - wanted(x).detach()).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    assert float(loss.detach()) < 1e-4
