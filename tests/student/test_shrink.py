"""shrink: from a teacher, as a person would pass it, to a student and its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.levels import difference, edsr, noise, reported, smooth_images
from helpers.teachers import write_teacher
from helpers.trained import Edsr as TrainedEdsr
from PIL import Image
from torch import Tensor, nn

from memsr_compiler import compile_to_plain, export_onnx, load_plain, save_plain
from memsr_compiler.errors import InvalidInput
from memsr_compiler.student import shrink as shrink_module
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.maps import describe_layers
from memsr_compiler.student.paper.options import AUTHORS, PaperOptions
from memsr_compiler.student.report import Kernel
from memsr_compiler.student.shrink import shrink
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.teachers.teacher import Teacher


def test_the_teacher_is_not_changed() -> None:
    teacher = edsr()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    shrink(teacher, width=4, align=1, calibration=smooth_images(), refit=1)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_plain_network_is_a_teacher_too() -> None:
    teacher, inputs = edsr(), smooth_images()
    plain = compile_to_plain(teacher)
    direct = shrink(teacher, width=8, calibration=inputs, refit=0)
    through = shrink(plain, width=8, calibration=inputs, refit=0)
    assert through.info.teacher_sha256 == plain.info.teacher_sha256
    a, b = difference(direct, teacher, inputs), difference(through, teacher, inputs)
    assert b < 1.5 * a  # equal up to the ties that rounding breaks
    carried = LeveledTeacher.of(plain, (0.0, 1.0))
    assert max(carried.widths[1:-2]) < max(plain.widths[1:-2])  # split carries are one channel again


def test_linear_channels_are_lowered_before_the_refit(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what `lower_kernels` says: here each of the first layer's by a hundredth of its range."""
    inputs = [x.float() for x in smooth_images()]

    def lower(kernels: Sequence[Kernel], images: Sequence[Tensor]) -> tuple[Kernel, ...]:
        (weight, bias), (reader, of_reader), *others = kernels
        values = torch.cat([F.conv2d(x.to(weight), weight, bias, padding=1)[0].flatten(1) for x in inputs], 1)
        drop = (values.amax(1) - values.amin(1)) / 100
        return ((weight, bias - drop), (reader, of_reader + reader.sum((2, 3)) @ drop), *others)

    monkeypatch.setattr(shrink_module, "lower_kernels", lower)
    lowered = shrink(edsr(), width=8, calibration=inputs, refit=0)
    monkeypatch.setattr(shrink_module, "lower_kernels", lambda kernels, images: kernels)
    raised = shrink(edsr(), width=8, calibration=inputs, refit=0)
    first, second = (lowest_by_range([net[0](x).detach() for x in inputs]) for net in (lowered, raised))
    torch.testing.assert_close(first, second - 0.01, rtol=0, atol=1e-4)
    reach = lowered.scale * len(list(lowered))
    for x in inputs:
        inner, same = (net(x)[..., reach:-reach, reach:-reach] for net in (lowered, raised))
        assert inner.numel() and inner.shape == same.shape
        torch.testing.assert_close(inner, same, rtol=0, atol=1e-4)


def lowest_by_range(outputs: Sequence[Tensor]) -> Tensor:
    """The lowest value of each channel, as a part of its range."""
    values = torch.cat([y[0].flatten(1) for y in outputs], 1)
    return values.amin(1) / (values.amax(1) - values.amin(1))


def test_a_student_is_written_and_read_again(tmp_path: Path) -> None:
    net = shrink(edsr(), width=8, calibration=smooth_images(), refit=0)
    save_plain(net, tmp_path / "student.safetensors")
    export_onnx(net, tmp_path / "student.onnx")
    for name in ("student.safetensors", "student.onnx"):
        again = load_plain(tmp_path / name)
        assert again.info == net.info and again.certificate is None
        assert all(
            torch.equal(a, b) for a, b in zip(again.state_dict().values(), net.state_dict().values(), strict=True)
        )


def test_limits_where_there_is_little_to_share_out() -> None:
    """A single convolution, a narrow network, and images on which nothing varies."""
    flat = [torch.full((1, 3, 40, 40), v, dtype=torch.float64) for v in (0.2, 0.7)]
    single = nn.Conv2d(3, 3, 3, padding=1)
    assert shrink(single, max_params=100, calibration=smooth_images()).widths == [3, 3]
    with pytest.raises(InvalidInput, match="below what a student"):
        shrink(single, max_params=10, calibration=smooth_images())
    narrow = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    assert shrink(narrow, max_macs=10**9, calibration=smooth_images(), refit=0).widths == [3, 8, 3]
    for inputs in (flat, smooth_images()):
        net = shrink(edsr(), max_params=6000, calibration=inputs, refit=2)
        assert reported(net).cost.parameters <= 6000


@pytest.mark.parametrize(
    ("text", "number"),
    [({"max_params": "6k"}, 6000), ({"max_macs": "1.2M"}, 1_200_000), ({"max_memory": "24MB"}, 24e6)],
)
def test_limits_as_people_write_them(text: dict[str, Any], number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[Any] = []

    def keep(*values: Any) -> None:
        budgets.append(
            dict(zip(("theta", "width", "widths", "max_params", "max_macs", "max_memory"), values, strict=False))
        )
        raise InvalidInput("seen")

    monkeypatch.setattr(shrink_module, "Budget", keep)
    with pytest.raises(InvalidInput, match="seen"):
        shrink("nowhere.pt", **text)
    assert {name: value for name, value in budgets[0].items() if value is not None} == dict.fromkeys(text, number)
    with pytest.raises(InvalidInput, match="want a whole number from 1 up, or a"):
        shrink("nowhere.pt", **cast("dict[str, Any]", dict.fromkeys(text, "much")))


def test_paper_mode_and_the_authors_choices_through_shrink() -> None:
    teacher, inputs = edsr(), smooth_images()
    text = shrink(teacher, width=8, init="memsr", calibration=inputs)
    code = shrink(teacher, width=8, init="memsr", calibration=inputs, paper=AUTHORS)
    assert reported(text).mode == "memsr" and text.widths != code.widths  # the code keeps the last level's width
    data_aware = shrink(teacher, width=8, calibration=inputs, refit=0)
    assert difference(data_aware, teacher, inputs) < difference(text, teacher, inputs)


@torch.no_grad()
@pytest.mark.parametrize("init", ["data-aware", "memsr"])
def test_channels_are_balanced_and_the_maps_are_theirs(init: Any) -> None:
    teacher, inputs = edsr(), smooth_images()
    for parameter in teacher.head.parameters():
        parameter.mul_(300)
    net = shrink(teacher, width=8, calibration=inputs, init=init, refit=0)
    for above, below in pairwise(net):
        rows, columns = above.weight.flatten(1).norm(dim=1), below.weight.transpose(0, 1).flatten(1).norm(dim=1)
        ratio = (rows / columns)[(rows > 0) & (columns > 0)]
        assert float(ratio.min()) > 0.24 and float(ratio.max()) < 4.1  # powers of two, above and below
    levels = LeveledTeacher.of(teacher, (0.0, 1.0), image_skip=None if init == "data-aware" else "none")
    want = describe_layers(levels, [(a.weight.double(), a.bias.double()) for a in net], [0] * 7, inputs)
    if init == "data-aware":
        for layer, again in zip(reported(net).layers, want, strict=True):
            torch.testing.assert_close(layer.map, again.map, rtol=1e-3, atol=1e-3 * float(again.map.abs().max()))
            assert layer.own_error == pytest.approx(again.own_error, rel=1e-3)


@torch.no_grad()
def test_the_image_outside_is_added_to_what_the_layers_give() -> None:
    """At full width the student is the teacher, borders included, and so are the files that it is written to."""
    teacher, inputs = edsr(), smooth_images()
    net = shrink(teacher, width=40, calibration=inputs)
    assert net.info.image_skip == "nearest"
    assert difference(net, teacher, [*inputs, noise(1, 3, 3, 5)]) < 1e-3  # see test_data_aware
    inside = shrink(teacher, width=40, calibration=inputs, image_skip="none")
    assert inside.info.image_skip == "" and difference(inside, teacher, inputs) < 1e-3
    layers = nn.Sequential(*net)
    assert difference(layers, teacher, inputs) > 0.1  # the image is not in the layers


@pytest.mark.parametrize("scale", [1, 2])
def test_no_image_is_outside_where_none_can_be(scale: int) -> None:
    luma_of_rgb = nn.Sequential(nn.Conv2d(3, scale**2, 3, padding=1), nn.PixelShuffle(scale))
    for teacher in (luma_of_rgb, nn.Conv2d(3, 3, 3, padding=1)):
        assert shrink(teacher, max_params=4000, calibration=smooth_images(), refit=0).info.image_skip == ""
        with pytest.raises(InvalidInput, match=r"image cannot stay outside: .*; leave --image-skip out"):
            shrink(teacher, max_params=4000, calibration=smooth_images(), image_skip="nearest")


def test_fewer_layers_stand_for_several_levels_each(tmp_path: Path) -> None:
    """A trained teacher.  The levels that were kept are those of which the students tried came nearer."""
    teacher = TrainedEdsr()
    inputs = [x[..., :96, :96] for x in sample_inputs(scale=2, channels=3, input_range=(0.0, 1.0))[:4]]
    errors = []
    for layers in (3, 8):
        net = shrink(teacher, width=8, layers=layers, calibration=inputs, samples=4, refit=0)
        report = reported(net)
        assert len(net.layers) == layers and net.widths[1:-1] == [8] * (layers - 1)
        choice = report.choice
        assert choice is not None and len(choice.kept) == len(choice.even) == layers - 1
        assert sum(layer.spans for layer in report.layers) == choice.kept[-1]
        assert (choice.kept == choice.even) == (choice.losses[1] == min(choice.losses))
        assert net.info.levels == choice.kept
        for path in (tmp_path / f"{layers}.safetensors", tmp_path / f"{layers}.onnx"):
            (save_plain if path.suffix == ".safetensors" else export_onnx)(net, path)
            assert load_plain(path, require_certificate=False).info == net.info
        errors.append(difference(net, teacher, inputs))
    assert errors[1] < errors[0]


def test_all_layers_are_no_choice() -> None:
    teacher, inputs = edsr(), smooth_images()
    most = len(LeveledTeacher.of(teacher, (0.0, 1.0)).levels)
    whole, same = (shrink(teacher, width=8, calibration=inputs, refit=0, layers=n) for n in (None, most))
    assert reported(same).choice is None and whole.info.levels == ()
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), same.state_dict().values(), strict=True))
    single = shrink(teacher, width=8, calibration=inputs, refit=0, layers=1)
    assert single.widths == [3, 12] and reported(single).layers == ()
    widths = [8, 40, 16]
    assert shrink(teacher, widths=widths, layers=4, calibration=inputs, refit=0).widths[1] == 8
    with pytest.raises(InvalidInput, match="3 widths are given, and the student has 4 inner levels"):
        shrink(teacher, widths=widths, layers=5, calibration=inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "random"}, "neither data-aware nor memsr"),
        ({"refit": -1}, "-1 steps"),
        ({"refit": 2.5}, "refit=2.5: want a whole number"),
        ({"width": 0}, "a width of 0 is no layer"),
        ({"width": 1000}, "a width of 1000 is not between 1 and the teacher's"),
        ({"width": None, "widths": [8, 8]}, "2 widths are given"),
        ({"width": None, "max_macs": -1}, "leaves room for no student"),
        ({"layers": 0}, "a student of 0 layers is none"),
        ({"layers": 2.5}, "layers=2.5: want a whole number"),
        ({"layers": 99}, "layers=99: the teacher's plain form has 8; give at most so many"),
        ({"layers": 4, "init": "memsr"}, "MemSR's Algorithm 1 takes all of them"),
        ({"image_skip": "bicubic"}, "image_skip='bicubic': want 'nearest' or 'none'"),
        ({"samples": "many"}, "samples='many': want a whole number"),
        ({"paper": "code"}, "want PaperOptions, not str"),
        ({"paper": PaperOptions(kept=-1)}, "kept=-1"),
        ({"paper": PaperOptions(shift_over=cast("Any", "some"))}, "shift_over='some'"),
        ({"init": "memsr", "width": None, "max_params": 9000, "paper": AUTHORS}, "1 levels keep the teacher's width"),
        ({"input_range": (1.0, 0.0)}, "is empty or infinite"),
        ({"input_range": 255}, "want the lowest and the highest value"),
        ({"device": "tpu"}, "want cpu or cuda"),
        ({"calibration": "missing"}, "missing: is no image file"),
        ({"samples": 0}, "0 samples"),
        ({"seed": -1}, "seed of -1"),
        ({"align": 0}, "aligned to 0"),
        ({"mean_shift": float("nan")}, "mean shift of nan"),
        ({"calibration": [torch.rand(1, 1, 40, 40)]}, "takes 3 channels, the calibration images have 1"),
    ],
)
def test_options_that_do_not_fit(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str) -> None:
    """Refused before any work begins: no image is cut, no teacher run."""

    def too_late(*_: Any, **__: Any) -> Any:
        raise AssertionError("work began")

    monkeypatch.setattr(shrink_module, "batches", too_late)
    with pytest.raises(InvalidInput, match=message):
        shrink(edsr(), **{"width": 8, "calibration": smooth_images(1), **options})


def test_a_teacher_as_a_person_would_pass_it(tmp_path: Path) -> None:
    """A module, a Teacher, a file, a plain network and its file; and the range is the teacher's own."""
    images = smooth_images(2)
    write_teacher(edsr(), tmp_path / "teacher.pt")
    want = shrink(edsr(), width=8, calibration=images, refit=0)
    for teacher in (Teacher(module=edsr()), tmp_path / "teacher.pt", str(tmp_path / "teacher.pt")):
        net = shrink(teacher, width=8, calibration=images, refit=0)
        assert all(
            torch.equal(a, b) for a, b in zip(net.state_dict().values(), want.state_dict().values(), strict=True)
        )
    wide = Teacher(module=edsr(), input_range=(0.0, 255.0))
    assert shrink(wide, width=8, calibration=images, refit=0).info.input_range == (0.0, 255.0)
    assert shrink(wide, width=8, calibration=images, refit=0, input_range=(0, 1)).info.input_range == (0, 1)
    plain = compile_to_plain(edsr())
    save_plain(plain, tmp_path / "plain.safetensors")
    nets = [shrink(p, width=8, calibration=images, refit=0) for p in (plain, tmp_path / "plain.safetensors")]
    assert all(torch.equal(a, b) for a, b in zip(*(n.state_dict().values() for n in nets), strict=True))
    with pytest.raises(InvalidInput, match="a teacher is wanted"):
        shrink(None, width=8)  # type: ignore[arg-type]


def test_calibration_images_as_a_person_would_pass_them(tmp_path: Path) -> None:
    """One tensor or a list of its images; pixels or a folder of their files."""
    images = smooth_images(3)
    pixels = [(noise(90, 100, 3, seed=i).numpy() * 255).astype(np.uint8) for i in range(2)]
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    for one, other in ((torch.cat(images), images), (pixels, tmp_path)):
        a, b = (shrink(edsr(), width=8, calibration=given, refit=0) for given in (one, other))
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_report_is_made_at_the_end() -> None:
    report = reported(shrink(edsr(), width=8, calibration=smooth_images(2), refit=1))
    assert list(report.seconds) == ["reading", "survey", "layers", "refit", "maps"]
    assert report.images == 2 and report.pixels == 2 * 40 * 40  # smaller than a crop, so they are used whole
    with pytest.raises(FrozenInstanceError):
        report.images = 0  # type: ignore[misc]


@pytest.mark.parametrize("init", ["data-aware", "memsr"])
def test_a_teacher_that_overflows_is_refused_by_name(init: Any, tmp_path: Path) -> None:
    """A matrix without elements was reshaped, which was called a mistake of memsrc itself."""
    teacher = edsr(blocks=1)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.mul_(1e12)
    file = read_teacher(write_teacher(teacher, tmp_path / "big.pt"), probe=False)
    for source, name in ((teacher, "EDSR"), (file, r"big\.pt")):
        with pytest.raises(InvalidInput, match=rf"{name}: gives NaN or infinite values for photographs"):
            shrink(source, width=8, calibration=smooth_images(), init=init, refit=0)
