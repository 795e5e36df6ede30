"""Algorithm 1, Eq. 5 to 11 and 15 on tensors alone, against an SVD of the features themselves and lstsq."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.levels import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler.student.paper.algorithm1 import Basis, NegativeEntries, PrincipalComponents, split_constant
from memsr_compiler.student.statistics.moments import Moments

EPS = torch.finfo(torch.float64).eps
BETA = 3.0


def correlated(channels: int, samples: int, seed: int) -> Tensor:
    """Features (C, N) whose singular values fall by half from one to the next, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    left: Tensor = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64))[0]
    right = torch.randn(channels, samples, generator=generator, dtype=torch.float64)
    falling = torch.full((channels, 1), 0.5, dtype=torch.float64).pow(torch.arange(channels)[:, None])
    return left @ (falling * right) + noise(channels, 1, seed=seed)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(2, 6), st.integers(1, 6))
def test_a_basis_is_the_best_of_its_width_and_eq_15_its_error(seed: int, channels: int, width: int) -> None:
    f = correlated(channels, 60, seed)
    r = min(width, channels)
    parts = PrincipalComponents.of(Moments.of(f), "centred")
    basis = parts.basis(r, ones=False)
    centred = f - f.mean(1, keepdim=True)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    # Eigenvectors of the covariance: its entries are rounded by eps of the largest singular value squared, which turns
    # a direction by that over the gap to its neighbours, here 3/4 of its own value squared: 4^C eps at most.
    bound = 100 * 4.0**channels * EPS
    projection = basis.directions @ basis.directions.T
    torch.testing.assert_close(projection, u[:, :r] @ u[:, :r].T, rtol=0, atol=bound)
    assert parts.error(r) ** 2 == pytest.approx(float(s[r:].square().sum() / s.square().sum()), abs=bound)
    assert [parts.error(k) for k in range(channels + 1)] == sorted(parts.error(k) for k in range(channels + 1))[::-1]
    theta = (parts.error(r - 1) + parts.error(r)) / 2
    assert parts.narrowest(theta) == r


def test_features_come_back_from_components_shifted_or_not() -> None:
    """F = M F^S + mean - M gamma at full rank, whatever gamma: the corrected bias of Algorithm 1."""
    f = correlated(5, 40, 1)
    parts = PrincipalComponents.of(Moments.of(f), "centred")
    for ones in (False, True):
        basis = parts.basis(5 + ones, ones)
        negative = sum(
            (NegativeEntries.of(basis.components(part)) for part in torch.split(f, 7, dim=1)), NegativeEntries.none(5)
        )
        gamma = negative.mean_shift(BETA, "negative")
        own = basis.components(f)
        want = torch.stack([-BETA * row[row < 0].mean() for row in own])
        torch.testing.assert_close(gamma, want, rtol=1e-13, atol=0)  # sums of 40 numbers in another order
        held = basis.with_shift(gamma).components(f) + gamma[:, None]
        rows = torch.cat(
            [torch.ones(1, 40, dtype=torch.float64)] * ones + [held, torch.ones(1, 40, dtype=torch.float64)]
        )
        shifted = basis.with_shift(gamma)
        torch.testing.assert_close(shifted.map @ rows, f, rtol=0, atol=1e-13)
        torch.testing.assert_close((shifted.lifted @ rows.roll(1, 0))[1:], f, rtol=0, atol=1e-13)


def test_mean_shifts_by_text_and_by_code() -> None:
    components = torch.tensor([[-1.0, 2.0, -3.0, 4.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    entries = NegativeEntries.of(components)
    assert entries.mean_shift(3.0, "negative").tolist() == [6.0, 0.0]
    assert entries.mean_shift(3.0, "all").tolist() == [3.0, 0.0]
    assert entries.lowest.tolist() == [-3.0, 0.0]


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("ones", [False, True])
def test_the_students_kernel_is_least_squares(k: int, ones: bool) -> None:
    """Eq. 8 to 11: M K^S = K M_below as well as can be, tap by tap, the constant aside."""
    below = PrincipalComponents.of(Moments.of(correlated(4, 50, 2)), "centred").basis(3, ones)
    above = PrincipalComponents.of(Moments.of(correlated(5, 50, 3)), "centred").basis(3, ones=False)
    kernel = noise(5, 5, k, k, seed=4) - 0.5
    weight, bias = above.solve_kernel(kernel, below.lifted, ones)
    target = torch.einsum("omij,mr->orij", kernel, below.lifted)
    target[:, 0, k // 2, k // 2] -= above.mean
    want = torch.linalg.lstsq(above.directions, target.flatten(1)).solution.reshape(3, -1, k, k)
    torch.testing.assert_close(weight[:, int(ones) :], want[:, 1 + ones :], rtol=0, atol=1e-13)
    if ones:
        torch.testing.assert_close(bias, want[:, 0, k // 2, k // 2], rtol=0, atol=1e-13)


@pytest.mark.parametrize("ones", [False, True])
def test_a_kernel_on_the_constant_is_split_into_kernel_and_bias(ones: bool) -> None:
    """Small integers: exact.  With a channel of ones up to the border, without it where the kernel reads no border."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randint(-3, 4, (2, 4, 3, 3), generator=generator).double()
    x = torch.randint(-3, 4, (1, 3, 5, 6), generator=generator).double()
    constant = torch.ones(1, 1, 5, 6, dtype=torch.float64)
    if ones:
        x[:, :1] = constant
    weight, bias = split_constant(kernel, ones)
    got, want = F.conv2d(x, weight, bias, padding=1), F.conv2d(torch.cat([constant, x], 1), kernel, padding=1)
    inside = slice(None) if ones else slice(1, -1)
    assert torch.equal(got[:, :, inside, inside], want[:, :, inside, inside])
    assert ones or not torch.equal(got, want)


def test_a_complete_basis_is_the_identity() -> None:
    basis = Basis.complete(3, 8, ones=True)
    assert torch.equal(basis.map[:, 1:4], torch.eye(3, dtype=torch.float64)) and not basis.map[:, 4:].any()
    assert basis.width == 8 and not basis.map[:, 0].any()
