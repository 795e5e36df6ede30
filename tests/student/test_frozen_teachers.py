"""Students of teachers that have no plain form: derived from the frozen network, and fitted to the teacher itself."""

from __future__ import annotations

import re

import pytest
import torch
from helpers.gated import ChannelAttention, Contrast, Enhanced, gated, images
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_unshuffle

from memsr_compiler import shrink
from memsr_compiler.student.levels import LeveledTeacher, Outside
from memsr_compiler.student.refit import run_teacher
from memsr_compiler.student.report import ShrinkReport
from memsr_compiler.trace.approximate.freeze import freeze


@pytest.mark.parametrize("skip", ["none", "nearest"])
def test_the_target_is_the_output_of_the_teacher_itself(skip: Outside) -> None:
    network = gated(Contrast)
    frozen = freeze(network, images())
    levels = LeveledTeacher.of(network, (0.0, 1.0), image_skip=skip, frozen=frozen)
    x = images(1)[0].float()
    with torch.no_grad(), run_teacher(levels, [x]) as records:
        whole: Tensor = network(x) - (interpolate(x, scale_factor=2) if skip == "nearest" else 0)
        expected, target = pixel_unshuffle(whole, 2), records[0]["output"]
        torch.testing.assert_close(target, expected, rtol=0, atol=1e-6)
        difference = (levels.like(x).output(x) - target).abs().max()
    assert 1e-6 < difference < 0.1  # that of the frozen network is another
    assert levels.sha256 == frozen.teacher_sha256


@pytest.mark.parametrize("gate", [ChannelAttention, Enhanced])
def test_a_refit_comes_nearer_to_the_teacher_than_the_frozen_network(gate: type[nn.Module]) -> None:
    """Nearly as wide as that, the student is nearly the frozen network, which its refit is to leave."""
    network = gated(gate, act=nn.GELU)
    with torch.no_grad():
        for block in network.blocks:  # so that gates matter
            for layer in block[3].modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight *= 3
    student = shrink(network, theta=0.002, refit=60, calibration=images(3, size=40), samples=4, align=1)
    report: object = student.report
    assert isinstance(report, ShrinkReport) and report.frozen is not None
    assert [r.name for r in report.frozen.replacements][:2] == ["body.0.1", "body.0.3.gate"]
    assert report.fidelity[-1] > report.fidelity[0] + 0.5
    assert student.certificate is None
    assert student.info.guarantee.startswith("a student, narrower") and re.search(
        r"; derived from it with 2 gelu, 2 (spatial )?gates replaced$", student.info.guarantee
    )


def test_a_convertible_teacher_is_not_frozen() -> None:
    student = shrink(gated(nn.Identity), width=8, refit=0, calibration=images(), samples=4)
    report: object = student.report
    assert isinstance(report, ShrinkReport) and report.frozen is None
    assert "replaced" not in student.info.guarantee
