"""The data-aware student: exact at full width, better the wider it is, the same whatever the images' order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import random_network
from torch import Tensor, nn

from memsr_compiler import compile_to_plain, export_onnx, load_plain, save_plain
from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.crops import batches
from memsr_compiler.student.data_aware import Student, derive_data_aware
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.paper.initialise import AUTHORS
from memsr_compiler.student.refit import refit
from memsr_compiler.student.report import ShrinkReport
from memsr_compiler.student.shrink import shrink
from memsr_compiler.student.statistics.spill import Spool
from memsr_compiler.student.statistics.survey import survey
from memsr_compiler.student.widths import trial
from memsr_compiler.student.widths.budget import full_widths
from memsr_compiler.student.widths.trial import PREFERENCES
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.imdn import IMDNBaseline


def edsr(blocks: int = 2, channels: int = 8) -> EDSR:
    torch.manual_seed(4)
    return EDSR(scale=2, blocks=blocks, channels=channels).eval()


def images(count: int = 4, size: int = 40, channels: int = 3) -> list[Tensor]:
    """Noise of several scales: neighbours are alike, as in photographs."""
    generator = torch.Generator().manual_seed(7)
    found = []
    for _ in range(count):
        levels = [torch.rand(1, channels, n, n, generator=generator) for n in (3, 9, size)]
        large = [F.interpolate(x, (size, size), mode="bilinear", align_corners=False) for x in levels]
        found.append((0.6 * large[0] + 0.3 * large[1] + 0.1 * large[2]).double())
    return found


@torch.no_grad()
def difference(a: nn.Module, b: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Root of the mean squared difference."""
    squares = torch.cat([(a(x.float()) - b(x.float())).flatten() for x in inputs]).square()
    return float(squares.mean().sqrt())


def reported(net: object) -> ShrinkReport:
    report = net.report  # type: ignore[attr-defined]
    assert isinstance(report, ShrinkReport)
    return report


def test_full_width_is_the_teacher_borders_included() -> None:
    teacher = edsr()
    net = shrink(teacher, width=40, calibration=images())
    for size in (3, 17, 40):  # small images are mostly border
        unseen = [F.interpolate(x, (size, size + 2), mode="bilinear", align_corners=False) for x in images(9)[4:]]
        assert difference(net, teacher, unseen) < 1e-3  # the weights are found by least squares, with a penalty
    assert max(layer.own_error for layer in reported(net).layers) < 1e-3


def test_the_wider_the_better_and_the_refit_helps() -> None:
    teacher, inputs = edsr(), images()
    errors = [
        difference(shrink(teacher, width=w, align=1, calibration=inputs, refit=0), teacher, inputs) for w in (4, 8, 14)
    ]
    assert errors[0] > errors[1] > errors[2]
    fitted = shrink(teacher, width=4, align=1, calibration=inputs, refit=100)
    assert reported(fitted).fidelity[-1] > reported(fitted).fidelity[0]
    assert difference(fitted, teacher, inputs) < errors[0]


def test_the_teacher_is_not_changed() -> None:
    teacher = edsr()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    shrink(teacher, width=4, align=1, calibration=images(), refit=1)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_order_of_images_does_not_matter() -> None:
    inputs = images(5)
    one = shrink(edsr(), width=6, align=1, calibration=inputs, refit=2)
    other = shrink(edsr(), width=6, align=1, calibration=inputs[::-1], refit=2)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_plain_network_is_a_teacher_too() -> None:
    teacher, inputs = edsr(), images()
    plain = compile_to_plain(teacher)
    direct = shrink(teacher, width=8, calibration=inputs, refit=0)
    through = shrink(plain, width=8, calibration=inputs, refit=0)
    assert through.info.teacher_sha256 == plain.info.teacher_sha256
    a, b = difference(direct, teacher, inputs), difference(through, teacher, inputs)
    assert b < 1.5 * a  # equal up to the ties that rounding breaks
    carried = LeveledTeacher.of(plain, (0.0, 1.0))
    assert max(carried.widths[1:-2]) < max(plain.widths[1:-2])  # split carries are one channel again


def test_a_student_is_written_and_read_again(tmp_path: Path) -> None:
    net = shrink(edsr(), width=8, calibration=images(), refit=0)
    save_plain(net, tmp_path / "student.safetensors")
    export_onnx(net, tmp_path / "student.onnx")
    for name in ("student.safetensors", "student.onnx"):
        again = load_plain(tmp_path / name)
        assert again.info == net.info and again.certificate is None
        assert all(
            torch.equal(a, b) for a, b in zip(again.state_dict().values(), net.state_dict().values(), strict=True)
        )


def test_leaky_relus_become_relus_and_directions() -> None:
    torch.manual_seed(0)
    teacher = IMDNBaseline(scale=2, blocks=1, channels=16).eval()
    inputs = images(6, 48)
    narrow, wide = (shrink(teacher, width=w, calibration=inputs, refit=0) for w in (8, 24))
    assert difference(wide, teacher, inputs) < difference(narrow, teacher, inputs)
    assert any(0 < layer.relus < layer.width for layer in reported(wide).layers)


@pytest.mark.parametrize("seed", range(1, 16, 2))
def test_random_networks_at_full_width(seed: int) -> None:
    network = random_network(seed)
    teacher = LeveledTeacher.of(network, (0.0, 1.0))
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.rand(1, network.channels, 48, 40, generator=generator, dtype=torch.float64) for _ in range(4)]
    net = shrink(network, widths=full_widths(teacher, 8), calibration=inputs)
    with torch.no_grad():
        largest = max(float(network(x.float()).abs().max()) for x in inputs)
    assert difference(net, network, inputs) < 2e-4 * largest


def test_too_few_pixels() -> None:
    tiny = [torch.rand(1, 3, 3, 3, dtype=torch.float64)]
    with pytest.raises(InvalidInput, match=r"unknowns .* 9 pixels: \d+ more are needed"):
        shrink(edsr(), width=8, calibration=tiny)


def test_constant_images() -> None:
    """Nothing varies: the student still gives what the teacher gives for them."""
    teacher = edsr()
    flat = [torch.full((1, 3, 40, 40), v, dtype=torch.float64) for v in (0.2, 0.7)]
    net = shrink(teacher, width=8, calibration=flat, refit=0)
    assert difference(net, teacher, flat) < 0.02


def test_limits_where_there_is_little_to_share_out() -> None:
    """A single convolution, a narrow network, and images on which nothing varies."""
    flat = [torch.full((1, 3, 40, 40), v, dtype=torch.float64) for v in (0.2, 0.7)]
    single = nn.Conv2d(3, 3, 3, padding=1)
    assert shrink(single, max_params=100, calibration=images()).widths == [3, 3]
    with pytest.raises(InvalidInput, match="below what a student"):
        shrink(single, max_params=10, calibration=images())
    narrow = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    assert shrink(narrow, max_macs=10**9, calibration=images(), refit=0).widths == [3, 8, 3]
    for inputs in (flat, images()):
        net = shrink(edsr(), max_params=6000, calibration=inputs, refit=2)
        assert reported(net).cost is not None and reported(net).cost.parameters <= 6000  # type: ignore[union-attr]


def test_refit_goes_back_to_where_the_teacher_is() -> None:
    """A student of the teacher's own architecture, its weights disturbed: most of the damage is undone."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 3), (8, 8), (4, 8)]
    true = [
        (
            0.3 * torch.randn(o, i, 3, 3, generator=generator).double(),
            0.1 * torch.randn(o, generator=generator).double(),
        )
        for o, i in shapes
    ]

    def run(kernels: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
        for k, (w, b) in enumerate(kernels):
            x = F.conv2d(x, w.to(x.dtype), b.to(x.dtype), padding=1)
            x = x.relu() if k < len(kernels) - 1 else x
        return x

    disturbed = [(w * (1 + 0.1 * torch.randn(w.shape, generator=generator).double()), b) for w, b in true]
    with Spool() as batches:
        for x in images(3):
            batches.append({"image": x.float(), "output": run(true, x.float())})
        found = refit(disturbed, batches, 120)
    assert found.losses[-1] < found.losses[0] / 50


def test_paper_mode_and_the_authors_choices_through_shrink() -> None:
    teacher, inputs = edsr(), images()
    text = shrink(teacher, width=8, init="memsr", calibration=inputs)
    code = shrink(teacher, width=8, init="memsr", calibration=inputs, paper=AUTHORS)
    assert reported(text).mode == "memsr" and text.widths != code.widths  # the code keeps the last level's width
    data_aware = shrink(teacher, width=8, calibration=inputs, refit=0)
    assert difference(data_aware, teacher, inputs) < difference(text, teacher, inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "random"}, "neither data-aware nor memsr"),
        ({"refit": -1}, "-1 steps"),
        ({"samples": 0}, "0 samples"),
        ({"seed": -1}, "seed of -1"),
        ({"align": 0}, "aligned to 0"),
        ({"mean_shift": float("nan")}, "mean shift of nan"),
        ({"calibration": [torch.rand(1, 1, 40, 40)]}, "takes 3 channels, the calibration images have 1"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        shrink(edsr(), width=8, **{"calibration": images(1), **options})


@pytest.mark.parametrize("avoided", PREFERENCES)
def test_as_many_relus_as_come_nearest(monkeypatch: pytest.MonkeyPatch, avoided: float) -> None:
    """Whichever way of choosing them gives the better student of some crops, on others."""
    teacher = LeveledTeacher.of(edsr(), (0.0, 1.0))
    inputs = batches(images(8), samples=32, crop=16)
    seen, widths = survey(teacher, inputs), (6,) * (len(teacher.levels) - 1)
    derived = derive_data_aware

    def spoilt(*given: Any, preference: float) -> Student:
        """A student whose output is far off, where this is the way to be avoided."""
        student = derived(*given, preference=preference)
        weight, bias = student.kernels[-1]
        return Student((*student.kernels[:-1], (weight, bias + 10 * (preference == avoided))), student.relus)

    monkeypatch.setattr(trial, "derive_data_aware", spoilt)
    assert trial.find_preference(teacher, inputs, seen, widths) != avoided
