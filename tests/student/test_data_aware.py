"""The data-aware student: exact at full width, better the wider it is, the same whatever the images' order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.levels import difference, edsr, leveled, reported, smooth_images
from helpers.networks import random_network

from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.data_aware import derive_data_aware
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.shrink import shrink
from memsr_compiler.student.statistics.survey import survey
from memsr_compiler.student.widths.budget import full_widths
from memsr_compiler.teachers.families.imdn import IMDNBaseline


def test_full_width_is_the_teacher_borders_included() -> None:
    teacher = edsr()
    net = shrink(teacher, width=40, calibration=smooth_images())
    for size in (3, 17, 40):  # small images are mostly border
        unseen = [
            F.interpolate(x, (size, size + 2), mode="bilinear", align_corners=False) for x in smooth_images(9)[4:]
        ]
        assert difference(net, teacher, unseen) < 1e-3  # least squares with a penalty of 1e-6 of the variance: 2.5e-4
    assert max(layer.own_error for layer in reported(net).layers) < 1e-3


def test_the_wider_the_better_and_the_refit_helps() -> None:
    teacher, inputs = edsr(), smooth_images()
    errors = [
        difference(shrink(teacher, width=w, align=1, calibration=inputs, refit=0), teacher, inputs) for w in (4, 8, 14)
    ]
    assert errors[0] > errors[1] > errors[2]
    fitted = shrink(teacher, width=4, align=1, calibration=inputs, refit=100)
    assert reported(fitted).fidelity[-1] > reported(fitted).fidelity[0]
    assert difference(fitted, teacher, inputs) < errors[0]


def test_order_of_images_does_not_matter() -> None:
    inputs = smooth_images(5)
    one = shrink(edsr(), width=6, align=1, calibration=inputs, refit=2)
    other = shrink(edsr(), width=6, align=1, calibration=inputs[::-1], refit=2)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_leaky_relus_become_relus_and_directions() -> None:
    torch.manual_seed(0)
    teacher = IMDNBaseline(scale=2, blocks=1, channels=16).eval()
    inputs = smooth_images(6, 48)
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
    # The penalty again, at most 1.3e-5 here; rounding is in its third digit, whatever instructions the processor has.
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


@torch.no_grad()
def test_batch_size_does_not_matter() -> None:
    """Images one by one, or several together: a student that is as good.

    Not the same bits: float32 convolutions round differently in batches of another size, and directions that hardly
    vary follow the rounding.  Here such students are 2.5 % of their own error apart.
    """
    teacher = leveled()
    images = smooth_images(6)
    together = torch.cat(images)
    widths = [8] * (len(teacher.levels) - 1)
    seen = survey(teacher, [together])
    errors = []
    for inputs in ([together], images, [together[:2], together[2:]]):
        value = together
        kernels = derive_data_aware(teacher, inputs, seen, widths).kernels
        for i, (weight, bias) in enumerate(kernels):
            value = F.conv2d(value, weight, bias, padding=weight.shape[-1] // 2)
            value = value.relu() if i < len(kernels) - 1 else value
        errors.append(float((value - teacher.output(together)).norm()))
    assert errors == pytest.approx([errors[0]] * 3, rel=0.1)
