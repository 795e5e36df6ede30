"""Weights kept in parts give the network that torch computes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from memsr_compiler import read_teacher
from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.reparametrised import compute_weights

WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old weight norm": nn.utils.weight_norm,
    "old spectral norm": nn.utils.spectral_norm,
}


def prune(module: nn.Module) -> nn.Module:
    for name in ("bias", "weight"):
        torch_prune.l1_unstructured(module, name, 0.5)  # type: ignore[no-untyped-call]
    return module


def reparametrise(network: nn.Module, way: Callable[[nn.Module], nn.Module]) -> nn.Module:
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d):
            way(module)
    return network


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("way", [*WAYS, "pruning"])
def test_the_network_is_torchs(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = reparametrise(EDSR(scale=2, blocks=1, channels=8, tail="conv"), WAYS.get(way, prune))
    x = torch.rand(1, 3, 9, 7)
    network.train()
    network(x)  # the power iteration's vectors
    network.eval()
    path = tmp_path / "teacher.pt"
    torch.save(network.state_dict(), path)
    with torch.no_grad():
        expected, read = network(x), read_teacher(path, arch="edsr", probe=False).module(x)
    assert float((expected - read).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_other_keys_stay_as_they_are() -> None:
    state = EDSR(scale=2, blocks=1, channels=8).state_dict()
    assert list(compute_weights(state)) == list(state)
    alone = {"a.weight_g": torch.ones(2, 1, 1, 1), "b.weight_v": torch.ones(2, 1, 1, 1)}
    assert compute_weights(alone) == alone


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"a.weight_g": torch.ones(3, 1, 1, 1), "a.weight_v": torch.ones(2, 1, 3, 3)},
            "a.weight: parts of .* do not fit each other",
        ),
        ({"a.weight_g": torch.ones(2, 1, 1, 1), "a.weight_v": torch.zeros(2, 1, 3, 3)}, "is no number"),
        ({"a.weight_g": torch.ones(3), "a.weight_v": torch.ones(2, 1, 3, 3)}, "do not fit each other"),
        (
            {"a.weight_g": torch.ones(9, 1, 1, 1), "a.weight_v": torch.ones(1, 9, 1, 1)},
            "do not fit each other",
        ),  # 9 x 9
        (
            {"a.weight_orig": torch.ones(2, 3, 3, 3), "a.weight_u": torch.ones(4), "a.weight_v": torch.ones(27)},
            "do not fit each other",
        ),
        ({"a.weight_orig": torch.ones(2, 1, 3, 3), "a.weight_mask": torch.ones(2, 1, 1, 1)}, "those of pruning"),
        (
            {
                "a.weight": torch.ones(2, 1, 3, 3),
                "a.weight_g": torch.ones(2, 1, 1, 1),
                "a.weight_v": torch.ones(2, 1, 3, 3),
            },
            r"a.weight: is there as it is and in the parts of weight norm \(a.weight_g\)",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(state: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compute_weights(state)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("channels", [3, 5])
@pytest.mark.parametrize("way", WAYS)
def test_transposed_convolutions_too(way: str, channels: int) -> None:
    """Of which torch takes the norm over the other dimension; with five channels only the numbers tell which."""
    torch.manual_seed(0)
    layer = WAYS[way](nn.ConvTranspose2d(5, channels, 3)).train()
    for _ in range(30):
        layer(torch.rand(1, 5, 4, 4))
    layer.eval()(torch.rand(1, 5, 4, 4))
    weight = compute_weights({f"up.{key}": tensor for key, tensor in layer.state_dict().items()})["up.weight"]
    assert isinstance(layer.weight, torch.Tensor)
    assert torch.allclose(weight, layer.weight, rtol=1e-5)


@pytest.mark.parametrize(
    "state",
    [
        {"a.weight_g": torch.ones(2, 1, 1, 1, dtype=torch.int32), "a.weight_v": torch.ones(2, 3, 1, 1)},
        {"a.weight_g": torch.ones(2, 1, 1, 1), "a.weight_v": torch.ones(2, 3, 1, 1, dtype=torch.complex64)},
        {"a.weight_orig": torch.ones(2, 3, dtype=torch.int8), "a.weight_mask": torch.ones(2, 3)},
        {"a.weight_orig": torch.ones(2, 3), "a.weight_mask": torch.ones(2, 3, dtype=torch.complex64)},
    ],
)
def test_parts_that_are_no_floating_point_numbers_are_refused(state: dict[str, torch.Tensor]) -> None:
    """They are quantised by a step that is elsewhere, or have an imaginary part, which was lost."""
    with pytest.raises(InvalidInput, match=r"^a\.weight: a part of .* is torch\.\w+, no floating-point numbers"):
        compute_weights(state)


def test_a_mask_may_be_of_yes_and_no() -> None:
    state = {"a.weight_orig": torch.ones(2, 3), "a.weight_mask": torch.tensor([[True, False, True]] * 2)}
    assert torch.equal(compute_weights(state)["a.weight"], torch.tensor([[1.0, 0.0, 1.0]] * 2))
