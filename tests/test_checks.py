"""Functions that a person gives to be told how far the work is: what is none is refused before the work begins."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from memsr_compiler import benchmark, calibrate, compile_to_plain, shrink
from memsr_compiler.checks import require_listener
from memsr_compiler.errors import InvalidInput

TEACHER = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
IMAGE = torch.rand(1, 3, 16, 16)


@pytest.mark.parametrize(
    ("function", "wrong", "message"),
    [
        (compile_to_plain, {"on_pass": 3}, "on_pass: want a function that takes a report, or None, not int"),
        (compile_to_plain, {"on_graph": lambda graph: None}, "on_graph: .* takes a name and a graph; .* too many"),
        (partial(calibrate, images=IMAGE), {"on_step": len}, "on_step: want a function that takes nothing; .* missing"),
        (partial(shrink, width=4, calibration=IMAGE), {"on_step": []}, "on_step: .* takes a text, or None, not list"),
        (partial(shrink, max_latency=1.0), {"timer": 3}, "timer: .* takes a network and its image's size, .* not int"),
        (
            lambda model, **wrong: benchmark([model], **wrong),
            {"on_step": lambda: None},
            "on_step: .* takes a text; .* too many",
        ),
    ],
)
def test_what_cannot_be_told_is_refused(function: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{message}"):
        function(TEACHER, **wrong)


@pytest.mark.parametrize("listener", [None, print, dict.fromkeys, lambda *what: None, lambda what, more=1: None])
def test_what_can_be_told_passes(listener: object) -> None:
    require_listener("on_step", listener, "a text")
