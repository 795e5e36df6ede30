"""Factories of own code, and own loading of weights: what the two builds cannot show, what loading passes over."""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler import read_teacher
from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.teacher import Teacher


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.a, self.tail = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(F.relu(self.a(x))), 2)


class Drawn(Net):
    def __init__(self, factors: Tensor | None = None) -> None:
        super().__init__()
        self.factors = torch.rand(3, 1, 1) if factors is None else factors

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.factors)


class Appending(Net):
    """A list that all of its networks share: the second makes the first another one."""

    def __init__(self, layers: list[nn.Module] = []) -> None:  # noqa: B006
        super().__init__()
        layers.append(nn.ReLU())
        self.layers = layers


class Unready(Net):
    def __init__(self) -> None:
        super().__init__()
        self.a = Unfinished()  # type: ignore[assignment]


class Unfinished(nn.Module):
    def __init__(self) -> None:
        pass


class Lazy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.LazyConv2d(4, 3, padding=1)


def program() -> nn.Module:
    sides = dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    return torch.export.export(Net().eval(), (torch.rand(1, 3, 8, 9),), dynamic_shapes=(sides,)).module()


class Compiled(nn.Module):
    """Stands for what torch.compile gives, whose import takes seconds."""

    __module__ = "torch._dynamo.eval_frame"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._orig_mod = network


def compiled() -> nn.Module:
    return Compiled(Net())


def options_of(table: dict[str, Any]) -> nn.Module:
    assert table.pop("type") == "Net"
    return Net(**table)


def seeded() -> nn.Module:
    torch.manual_seed(torch.initial_seed())
    return Drawn()


def factories() -> dict[str, Callable[..., object]]:
    """The same network each time, one with parts of the one before, and what can be built once."""
    single, shared, table, pattern = Drawn(), torch.rand(3, 1, 1), {"type": "Net"}, lru_cache(Drawn)
    return {
        "single": lambda: single,
        "cached": lru_cache(Drawn),
        "compiled_once": lru_cache(lambda: Compiled(Drawn())),
        "copied": lambda: copy.deepcopy(pattern()),
        "parts": lambda: Drawn(shared),
        "once": lambda: options_of(table),
    }


@pytest.fixture
def own_code(monkeypatch: pytest.MonkeyPatch) -> str:
    module: Any = ModuleType("factories_of_mine")
    own = {name: value for name, value in globals().items() if not name.startswith("__")}
    module.__dict__.update(own | factories())  # of no file, so that no other process imports it anew
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return str(module.__name__)


def read(state: Mapping[str, Tensor], arch: str, folder: Path, **others: Any) -> Teacher:
    torch.save(dict(state), folder / "weights.pt")
    return read_teacher(folder / "weights.pt", arch=arch, probe=False, input_range=(0.0, 1.0), **others)


def computes(teacher: Teacher, network: nn.Module) -> bool:
    image = torch.rand(1, 3, 8, 7)
    with torch.no_grad():
        return torch.equal(teacher.module(image), network.eval()(image))


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("single", "it gives the same network each time"),
        ("cached", "it gives the same network each time"),
        ("compiled_once", "it gives the same network each time"),
        ("copied", "it draws some the first time alone"),
        ("parts", "its networks share parts"),
        ("once", "the second time: does not build (KeyError: 'type')"),
    ],
)
def test_what_building_twice_does_not_show_is_told(factory: str, reason: str, own_code: str, tmp_path: Path) -> None:
    teacher = read(Net().state_dict(), f"{own_code}:{factory}", tmp_path)
    (told,) = teacher.assumed
    assert told.startswith(f"{own_code}:{factory} computes with no numbers that it draws as it is built (")
    assert reason in told


def test_numbers_from_the_same_seed_each_time_are_no_matter(own_code: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        assert read(Net().state_dict(), f"{own_code}:seeded", tmp_path).assumed == ()


def test_arguments_are_given_anew_each_time(own_code: str, tmp_path: Path) -> None:
    table = {"type": "Net", "width": 5}
    network = Net(5)
    teacher = read(network.state_dict(), f"{own_code}:options_of", tmp_path, arch_args={"table": table})
    assert teacher.assumed == () and computes(teacher, network) and table == {"type": "Net", "width": 5}


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("Appending", "changes what the network that it built before holds, each time it builds one"),
        ("Unready", r"does not call super\(\)\.__init__\(\) in each of its modules \('Unfinished' object"),
        ("Lazy", r"a\.weight has no shape until the network has run"),
    ],
)
def test_factories_that_are_refused(factory: str, reason: str, own_code: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read(Net().state_dict(), f"{own_code}:{factory}", tmp_path)


@pytest.mark.parametrize("path", ["factories_of_mine.py", "./factories_of_mine.py", r"C:\nets\factories_of_mine.py"])
def test_a_file_is_no_module(path: str, own_code: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"names a file, .* Say --arch factories_of_mine:Net, in the folder of"):
        read(Net().state_dict(), f"{path}:Net", tmp_path)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
def test_a_program_of_torch_export_may_be_what_code_builds(own_code: str, tmp_path: Path) -> None:
    network = Net()
    teacher = read(network.state_dict(), f"{own_code}:program", tmp_path)
    assert computes(teacher, network) and teacher.module(torch.rand(2, 3, 5, 5)).shape == (2, 3, 10, 10)
    assert not any(module.training for module in teacher.module.modules())


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module."])
def test_weights_of_what_torch_compile_gave(prefix: str, own_code: str, tmp_path: Path) -> None:
    network = Net()
    state = {prefix + key: tensor for key, tensor in network.state_dict().items()}
    teacher = read(state, f"{own_code}:compiled", tmp_path)
    assert type(teacher.module) is Net and computes(teacher, network)


# --- loading by own code


class Loading(Net):
    """Loads weights as `forgive` makes them."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(blocks)))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.a(x))
        return F.pixel_shuffle(self.tail(F.relu(self.body(x))), 2)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(self.change(dict(state_dict)), strict=self.strict)

    strict = True

    def change(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state


class Forgiving(Loading):
    strict = False


class CopyingWhatFits(Loading):
    """As EDSR's first code does."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        own = self.state_dict()
        for name in own.keys() & state_dict.keys():
            own[name].copy_(state_dict[name])


class Updating(Loading):
    def change(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        own = self.state_dict()
        return {**own, **{key: tensor for key, tensor in state.items() if key in own}}


class ByHook(Net):
    """A hook takes away what it does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(self._drop)  # type: ignore[no-untyped-call]

    @staticmethod
    def _drop(module: nn.Module, state: dict[str, Tensor], *_: object) -> None:
        for key in [key for key in state if key not in module.state_dict()]:
            del state[key]


def by_attribute() -> nn.Module:
    network: Any = Net()
    network.load_state_dict = types.MethodType(
        lambda self, state, strict: nn.Module.load_state_dict(self, state, strict=False), network
    )
    return network  # type: ignore[no-any-return]


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("factory", ["Forgiving", "CopyingWhatFits", "Updating"])
def test_what_own_loading_passes_over(factory: str, prefix: str, own_code: str, tmp_path: Path) -> None:
    larger = {prefix + key: tensor for key, tensor in Loading(3).state_dict().items()}
    with pytest.raises(InvalidInput, match=r"passes over body\.2\.weight, body\.2\.bias, which the file holds\. Check"):
        read(larger, f"{own_code}:{factory}", tmp_path)
    lacks = {key: tensor for key, tensor in Loading().state_dict().items() if "running" not in key}
    with pytest.raises(InvalidInput, match=r"leaves norm\.running_mean, norm\.running_var as it was\. Check"):
        read(lacks, f"{own_code}:{factory}", tmp_path)
    network = Loading()
    network.norm.running_mean = torch.rand(4)
    assert computes(read(network.state_dict(), f"{own_code}:{factory}", tmp_path), network)


@pytest.mark.parametrize("factory", ["ByHook", "by_attribute"])
def test_what_is_put_on_a_network_to_load_it_passes_over(factory: str, own_code: str, tmp_path: Path) -> None:
    network = Net()
    with pytest.raises(InvalidInput, match=r"passes over other\.weight, which the file holds"):
        read({**network.state_dict(), "other.weight": torch.rand(4)}, f"{own_code}:{factory}", tmp_path)
    assert computes(read(network.state_dict(), f"{own_code}:{factory}", tmp_path), network)


class Halving(Loading):
    """In the tensors that it is given; the weights of the first version were twice as large."""

    def change(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        state["a.weight"] *= 0.5
        return state


class Renaming(Loading):
    def change(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key.replace("head.", "a."): tensor for key, tensor in state.items()}


class Merging(Loading):
    """Two branches into one, a matrix into a convolution, and a factor that is kept as a number."""

    factor = 1.0

    def change(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        state["a.weight"] = state.pop("wide") + F.pad(state.pop("narrow"), (1, 1, 1, 1))
        self.factor = float(state.pop("factor"))
        return state

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factor


class MergingItself(Loading):
    """Takes a module away once it is loaded, and makes a buffer of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(3, 4, 1, bias=False)
        self.register_buffer("twice", torch.zeros(4))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        nn.Module.load_state_dict(self, state_dict, strict=False)
        self.a.weight.data += F.pad(self.narrow.weight, (1, 1, 1, 1))
        self.get_buffer("twice").copy_(self.tail.weight.sum() * 2)
        del self.narrow


def test_what_own_loading_makes_of_weights_is_read(own_code: str, tmp_path: Path) -> None:
    network = Loading()
    state = network.state_dict()
    doubled = {**state, "a.weight": state["a.weight"] * 2}
    assert computes(read(doubled, f"{own_code}:Halving", tmp_path), network)
    renamed = {f"module.{key}".replace("a.", "head."): tensor for key, tensor in state.items()}
    assert computes(read(renamed, f"{own_code}:Renaming", tmp_path), network)

    narrow = torch.rand(4, 3, 1, 1)
    wide = state["a.weight"] - F.pad(narrow, (1, 1, 1, 1))
    others = {key: tensor for key, tensor in state.items() if key != "a.weight"}
    teacher = read(
        {**others, "wide": wide, "narrow": narrow, "factor": torch.tensor([2.0])}, f"{own_code}:Merging", tmp_path
    )
    with torch.no_grad():
        network.a.weight.copy_(wide + F.pad(narrow, (1, 1, 1, 1)))
    image = torch.rand(1, 3, 8, 7)
    assert torch.equal(teacher.module(image), network.eval()(image) * 2)
    parted = {**others, "a.weight": wide, "narrow.weight": narrow}
    assert computes(read(parted, f"{own_code}:MergingItself", tmp_path), network)


class Counting(Merging):
    calls = 0

    def change(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        type(self).calls += 1
        return super().change(state)


def test_own_loading_is_tried_once_for_each_weight_that_it_changes(own_code: str, tmp_path: Path) -> None:
    """Both networks that are built were, twice each: 240 weights that were merged took more than a minute."""
    state = dict(Loading().state_dict())
    parts = {"wide": state.pop("a.weight"), "narrow": torch.rand(4, 3, 1, 1), "factor": torch.tensor([2.0])}
    assert read({**state, **parts}, f"{own_code}:Counting", tmp_path).module is not None
    assert Counting.calls == 1 + len(parts) + 3  # what is left; each part; a trial, and both networks


class Grouping(Renaming):
    """Lists its weights as an optimiser wants them."""

    def named_parameters(self, *others: Any, **more: Any) -> Any:
        listed = super().named_parameters()
        return [("all", {"params": [tensor for _, tensor in listed], "lr": 1e-4})]

    def parameters(self, recurse: bool = True) -> Any:
        return [group for _, group in self.named_parameters()]


def test_own_loading_of_a_network_that_lists_its_weights_otherwise(own_code: str, tmp_path: Path) -> None:
    network = Loading()
    renamed = {key.replace("a.", "head."): tensor for key, tensor in network.state_dict().items()}
    assert computes(read(renamed, f"{own_code}:Grouping", tmp_path), network)
