"""Contents of a level's channels, by a certificate."""

from __future__ import annotations

import torch
from helpers.pages import converted

from memsr_compiler.ir import Meaning
from memsr_compiler.proof.certificate import Certificate, Stage
from memsr_compiler.reports.level_contents import list_bars
from memsr_compiler.teachers.families.edsr import EDSR


def test_bars_count_every_channel_once() -> None:
    net, _ = converted(EDSR(scale=2, blocks=2, channels=8, mean=(0.4, 0.4, 0.4), rgb_range=1))
    assert net.certificate is not None
    assert [bar.width for bar in list_bars(net.certificate)] == net.widths


def test_a_bar_tells_new_values_from_carried_ones() -> None:
    held = Meaning("value", (0, 1), "a.relu", (0, 1))
    below = (held, Meaning("zero", (2,)))
    above = (
        held,
        Meaning("positive", (2,), "b", (0,)),
        Meaning("negative", (3,), "b", (0,)),
        Meaning("one", (4,)),
    )
    image = (Meaning("value", (0,), "x", (0,)),)
    bars = list_bars(Certificate("", "", (0.0, 1.0), (Stage(1, (image, below, above, image)),)))
    assert [bar.label for bar in bars] == ["input", "after layer 1", "after layer 2", "after layer 3"]
    assert bars[1].parts == (("ReLU output", 2, "a.relu (2)"), ("padding", 1, ""))
    assert bars[2].parts == (
        ("carried free", 2, "a.relu (2)"),
        ("carried split", 2, "b (2)"),
        ("constant 1", 1, ""),
    )


def test_what_passes_a_slope_of_1_is_carried() -> None:
    image = (Meaning("value", (0,), "x", (0,)),)
    level = (Meaning("value", (0, 1), "a", (0, 1)), Meaning("value", (2,), "r", (0,)))
    certificate = Certificate("", "", (0.0, 1.0), (Stage(1, (image, level, image)),))
    bars = list_bars(certificate, [torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0])])
    assert bars[1].parts == (("ReLU output", 1, "r (1)"), ("carried free", 2, "a (2)"))
