"""The PReLU form: every value is carried in one channel, exactly, for every image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.networks import RandomNetwork, networks, random_images
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from memsr_compiler import PlainNet, check_certificate, check_equivalence, compile_to_plain
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.lowering.compile import Report
from memsr_compiler.lowering.inspection import inspect
from memsr_compiler.teachers.families.ecbsr import ECBSR
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.vdsr import VDSR


def small(seed: int = 0, **options: int) -> EDSR:
    torch.manual_seed(seed)
    return EDSR(**{"scale": 2, "blocks": 2, "channels": 4, **options}).eval()  # type: ignore[arg-type]


def ecbsr(**options: int) -> ECBSR:
    """Slopes that differ, of both signs, 0 and 1 among them."""
    torch.manual_seed(0)
    network = ECBSR(**{"scale": 2, "blocks": 2, "channels": 4, **options}).eval()  # type: ignore[arg-type]
    for i, module in enumerate(m for m in network.modules() if isinstance(m, nn.PReLU)):
        slopes = torch.linspace(-0.5, 0.6, module.num_parameters)
        slopes[0], slopes[-1] = i % 2, 0.0
        module.weight.data = slopes
    return network


def forms(net: PlainNet) -> list[str]:
    return ["prelu" if x.slope is not None else "relu" if x.relu else "none" for x in net]


def report(net: PlainNet) -> Report:
    assert isinstance(net.report, Report)
    return net.report


def test_a_skip_takes_one_channel_for_each_value() -> None:
    net = compile_to_plain(small(blocks=3, channels=8), activation="prelu", align=1)
    # The image, from which the global skip is computed again, beside features, and features beside a block's ReLUs.
    assert net.widths == [3, 11, 19, 11, 19, 11, 19, 11, 8, 32, 12]
    assert forms(net) == ["none", "prelu"] * 3 + ["none"] * 4
    assert net.info.guarantee == "exact for every image" and net.info.carry == "pass"
    assert {c.form for c in report(net).carried} == {"pass"} and all(
        c.guarantee == "exact for every value" for c in report(net).carried
    )
    check_certificate(small(blocks=3, channels=8), net)
    check_equivalence(small(blocks=3, channels=8), net).require()


@pytest.mark.parametrize("input_range", [(-1.0, 1.0), (0.0, 255.0)])
def test_images_below_zero_are_carried_too(input_range: tuple[float, float]) -> None:
    net = compile_to_plain(small(), activation="prelu", input_range=input_range)
    assert net.info.guarantee == "exact for every image"
    check_certificate(small(), net, input_range=input_range)
    check_equivalence(small(), net).require()


def test_the_teachers_own_slopes_are_kept() -> None:
    teacher = ecbsr()
    net = compile_to_plain(teacher, activation="prelu", align=1)
    assert net.widths == [3, 7, 7, 7, 12] and forms(net) == ["prelu", "prelu", "prelu", "none"]
    first = next(m for m in teacher.modules() if isinstance(m, nn.PReLU))
    assert net[0].slope is not None
    assert sorted(net[0].slope.flatten().tolist()) == sorted([*first.weight.tolist(), 1.0, 1.0, 1.0])
    check_certificate(teacher, net)
    check_equivalence(teacher, net).require()


class Twice(nn.Module):
    """One activation behind another, and a larger or smaller of its result and something that is carried beside it."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.body, self.tail = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 12, 3, padding=1)
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        inner: dict[str, Callable[[], Tensor]] = {
            "relu": lambda: torch.relu(self.body(x)),
            "abs": lambda: torch.abs(self.body(x)),
            "image": lambda: x,
            "clamp": lambda: torch.clamp(self.body(x), 0, 1),
        }
        leaky = nn.functional.leaky_relu(inner[self.first](), 0.1)
        join: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "max": torch.maximum,
            "min": torch.minimum,
            "sum": lambda a, b: torch.relu(self.body(a)) + b,
        }
        return nn.functional.pixel_shuffle(self.tail(join[self.second](leaky, self.body(x))), 2)


@pytest.mark.parametrize("second", ["max", "min", "sum"])
@pytest.mark.parametrize("first", ["relu", "abs", "image", "clamp"])
def test_a_slope_for_what_is_never_negative_is_none(first: str, second: str) -> None:
    torch.manual_seed(0)
    teacher = Twice(first, second).eval()
    net = compile_to_plain(teacher, activation="prelu")
    check_certificate(teacher, net)
    check_equivalence(teacher, net).require()


def test_kept_stages_and_an_image_outside() -> None:
    kept = compile_to_plain(small(scale=4), activation="prelu", tail="keep")
    check_certificate(small(scale=4), kept)
    check_equivalence(small(scale=4), kept).require()
    outside = compile_to_plain(ecbsr(), activation="prelu", image_skip="outside")
    assert outside.widths == [3, 4, 4, 4, 12] and outside.info.image_skip == "nearest"
    check_certificate(ecbsr(), outside)
    check_equivalence(ecbsr(), outside).require()


def test_what_is_relus_all_through_stays_so() -> None:
    """VDSR has nothing to carry but its image, which is never negative."""
    teacher = VDSR(blocks=3, channels=8).eval()
    net = compile_to_plain(teacher, activation="prelu")
    assert set(forms(net)[:-1]) == {"relu"}


def test_goals_of_multiply_adds_and_parameters() -> None:
    """EDSR with 8 blocks of 32 channels: at most 2.5 times the teacher's, and 6.5 times in the ReLU form."""
    teacher = EDSR(scale=2, blocks=8, channels=32).eval()
    found = inspect(teacher)
    assert found.teacher is not None
    auto, _, one = (p.cost.macs_per_pixel / found.teacher.macs_per_pixel for p in found.predictions)
    assert one <= 2.5 < 6.5 < auto
    mobile = compile_to_plain(ECBSR(scale=4, blocks=4, channels=32).eval(), activation="prelu")
    assert report(mobile).cost.parameters <= 1.15 * 65_940


def test_options_that_do_not_fit() -> None:
    with pytest.raises(InvalidInput, match="carry 'split' is for activation relu"):
        compile_to_plain(small(), activation="prelu", carry="split")
    with pytest.raises(InvalidInput, match="neither relu nor prelu"):
        compile_to_plain(small(), activation="gelu")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="carry 'pass' is none of auto, shift, split"):
        compile_to_plain(small(), carry="pass")


def test_float64_takes_the_exact_slopes() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.LeakyReLU(0.01), nn.Conv2d(4, 3, 3, padding=1)).eval()
    net = compile_to_plain(teacher, activation="prelu", align=1)
    assert net[0].slope is not None and net[0].slope.dtype == torch.float32
    wide = net.double()[0].slope
    assert wide is not None and bool((wide == 0.01).all()) and not bool((wide.float().double() == 0.01).any())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(exact=True))
def test_any_network_is_the_same_bit_for_bit(teacher: RandomNetwork) -> None:
    """What computes without rounding is equal, whatever the network; where the one form is refused, so is the other."""
    teacher = teacher.double()
    try:
        compile_to_plain(teacher, align=1)
    except MemsrError as refusal:
        with pytest.raises(type(refusal)):
            compile_to_plain(teacher, activation="prelu", align=1)
        return
    net = compile_to_plain(teacher, activation="prelu", align=1)
    check_certificate(teacher, net)
    for x in random_images(teacher, net.info.input_range):
        assert torch.equal(run(net, x), run(teacher, x))


def run(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = network(x.double().clone())
    return result
