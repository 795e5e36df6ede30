"""Piecewise-linear functions fitted to samples of others, a function a channel, by least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from memsr_compiler.ir.approximation import Replacement, pack_numbers

CANDIDATES = 48  # places for a knot, at equal steps of the inputs' distribution
SWEEPS = 3  # times that each knot is moved while the others stay
ENOUGH = 1e-3  # share of the variance that may be missed: beyond that a knot more is taken
MOST = 4  # ReLUs for each channel
RIDGE = 1e-9


def fit_curve(name: str, kind: str, x: Tensor, y: Tensor, *, relus: int | None = None) -> Replacement:
    """The function of a few straight pieces that is closest to y as a function of x.

    x, y    (C, samples), float64: what lies before and behind an activation
    relus   for each channel; None: as few as miss a thousandth of the variance, at most four

    With a level first piece, which needs a ReLU less, where that is enough.
    """
    spread = y.var(dim=1).mean().clamp_min(1e-30)
    best: tuple[float, Tensor, Tensor] | None = None
    for count in range(1, MOST + 1) if relus is None else (relus,):
        for sloped in (False, True):
            knots = count - sloped
            if knots < 1:
                continue
            at, weights, missed = _fit(x, y, knots, sloped)
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


def _fit(x: Tensor, y: Tensor, knots: int, sloped: bool) -> tuple[Tensor, Tensor, float]:
    """Knots (C, K), weights (C, 2 + K) of 1, x and the ReLUs, and the mean squared error.

    The knots are placed one by one, each where it helps most, and then moved in turn.
    """
    places = torch.quantile(x, torch.linspace(0, 1, CANDIDATES + 2, dtype=x.dtype)[1:-1], dim=1).T  # (C, candidates)
    at = places[:, :0]
    for _ in range(knots):
        at = torch.cat([at, _best_place(x, y, at, places, sloped)], dim=1)
    for _ in range(SWEEPS if knots > 1 else 0):
        for k in range(knots):
            others = torch.cat([at[:, :k], at[:, k + 1 :]], dim=1)
            at = torch.cat([others, _best_place(x, y, others, places, sloped)], dim=1)
    at = at.sort(dim=1).values
    weights, missed = _solve(x, y, at, sloped)
    return at, weights, float(missed.mean())


def _best_place(x: Tensor, y: Tensor, at: Tensor, places: Tensor, sloped: bool) -> Tensor:
    """The place (C, 1) at which another knot leaves the least."""
    missed = [_solve(x, y, torch.cat([at, place[:, None]], dim=1), sloped)[1] for place in places.T]
    return places.gather(1, torch.stack(missed, dim=1).argmin(dim=1, keepdim=True))


def _solve(x: Tensor, y: Tensor, at: Tensor, sloped: bool) -> tuple[Tensor, Tensor]:
    """Least squares with these knots: weights (C, 2 + K), that of x zero unless sloped, and squared errors (C,)."""
    columns = [torch.ones_like(x), *([x] if sloped else []), *((x - knot[:, None]).relu() for knot in at.T)]
    basis = torch.stack(columns, dim=2)  # (C, samples, K + 1 or 2)
    second = basis.transpose(1, 2) @ basis
    damping = RIDGE * second.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] * torch.eye(len(columns)).to(x)
    weights = torch.linalg.solve(second + damping + 1e-30 * torch.eye(len(columns)).to(x), basis.mT @ y[:, :, None])
    missed = (basis @ weights - y[:, :, None]).square().mean(dim=(1, 2))
    weights = weights[:, :, 0]
    return weights if sloped else torch.cat([weights[:, :1], 0 * weights[:, :1], weights[:, 1:]], dim=1), missed
