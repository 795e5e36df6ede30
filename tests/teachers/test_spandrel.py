"""Weights that no family here knows: offered to spandrel where it is installed, as weights and never as a file.

A module in spandrel's place has the little of its interface that is used; the last test takes the real one, which CI
does not install: it needs a torchvision made for just the torch that is there.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput, RefusedPickle
from memsr_compiler.lowering.inspection import inspect
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.load import load_teacher, read_teacher
from memsr_compiler.torch_helpers import copy_module


class Strange(nn.Module):
    """A network of an architecture that only spandrel knows."""

    def __init__(self) -> None:
        super().__init__()
        self.odd, self.even = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.even(torch.relu(self.odd(x))), 2)


class Unsupported(Exception):
    """As spandrel's UnsupportedModelError."""


class Image:
    """As spandrel's ImageModelDescriptor: of a network that takes sizes that are multiples of a number."""

    def __init__(self, model: nn.Module, multiple_of: int = 1, offset: float = 0.0) -> None:
        self.model, self.multiple_of, self.offset = model, multiple_of, offset
        self.size_requirements = SimpleNamespace(none=multiple_of == 1)
        self.input_channels, self.architecture = 3, SimpleNamespace(name="Strange")

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded = nn.functional.pad(x, (0, -width % self.multiple_of, 0, -height % self.multiple_of), "replicate")
        y: Tensor = self.model(padded + self.offset).clamp_(0, 1)
        return y[..., : 2 * height, : 2 * width]


class Loader:
    """As spandrel's ModelLoader, without what reads files."""

    around: ClassVar[dict[str, Any]] = {}

    def load_from_state_dict(self, state: dict[str, Tensor]) -> Image | SimpleNamespace:
        masked = "mask" in state
        if "odd.weight" not in state:
            raise Unsupported
        network = Strange()
        network.load_state_dict({key: state.pop(key) for key in list(state) if key != "mask"})  # spandrel may pop too
        if masked:
            return SimpleNamespace(model=network, architecture=SimpleNamespace(name="Strange"))
        return Image(network, **self.around)


@pytest.fixture
def spandrel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spandrel is installed."""
    module: Any = ModuleType("spandrel")
    module.ModelLoader, module.UnsupportedModelError, module.ImageModelDescriptor = Loader, Unsupported, Image
    monkeypatch.setitem(sys.modules, "spandrel", module)


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.usefixtures("spandrel")
@pytest.mark.parametrize("prefix", ["", "module.", "module.net_g."])
def test_spandrel_builds_what_no_family_knows(prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = Strange().eval()
    state = {prefix + key: tensor for key, tensor in network.state_dict().items()}
    teacher = read_teacher(save({"params_ema": state, "iter": 3}, tmp_path / "a.pth"))
    assert "read by spandrel as Strange" in caplog.text
    assert (teacher.family, teacher.input_range, teacher.scale) == ("", (0.0, 1.0), 2)
    image = torch.rand(1, 3, 5, 7)
    with torch.no_grad():
        assert torch.equal(teacher.module(image), network(image))
    assert not teacher.module.training
    assert inspect(teacher).reason == ""  # traced as any other


@pytest.mark.usefixtures("spandrel")
@pytest.mark.parametrize("around", [{"multiple_of": 8}, {"offset": 0.25}])
def test_what_spandrel_does_around_a_network_is_done(
    around: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loader, "around", around)
    network = Strange().double().eval()
    teacher = read_teacher(save(network.float().state_dict(), tmp_path / "a.pth"), probe=False)
    module = copy_module(teacher.module, torch.float64)
    image = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    alone = network.double()(image).clamp(0, 1)
    with torch.no_grad():
        given = module(image)
        assert given.shape == (2, 3, 10, 14)
        assert torch.equal(given, Image(network, **around)(image))
        assert not torch.allclose(given, alone)


@pytest.mark.usefixtures("spandrel")
def test_a_family_of_ours_comes_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    network = EDSR(scale=2, blocks=1, channels=4)
    assert read_teacher(save(network.state_dict(), tmp_path / "a.pth"), probe=False).family == "edsr"
    assert "spandrel" not in caplog.text


@pytest.mark.usefixtures("spandrel")
def test_what_spandrel_does_not_build_either(tmp_path: Path) -> None:
    state = Strange().state_dict()
    with pytest.raises(InvalidInput, match=r"not those of edsr.*Nor does spandrel know them"):
        read_teacher(save({"other.weight": torch.zeros(1)}, tmp_path / "a.pth"))
    with pytest.raises(InvalidInput, match=r"not those of edsr.*spandrel fails to build them \(Error\(s\) in loading"):
        read_teacher(save({**state, "more": torch.zeros(1)}, tmp_path / "a.pth"))
    with pytest.raises(InvalidInput, match="spandrel reads it as Strange, which takes more than an image"):
        read_teacher(save({**state, "mask": torch.zeros(1)}, tmp_path / "a.pth"))
    edsr = {**EDSR(scale=2, blocks=1, channels=4).state_dict(), "more.weight": torch.zeros(1)}
    with pytest.raises(InvalidInput, match=r"do not fit edsr: unexpected more\.weight\. Check [^S]*$"):
        read_teacher(save(edsr, tmp_path / "a.pth"))
    with pytest.raises(InvalidInput, match=r"those of edsr\. At its usual size it wants"):
        read_teacher(save(state, tmp_path / "a.pth"), arch="edsr")


@pytest.mark.usefixtures("spandrel")
def test_a_pickle_is_not_given_to_it(tmp_path: Path) -> None:
    save({**Strange().state_dict(), "extra": SimpleNamespace()}, tmp_path / "a.pth")
    with pytest.raises(RefusedPickle, match=r"would import types\.SimpleNamespace"):
        read_teacher(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ModuleNotFoundError("none", name="spandrel"),
            r"spandrel is not installed.*pip install 'memsr_compiler\[spandrel\]'",
        ),
        (ModuleNotFoundError("none", name="torchvision"), r"cannot be imported \(none\): install torchvision"),
        (RuntimeError("operator torchvision::nms does not exist"), r"\(operator torchvision::nms does not exist\)"),
    ],
)
def test_what_is_said_without_it(error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name == "spandrel":
            raise error
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(InvalidInput, match=words):
        read_teacher(save(Strange().state_dict(), tmp_path / "a.pth"))


def real_spandrel() -> Any:
    """The package itself; None where it is not installed, or torchvision is not made for the torch that is."""
    try:
        return importlib.import_module("spandrel")
    except Exception:
        return None


@pytest.mark.skipif(real_spandrel() is None, reason="needs memsr_compiler[spandrel]")
def test_a_network_of_spandrel_itself(tmp_path: Path) -> None:
    from importlib import import_module

    network = import_module("spandrel.architectures.SAFMN").SAFMN(dim=8, n_blocks=1, upscaling_factor=2).eval()
    read = load_teacher(save({"params": network.state_dict()}, tmp_path / "a.pth"))
    image = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        assert torch.equal(read(image), network(image).clamp(0, 1))
