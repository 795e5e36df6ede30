"""Where things are computed: nothing of the device meets what is on the processor, and the results come back from it.

A GPU is not needed to see that: `helpers.far_device` stands for one, and gives the processor's very numbers.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.far_device import FAR, Far, FarDevice
from helpers.levels import difference, edsr, leveled, reported, smooth_images

from memsr_compiler.evaluation import cka
from memsr_compiler.lowering.freezing import trace_or_freeze
from memsr_compiler.student import shrink as shrink_module
from memsr_compiler.student.paper.options import PaperOptions
from memsr_compiler.student.shrink import shrink
from memsr_compiler.teachers.teacher import as_teacher


@pytest.mark.parametrize(
    "options",
    [
        {"width": 6, "align": 1, "refit": 3},
        {"max_params": 6000, "refit": 0},
        {"theta": 0.1, "init": "memsr"},
        {"width": 6, "init": "memsr", "paper": PaperOptions(linear_levels="free", constant="bias")},
    ],
)
def test_a_student_comes_back_from_its_device(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    teacher, images = edsr(), smooth_images(6)
    want = shrink(teacher, calibration=images, **options)
    read = trace_or_freeze(as_teacher(teacher), lambda _: images)  # torch.fx does not do that under a mode of torch's
    monkeypatch.setattr(shrink_module, "trace_or_freeze", lambda *_: read)
    monkeypatch.setattr(shrink_module, "torch_device", lambda _: FAR)
    with FarDevice():
        net = shrink(teacher, calibration=images, **options)
    held = [*net.state_dict().values(), *(x for a in reported(net).layers for x in (a.map, a.singular_values))]
    assert not any(isinstance(x, Far) for x in held)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), want.state_dict().values(), strict=True))


def test_similarity_comes_back_from_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, x = leveled(1, 4), leveled(2, 6), smooth_images(2)
    want = cka.linear_cka(a, b, x)
    monkeypatch.setattr(cka, "torch_device", lambda _: FAR)
    with FarDevice():
        found = cka.linear_cka(a, b, x, device="far")
    assert not isinstance(found, Far) and torch.equal(found, want)


def test_tensors_of_two_devices_are_told_apart() -> None:
    """Else the tests above would say nothing."""
    with FarDevice():
        far, near = torch.ones(3).to(FAR), torch.ones(3)
        assert isinstance(far + 1, Far) and not isinstance(far.cpu() + near, Far)
        with pytest.raises(AssertionError, match="two devices"):
            far + near


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("init", ["data-aware", "memsr"])
def test_a_gpu_gives_what_the_processor_gives(init: Any) -> None:
    """Float32 features summed in another order: both are as far from the teacher, and the student is on the CPU."""
    teacher, images = edsr(), smooth_images(6)
    a, b = (shrink(teacher, width=8, calibration=images, init=init, device=d) for d in ("cpu", "cuda"))
    assert a.widths == b.widths and {p.device.type for p in b.parameters()} == {"cpu"}
    assert difference(b, teacher, images) < 1.2 * difference(a, teacher, images)
