"""Piecewise-linear functions fitted to samples of others, a function a channel, by least squares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memsr_compiler.ir.approximation import Replacement, pack_numbers

CANDIDATES = 48  # places for a knot, at equal steps of the inputs' distribution
SWEEPS = 3  # times that each knot is moved while the others stay
ENOUGH = 1e-3  # share of the variance that may be missed: beyond that a knot more is taken
MOST = 4  # ReLUs for each channel
RIDGE = 1e-9
_TOGETHER = 1 << 20  # numbers of the samples' functions held at once


def fit_curve(name: str, kind: str, x: Tensor, y: Tensor, *, relus: int | None = None) -> Replacement:
    """The function of a few straight pieces that is closest to y as a function of x.

    x, y    (C, samples), float64: what lies before and behind an activation
    relus   for each channel; None: as few as miss a thousandth of the variance, at most four

    With a level first piece, which needs a ReLU less, where that is enough.
    """
    spread = y.var(dim=1).mean().clamp_min(1e-30)
    moments = _Moments.of(x, y)
    best: tuple[float, Tensor, Tensor] | None = None
    for count in range(1, MOST + 1) if relus is None else (relus,):
        for sloped in (False, True):
            knots = count - sloped
            if knots < 1:
                continue
            at, weights, missed = _fit(moments, knots, sloped)
            if best is None or missed < best[0]:
                best = missed, at, weights
        assert best is not None, "one knot is always tried"
        if best[0] <= ENOUGH * float(spread):
            break
    assert best is not None, "one count is always tried"
    _, at, weights = best
    return Replacement(
        name,
        kind,
        scale=pack_numbers(weights[:, 1]),
        shift=pack_numbers(weights[:, 0]),
        knots=tuple(pack_numbers(column) for column in at.T),
        slopes=tuple(pack_numbers(column) for column in weights[:, 2:].T),
    )


@dataclass(frozen=True)
class _Moments:
    """Means over the samples that every least squares fit of pieces with knots at the candidates is made of.

    places   (C, candidates), in order
    second   (C, n, n), of products of 1, x and relu(x - place) for each place;   first   (C, n), of these with y
    square   (C,), of y
    """

    places: Tensor
    second: Tensor
    first: Tensor
    square: Tensor

    @staticmethod
    def of(x: Tensor, y: Tensor) -> _Moments:
        """Moments of samples (C, samples)."""
        channels, samples = x.shape
        places = torch.quantile(x, torch.linspace(0, 1, CANDIDATES + 2, dtype=x.dtype)[1:-1], dim=1).T
        second, first = x.new_zeros(channels, CANDIDATES + 2, CANDIDATES + 2), x.new_zeros(channels, CANDIDATES + 2)
        length = max(_TOGETHER // (channels * (CANDIDATES + 2)), 1)
        for some, results in zip(torch.split(x, length, dim=1), torch.split(y, length, dim=1), strict=True):
            bends = (some[:, None] - places[:, :, None]).relu()
            basis = torch.cat([torch.ones_like(some)[:, None], some[:, None], bends], dim=1)  # (C, n, samples)
            second += basis @ basis.mT / samples
            first += (basis @ results[:, :, None])[:, :, 0] / samples
        return _Moments(places, second, first, y.square().mean(dim=1))


def _fit(moments: _Moments, knots: int, sloped: bool) -> tuple[Tensor, Tensor, float]:
    """Knots (C, K), weights (C, 2 + K) of 1, x and the ReLUs, and the mean squared error.

    The knots are placed one by one, each where it helps most, and then moved in turn.
    """
    at = torch.zeros(len(moments.places), 0, dtype=torch.long)  # which of the candidates
    for _ in range(knots):
        at = torch.cat([at, _best_place(moments, at, sloped)], dim=1)
    for _ in range(SWEEPS if knots > 1 else 0):
        for k in range(knots):
            others = torch.cat([at[:, :k], at[:, k + 1 :]], dim=1)
            at = torch.cat([others, _best_place(moments, others, sloped)], dim=1)
    at = at.sort(dim=1).values
    weights, missed = _solve(moments, at[:, None], sloped)
    return moments.places.gather(1, at), weights[:, 0], float(missed.mean())


def _best_place(moments: _Moments, at: Tensor, sloped: bool) -> Tensor:
    """The candidate (C, 1) at which another knot leaves the least."""
    each = torch.arange(CANDIDATES).expand(len(at), CANDIDATES)[:, :, None]
    tried = torch.cat([at[:, None].expand(-1, CANDIDATES, -1), each], dim=2)
    return _solve(moments, tried, sloped)[1].argmin(dim=1, keepdim=True)


def _solve(moments: _Moments, at: Tensor, sloped: bool) -> tuple[Tensor, Tensor]:
    """Least squares for several choices of knots each, candidates (C, T, K).

    Weights (C, T, 2 + K), that of x zero unless sloped, and mean squared errors (C, T).
    """
    first = torch.arange(2 if sloped else 1).expand(*at.shape[:2], -1)
    terms = torch.cat([first, at + 2], dim=2)  # (C, T, m)
    channels = torch.arange(len(at))[:, None, None]
    second = moments.second[channels[..., None], terms[..., :, None], terms[..., None, :]]
    products = moments.first[channels, terms]
    scale = second.diagonal(dim1=2, dim2=3).mean(dim=2)[..., None, None]
    damping = (RIDGE * scale + 1e-30) * torch.eye(terms.shape[2]).to(second)
    weights = torch.linalg.solve(second + damping, products)
    taken = ((second @ weights[..., None])[..., 0] - 2 * products) * weights
    missed = (moments.square[:, None] + taken.sum(dim=2)).clamp_min(0)
    if not sloped:
        weights = torch.cat([weights[..., :1], torch.zeros_like(weights[..., :1]), weights[..., 1:]], dim=2)
    return weights, missed
