"""Own code that computes with numbers which it draws as it is built: the checkpoint sets none of them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler import read_teacher
from memsr_compiler.errors import InvalidInput


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        result: Tensor = self.a(x)
        return result

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(F.relu(self.features(x))), 2)


class Merged(Net):
    """A kernel made of weights before these are loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.merged = self.a.weight.detach() * 2

    def features(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.merged, padding=1)


class Unsaved(Net):
    """A buffer that is not in the state dict."""

    noise: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("noise", torch.randn(4, 1, 1), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        return super().features(x) + self.noise


class Listed(Net):
    """Modules in a list of Python's, of which torch knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)]

    def features(self, x: Tensor) -> Tensor:
        x = super().features(x)
        for block in self.blocks:
            x = F.relu(block(x))
        return x


class MadeLater(Net):
    """The same for each image and each build: made of weights as it runs, or drawn from a seed."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed = torch.rand(4, 1, 1, generator=torch.Generator().manual_seed(7))

    def features(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.a.weight * 2, padding=1) + self.fixed


class KeepsTheFirst(Net):
    """An attribute of its own, and weights that it sets past torch, as Glow's ActNorm does."""

    level: Tensor | None = None

    def features(self, x: Tensor) -> Tensor:
        if self.level is None:
            self.level = x.mean()
            self.a.get_parameter("bias").data.fill_(float(self.level))
        return super().features(x) + self.level


@pytest.fixture
def own_code(monkeypatch: pytest.MonkeyPatch) -> str:
    module: Any = ModuleType("networks_of_mine")
    module.__dict__.update({kind.__name__: kind for kind in (Net, Merged, Unsaved, Listed, MadeLater, KeepsTheFirst)})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return str(module.__name__)


def saved(network: nn.Module, folder: Path) -> Path:
    torch.save(network.state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


@pytest.mark.parametrize(("kind", "where"), [(Merged, r" \(merged\)"), (Unsaved, r" \(noise\)"), (Listed, "")])
def test_numbers_that_no_checkpoint_sets_are_refused(
    kind: type[Net], where: str, own_code: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=f"random numbers that it draws as it is built{where}, and the checkpoint"):
        read_teacher(saved(kind(), tmp_path), arch=f"{own_code}:{kind.__name__}")


@pytest.mark.parametrize("kind", [Net, MadeLater])
def test_what_is_the_same_each_time_is_read(kind: type[Net], own_code: str, tmp_path: Path) -> None:
    network, image = kind().eval(), torch.rand(1, 3, 8, 8)
    teacher = read_teacher(saved(network, tmp_path), arch=f"{own_code}:{kind.__name__}")
    with torch.no_grad():
        assert torch.equal(teacher.module(image), network(image))


def test_what_it_would_keep_of_our_images_is_put_back(own_code: str, tmp_path: Path) -> None:
    """A photograph is tried on it before it is read, too."""
    network = KeepsTheFirst()
    teacher = read_teacher(saved(network, tmp_path), arch=f"{own_code}:KeepsTheFirst")
    assert teacher.scale == 2
    assert "level" not in vars(teacher.module)
    assert torch.equal(teacher.module.get_parameter("a.bias"), network.get_parameter("a.bias"))
