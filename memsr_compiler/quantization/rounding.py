"""A layer's weights rounded to integers, one after the other, each making up for those before it.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (ICLR 2023), on
top of a least-squares fit: the layer is to give what the exact one gives, from inputs that are rounded already.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memsr_compiler.student.statistics.moments import Regression

PRIOR = 1e-4  # of the exact weights, in parts of an input's mean variance
_LEFT = 1e-12  # of the mean square: what float64 leaves of the variance of what never varies, of either sign
_LEAST = 1e-200  # whose inverse is a number, and what that is times


def round_weights(exact: Tensor, steps: Tensor, limit: int, lost: Regression) -> tuple[Tensor, Tensor]:
    """Integers q (O, I), and biases (O,) to add to the exact ones, float64, for which steps * q reads its inputs best.

    exact   (O, I) weights;   steps   (O,), what 1 means in each row;   limit   q lies in [-limit, limit]
    lost    of the inputs x (I + 1, N), the last one 1, that the rounded layer reads, and of what the exact layer's
            output, bias included, has beyond exact @ x + bias there

    With fewer samples than inputs the weights are hardly changed but for being rounded to the nearest: each input
    counts as if I more samples said that it is independent of the others.
    """
    exact, steps = exact.double(), steps.double()
    covariance = lost.inputs.covariance[:-1, :-1]
    variance = covariance.diagonal().clamp_min(0)
    share = len(variance) / (len(variance) + lost.inputs.count)
    floor = PRIOR * variance.mean() + _LEFT * lost.inputs.second.diagonal()[:-1].max()
    floor = floor if floor > _LEAST else torch.ones_like(floor)  # of inputs that are all 0
    trusted = (1 - share) * covariance + torch.diag(share * variance + floor)
    wanted = exact + (1 - share) * torch.linalg.solve(trusted, lost.covariance[:-1]).T
    nearest = (wanted / steps[:, None]).round().clamp(-limit, limit)
    integers = _one_by_one(wanted, steps, limit, trusted)
    losses = [_loss(wanted - q * steps[:, None], trusted) for q in (integers, nearest)]
    integers = torch.where((losses[0] <= losses[1])[:, None], integers, nearest)  # the former is greedy, not best
    mean = lost.inputs.mean[:-1]
    return integers, lost.total / lost.inputs.count + (exact - integers * steps[:, None]) @ mean


def _loss(error: Tensor, covariance: Tensor) -> Tensor:
    """Mean square (O,) of what each row's errors (O, I) are in the output."""
    return ((error @ covariance) * error).sum(1)


def _one_by_one(wanted: Tensor, steps: Tensor, limit: int, covariance: Tensor) -> Tensor:
    """Round columns in the order of falling variance; those after one take over what rounding it loses, as far as they
    are correlated with it: the Cholesky factor of the inverse says how far.
    """
    order = covariance.diagonal().argsort(descending=True)
    inverse = torch.linalg.inv(covariance[order][:, order])
    factor = torch.linalg.cholesky((inverse + inverse.T) / 2, upper=True)
    left = wanted[:, order]
    integers = torch.empty_like(left)
    for j in range(left.shape[1]):
        integers[:, j] = (left[:, j] / steps).round().clamp(-limit, limit)
        error = (left[:, j] - integers[:, j] * steps) / factor[j, j]
        left[:, j + 1 :] -= torch.outer(error, factor[j, j + 1 :])
    return integers[:, order.argsort()]
