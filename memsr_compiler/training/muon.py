"""Muon: a kernel's momentum, made orthogonal before the step, so that all of its directions move alike.

A derived student's gradients live in few directions of each kernel; Adam, which scales numbers one by one, follows
these and leaves the rest.  Jordan et al. 2024 (Muon); steps scaled to Adam's size: Liu et al. 2025, arXiv 2502.16982.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration: they take every singular value to about 1 in five rounds (Jordan et al. 2024)."""
_ROUNDS = 5
_ADAMS_SIZE = 0.2  # root mean square of Adam's steps, in learning rates, as it is met in training


class Muon(torch.optim.Optimizer):
    """Muon for kernels, Adam for whatever has one dimension.

    Its state is a momentum for each kernel, half of Adam's; the learning rate is Adam's, too.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.95) -> None:
        """Take the parameters to be trained.

        lr        as for Adam;   momentum   of kernels; biases have Adam's own, 0.9 and 0.999
        """
        every = list(parameters)
        groups = [
            {"params": [p for p in every if p.ndim > 1], "kernels": True},
            {"params": [p for p in every if p.ndim <= 1], "kernels": False},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step along the gradients that there are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            move = self._move_kernel if group["kernels"] else self._move_vector
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, group)
        return loss

    def _move_kernel(self, kernel: Tensor, group: dict[str, Any]) -> None:
        """A kernel is a matrix, a row for each output channel.  Nesterov's momentum."""
        gradient, state = kernel.grad, self.state[kernel]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        matrix = gradient.lerp(state["momentum"], group["momentum"]).flatten(1)
        size = _ADAMS_SIZE * max(matrix.shape) ** 0.5
        kernel.sub_(orthogonalise(matrix).reshape(kernel.shape), alpha=group["lr"] * size)

    def _move_vector(self, vector: Tensor, group: dict[str, Any]) -> None:
        """Adam (Kingma and Ba 2015)."""
        gradient, state = vector.grad, self.state[vector]
        assert gradient is not None
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
        state["step"] += 1
        state["mean"].lerp_(gradient, 0.1)
        state["square"].lerp_(gradient**2, 0.001)
        mean, square = state["mean"] / (1 - 0.9 ** state["step"]), state["square"] / (1 - 0.999 ** state["step"])
        vector.sub_(mean / (square.sqrt() + 1e-8), alpha=group["lr"])


def orthogonalise(matrix: Tensor) -> Tensor:
    """The matrix (m, n) with its singular values brought near 1, 0.7 to 1.2, by an iteration of products alone."""
    a, b, c = _QUINTIC
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    turned = x.shape[0] > x.shape[1]
    x = x.T if turned else x
    for _ in range(_ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if turned else x
