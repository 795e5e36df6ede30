"""Branches folded: the same network, to rounding, at borders too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.training import require_gradients
from torch import Tensor, nn

from memsr_compiler.training.branches import Branched, fold_branches
from memsr_compiler.training.models import new_plain


def trained_branches(*, normalised: bool, image_skip: str = "") -> Branched:
    """Branches whose batch norms have seen images, and whose every number is another."""
    torch.manual_seed(0)
    net = new_plain(4, 6, 2, image_skip)  # type: ignore[arg-type]
    objective = Branched(net, normalised=normalised, start="he", seed=1).double()
    with torch.no_grad():
        for value in objective.parameters():
            value.add_(0.2 * torch.randn(value.shape, dtype=value.dtype))
        for _ in range(3):
            objective.enlarge(torch.rand(2, 3, 9, 8, dtype=torch.float64))
    return objective.eval()


@pytest.mark.parametrize("image_skip", ["", "nearest"])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (9, 7)])
def test_a_folded_network_is_the_branched_one(normalised: bool, image_skip: str, size: tuple[int, int]) -> None:
    """In float64; its sums differ in their order only.  Borders are part of it."""
    objective = trained_branches(normalised=normalised, image_skip=image_skip)
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(objective.settle()(x), objective.enlarge(x), rtol=1e-12, atol=1e-12)


def test_branches_are_what_ding_et_al_say() -> None:
    """The sum of a 3x3, a 1x1 and the identity, each behind torch's own batch norm."""
    objective = trained_branches(normalised=True)
    layer = objective.branches[1]
    x = torch.rand(1, 6, 4, 3, dtype=torch.float64)
    outputs = (F.conv2d(x, layer.kernel, padding=1), F.conv2d(x, layer.one), x)  # type: ignore[arg-type]
    expected = sum(norm(y) for norm, y in zip(layer.norms, outputs, strict=True))  # type: ignore[arg-type]
    torch.testing.assert_close(layer(x), expected)
    assert len(objective.branches[0].norms) == 2  # type: ignore[arg-type]


def test_branches_without_norms_are_summed() -> None:
    objective = trained_branches(normalised=False)
    layer = objective.branches[1]
    x = torch.rand(1, 6, 4, 3, dtype=torch.float64)
    expected = F.conv2d(x, layer.kernel, layer.bias, padding=1) + F.conv2d(x, layer.one) + x  # type: ignore[arg-type]
    torch.testing.assert_close(layer(x), expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in objective.modules())


def test_small_kernels_lie_in_the_middle_of_large_ones() -> None:
    def affine(scale: float, shift: float) -> tuple[Tensor, Tensor]:
        return torch.full((1,), scale), torch.full((1,), shift)

    kernel, bias = fold_branches(
        [torch.ones(1, 1, 5, 5), torch.ones(1, 1, 1, 1), torch.ones(1, 1, 3, 3)],
        [affine(1.0, 0.5), affine(10.0, 0.25), affine(100.0, 0.0)],
    )
    assert kernel[0, 0, 2].tolist() == [1.0, 101.0, 111.0, 101.0, 1.0] and kernel[0, 0, 0, 2] == 1
    assert bias.tolist() == [0.75]


@pytest.mark.parametrize("normalised", [True, False])
def test_gradients_are_those_of_finite_differences(normalised: bool) -> None:
    objective = trained_branches(normalised=normalised).train()
    low, high = torch.rand(2, 3, 4, 3, dtype=torch.float64), torch.rand(2, 1, 3, 8, 6, dtype=torch.float64)
    trained = [name for name, value in objective.named_parameters() if value.requires_grad]
    assert trained and not any(name.startswith("network.") for name in trained)
    require_gradients(objective, low, high, share=0.0)
