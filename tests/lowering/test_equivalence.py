"""check_equivalence: who may be compared, on which inputs, and what the result says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memsr_compiler import PlainNet, Teacher, check_equivalence, compile_to_plain, export_onnx
from memsr_compiler.errors import InvalidInput, NotEquivalent
from memsr_compiler.lowering.equivalence import probe_images, rounding_bound
from memsr_compiler.teachers.families.edsr import EDSR


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return EDSR(scale=2, blocks=2, channels=4).eval()


@pytest.fixture(scope="module")
def net(network: nn.Module) -> PlainNet:
    return compile_to_plain(network)


def test_teachers_modules_files_and_functions(network: nn.Module, net: PlainNet, tmp_path: Path) -> None:
    export_onnx(net, tmp_path / "plain.onnx")
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    for teacher in (network, Teacher(module=network), tmp_path / "teacher.pt", str(tmp_path / "teacher.pt")):
        assert check_equivalence(teacher, net)
    assert check_equivalence(network, tmp_path / "plain.onnx", tolerance=1e-5)  # read in float32
    assert check_equivalence(lambda x: network.double()(x), net)


def test_the_worst_place_is_named(network: nn.Module) -> None:
    def other(x: Tensor) -> Tensor:
        y: Tensor = network.double()(x).clone()
        y[-1, 1, -1, 0] += 0.25
        return y

    result = check_equivalence(network, other)
    assert not result and result.deviation == pytest.approx(0.25) and result.at[1] == 1 and result.at[3] == 0
    with pytest.raises(NotEquivalent, match=r"worst deviation 0\.25 .* channel 1, pixel"):
        result.require()


def test_what_is_no_number_is_no_agreement(network: nn.Module) -> None:
    assert not check_equivalence(network, lambda x: network.double()(x) * float("nan"))


class Seen(nn.Module):
    """A network that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.extremes: list[float] = []

    def __deepcopy__(self, memo: object) -> Seen:
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.extremes += [float(x.min()), float(x.max())]
        y: Tensor = self.conv(x)
        return y


def extremes(a: Any, seen: Seen, **options: Any) -> tuple[float, float]:
    seen.extremes.clear()
    check_equivalence(a, seen, **options)
    return min(seen.extremes), max(seen.extremes)


def test_the_range_is_the_plain_networks_else_the_teachers() -> None:
    seen = Seen()
    known = Teacher(module=seen, input_range=(0.0, 255.0))
    net = compile_to_plain(nn.Conv2d(3, 3, 1), input_range=(-1.0, 1.0))
    assert extremes(seen, seen) == (0, 1)
    assert extremes(known, seen) == (0, 255)
    assert extremes(net, seen) == (-1, 1)
    assert extremes(known, seen, input_range=(0.0, 2.0)) == (0, 2)
    seen.extremes.clear()
    check_equivalence(known, net)  # the net promises nothing beyond its own range
    assert (min(seen.extremes), max(seen.extremes)) == (-1, 1)


def test_images_as_people_have_them(network: nn.Module, net: PlainNet) -> None:
    x = torch.rand(2, 3, 7, 5)
    pixels = np.zeros((7, 5, 3), np.uint8)
    several: list[Any] = [x, [x, x], {"mine": x}, x.numpy(), pixels, [pixels, x]]
    for images in several:
        assert check_equivalence(network, net, images=images)
    assert check_equivalence(network, net, images={"mine": x}).input == "mine"
    assert check_equivalence(network, net, images=[x]).input == "image 0"
    nothings: list[Any] = [{}, []]
    for nothing in nothings:
        with pytest.raises(InvalidInput, match=r"no input|no images"):
            check_equivalence(network, net, images=nothing)


def test_what_cannot_be_compared(network: nn.Module) -> None:
    with pytest.raises(InvalidInput, match=r"one gives \(4, 3, 2, 2\) and the other \(4, 3, 1, 1\)"):
        check_equivalence(network, nn.Conv2d(3, 3, 1))
    with pytest.raises(InvalidInput, match=r"a network is wanted, or a function of tensors: .* not NoneType"):
        check_equivalence(network, None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"nowhere\.pt: cannot be read"):
        check_equivalence(network, "nowhere.pt")
    with pytest.raises(InvalidInput, match="device cuda:99"):
        check_equivalence(network, network, device="cuda:99")


def test_probes_are_the_same_every_time_and_fill_the_range() -> None:
    first, second = probe_images(2, (-3.0, 5.0)), probe_images(2, (-3.0, 5.0))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert min(float(x.min()) for x in first.values()) == -3 and max(float(x.max()) for x in first.values()) == 5
    assert {x.shape[2:] for x in first.values()} >= {(1, 1), (1, 7), (24, 31)}


def test_the_bound_grows_with_peak_and_terms() -> None:
    small, large = nn.Conv2d(3, 3, 3), nn.Sequential(*(nn.Conv2d(64, 64, 3) for _ in range(4)))
    eps = torch.finfo(torch.float64).eps
    assert rounding_bound(1.0, torch.float64, small) == pytest.approx(4 * eps * 10)
    assert rounding_bound(1.0, torch.float64, small, large) == pytest.approx(4 * eps * (4 * 576) ** 0.5)
    assert rounding_bound(8.0, torch.float64, small) == 8 * rounding_bound(0.0, torch.float64, small)


def test_the_error_carries_what_was_measured() -> None:
    network = nn.Conv2d(1, 2, 3, padding=1).double()
    images = {"black": torch.zeros(1, 1, 4, 5).double(), "white": torch.ones(1, 1, 4, 5).double()}
    result = check_equivalence(network, lambda x: network(x) + 0.25 * x, images=images)
    assert not result and result.input == "white" and result.deviation == pytest.approx(0.25)
    with pytest.raises(NotEquivalent) as caught:
        result.require()
    error = caught.value
    assert (error.deviation, error.bound, error.probe, error.at) == (
        result.deviation, result.bound, result.input, result.at,
    )  # fmt: skip
    assert (error.expected, error.found, error.pass_name) == (result.expected, result.found, "")
    assert check_equivalence(network, network, images=images).require()
