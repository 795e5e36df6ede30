"""check_equivalence: who may be compared, on which inputs, and what the result says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.teachers import write_teacher
from helpers.wide_values import WIDE, overflowing
from torch import Tensor, nn

from memsr_compiler import PlainNet, Teacher, calibrate, check_equivalence, compile_to_plain, export_onnx, load_plain
from memsr_compiler.errors import InvalidInput, NotEquivalent
from memsr_compiler.lowering.equivalence import most_accepted, probe_images, rounding_bound
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
    write_teacher(network, tmp_path / "teacher.pt")
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
    result = check_equivalence(lambda x: torch.full_like(x, math.inf), lambda x: torch.full_like(x, 3.0))
    assert not result and result.deviation == math.inf


class Seen(nn.Module):
    """A network that keeps what it is given, and whose copies keep it in the same place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.extremes: list[float] = []

    def __deepcopy__(self, memo: object) -> Seen:
        copied = Seen().to(self.conv.weight.dtype)
        copied.load_state_dict(self.state_dict())
        copied.extremes = self.extremes
        return copied

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
    several: list[Any] = [x, [x, x], {"mine": x}, x.numpy(), pixels, [pixels, x], pixels[..., 0], pixels[..., :1]]
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


# -- precisions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("input_range", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_the_papers_constant_is_equivalent_and_an_absurd_one_is_not(
    network: nn.Module, input_range: tuple[float, float], dtype: torch.dtype | None
) -> None:
    """1000 is added to values of about 1, and taken off: rounding explains a thousand times as much, in any dtype."""
    paper = compile_to_plain(network, carry="shift", constant=1000.0, input_range=input_range)
    result = check_equivalence(network, paper, dtype=dtype).require()
    eps = torch.finfo(dtype or torch.float64).eps
    assert result.deviation > 100 * eps, "without the constant it would be called wrong"
    absurd = compile_to_plain(network, carry="shift", constant=1e8, input_range=input_range)
    assert check_equivalence(network, absurd)  # in float64, of which 1e8 leaves enough
    result = check_equivalence(network, absurd, dtype=torch.float32)
    assert not result and result.deviation > 1, "rounding explains it, and nobody accepts it"
    assert result.bound == pytest.approx((input_range[1] - input_range[0]) / 510)
    assert rounding_bound(1.0, torch.float32, absurd) > result.deviation


def test_the_constant_is_known_without_the_certificate(network: nn.Module, tmp_path: Path) -> None:
    constants = dict(calibrate(network, torch.rand(1, 3, 9, 9), steps=0).constants)
    constants["head.0"] = 30.0  # the guarantee states the smallest and the largest
    net = compile_to_plain(network, carry="shift", constant=constants)
    assert net.largest_shift == 30.0
    export_onnx(net, tmp_path / "plain.onnx")
    bound = rounding_bound(1.0, torch.float32, net)
    (tmp_path / "plain.cert.json").unlink()
    read = load_plain(tmp_path / "plain.onnx", require_certificate=False)
    assert read.certificate is None and read.largest_shift == 30.0
    assert rounding_bound(1.0, torch.float32, read) == bound
    assert compile_to_plain(network).largest_shift == 0.0


def test_an_input_beyond_the_constant_is_told(network: nn.Module) -> None:
    net = compile_to_plain(network, carry="shift", constant=10.0)
    assert check_equivalence(network, net)
    with pytest.raises(
        NotEquivalent, match=r"of head\.0, is beyond the shift's C = 10, and the network promises nothing"
    ):
        check_equivalence(network, net, input_range=(0.0, 100.0)).require()
    assert check_equivalence(network, lambda x: network.double()(x) + 1).beyond == ""


def test_files_in_float16_run_as_float16_is_computed(tmp_path: Path) -> None:
    teacher = overflowing()
    net = compile_to_plain(teacher, input_range=WIDE)
    export_onnx(net, tmp_path / "plain.onnx", dtype="float16")
    result = check_equivalence(teacher, tmp_path / "plain.onnx").require()
    assert result.arithmetic == "halves stored between layers, sums in float32, by torch on the CPU"
    assert 1e-3 < result.deviation <= result.bound and result.bound < 4.0
    broken = check_equivalence(teacher, net, dtype=torch.float16)  # not scaled: all NaN
    assert not broken and broken.deviation == float("inf") and "halves" in str(broken)


def test_a_file_is_allowed_the_rounding_that_it_was_stored_with(
    network: nn.Module, net: PlainNet, tmp_path: Path
) -> None:
    export_onnx(net, tmp_path / "plain.onnx")
    read = load_plain(tmp_path / "plain.onnx")
    result = check_equivalence(network, read).require()
    assert result.deviation > rounding_bound(result.peak, torch.float64, net)
    assert result.bound == rounding_bound(result.peak, torch.float32, net) and net.stored_eps == 0.0
    assert result.arithmetic == "float64, by torch on the CPU"


def test_what_a_person_accepts_is_in_grey_levels() -> None:
    for dtype, levels in ((torch.float64, 0.5), (torch.float32, 0.5), (torch.float16, 2.0), (torch.bfloat16, 2.0)):
        assert most_accepted(1.3, dtype, (0.0, 1.0)) == pytest.approx(levels / 255)
        assert most_accepted(300.0, dtype, (0.0, 255.0)) == pytest.approx(levels)
        assert most_accepted(100.0, dtype, (0.0, 1.0)) == pytest.approx(50 * levels / 255)  # outputs of another size


def by_its_brightest(x: Tensor) -> Tensor:
    """NaN on a black image."""
    return x / x.amax()


@pytest.mark.parametrize("names", [("noise", "black"), ("black", "noise")])
def test_nan_on_any_input_is_a_difference(names: tuple[str, str]) -> None:
    images = {"noise": torch.rand(1, 1, 8, 8), "black": torch.zeros(1, 1, 8, 8)}
    ordered = {name: images[name] for name in names}
    for a, b in (
        (by_its_brightest, lambda x: by_its_brightest(x).nan_to_num(7.0)),
        (lambda x: by_its_brightest(x).nan_to_num(7.0), by_its_brightest),
        (by_its_brightest, by_its_brightest),
    ):
        result = check_equivalence(a, b, images=ordered)
        assert not result and result.input == "black"
        with pytest.raises(NotEquivalent):
            result.require()


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (3, 4, 4), (1, 3, 0, 4)])
def test_what_is_no_image_is_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"the image odd has shape \("):
        check_equivalence(lambda x: x, lambda x: x, images={"odd": torch.zeros(shape)})


def test_complex_numbers_are_no_image() -> None:
    x = {"a": torch.rand(1, 3, 4, 4)}
    with pytest.raises(InvalidInput, match="what a network gives for a has complex numbers"):
        check_equivalence(lambda x: x * 1j, lambda x: x * 2j, images=x)
    with pytest.raises(InvalidInput, match="the image a has complex numbers"):
        check_equivalence(lambda x: x, lambda x: x, images={"a": x["a"] * 1j})
    nothing: Any = lambda x: None  # noqa: E731
    with pytest.raises(InvalidInput, match="is no tensor but NoneType"):
        check_equivalence(nothing, nothing, images=x)


class Repeats(nn.Module):
    """A network whose first convolution takes more channels than the image has, as BSRN's (Li et al. 2022)."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.head, self.tail = nn.Conv2d(3 * times, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.pixel_shuffle(self.tail(self.head(torch.cat([x] * self.times, 1)).relu()), 2)


@pytest.mark.parametrize("times", [1, 4])
def test_the_channels_are_the_images(times: int) -> None:
    network = Repeats(times).eval()
    assert check_equivalence(network, compile_to_plain(network))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels 0: want a whole number from 1 to"),
        ({"channels": "3"}, "channels '3': want a whole number"),
        ({"channels": 10**6}, "channels 1000000: want a whole number"),
        ({"dtype": "float32"}, r"dtype 'float32': want torch\.float16, "),
        ({"dtype": torch.int32}, r"dtype torch\.int32: want "),
        ({"tolerance": "0.1"}, r"tolerance '0\.1': want a number from 0 on"),
        ({"tolerance": -1.0}, r"tolerance -1\.0: want a number from 0 on"),
        ({"tolerance": math.nan}, "tolerance nan: want a number from 0 on"),
        ({"input_range": "x"}, "input_range='x': want the lowest and the highest value"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str, net: PlainNet) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_equivalence(net, net, **options)


@pytest.mark.parametrize(
    "options", [{"channels": np.int64(3)}, {"tolerance": np.float32(1)}, {"dtype": torch.bfloat16}]
)
def test_numbers_of_numpy_and_bfloat16_are_meant(options: dict[str, Any]) -> None:
    module = nn.Conv2d(3, 3, 3, padding=1)
    assert check_equivalence(module, module, **options)
