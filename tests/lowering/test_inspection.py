"""What inspect says: of what converts, of what does not, and that its predictions are those of the schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from memsr_compiler import ir
from memsr_compiler.analysis.cost import default_align, predicted_widths
from memsr_compiler.errors import InvalidInput
from memsr_compiler.lowering.canonical import canonical
from memsr_compiler.lowering.inspection import _with_small_kernels, inspect
from memsr_compiler.teachers.families.rrdb import RRDBNet
from memsr_compiler.trace.trace import trace


def rrdb() -> RRDBNet:
    torch.manual_seed(0)
    model = RRDBNet(scale=4, blocks=2, channels=4, growth=2)
    model.eval()
    return model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"align": 0}, "widths cannot be aligned to 0; take 1 or more"),
        ({"align": "8"}, "widths cannot be aligned to 8; take 1 or more"),
        ({"align": float("nan")}, "widths cannot be aligned to nan"),
        ({"tail": "drop"}, "tail 'drop' is neither fold nor keep"),
        ({"input_range": (1, 0)}, "input range 1 0 is empty"),
    ],
)
def test_options_that_are_none(options: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        inspect(nn.Conv2d(3, 3, 3, padding=1), **options)


def test_predictions_are_those_of_the_whole_graph() -> None:
    """Whatever is done to hold less of it."""
    inspection = inspect(rrdb())
    graph = trace(rrdb()).graph
    assert inspection.convertible and not inspection.reason
    for prediction in inspection.predictions:
        (stage,) = canonical(graph, "fold", keep_prelu=prediction.carry == "pass")
        assert (
            list(prediction.widths)
            == predicted_widths(stage.graph, prediction.carry, default_align(prediction.carry))[0]
        )
    assert [p.carry for p in inspection.predictions] == ["auto", "shift", "pass"]


def test_weights_that_float32_does_not_hold_are_predicted_too() -> None:
    model = rrdb().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-12)
    assert [p.widths for p in inspect(model).predictions] == [p.widths for p in inspect(rrdb()).predictions]


def test_kernels_that_the_module_has_already_are_not_copied() -> None:
    model = rrdb()
    graph = _with_small_kernels(trace(model).graph, model)
    own = dict(model.named_parameters())
    kernels = [op for op in graph if isinstance(op, ir.Conv2d) and not op.pointwise]
    assert len(kernels) > 30
    for op in kernels:
        assert op.weight.data_ptr() == own[f"{op.name}.weight"].data_ptr()


def test_a_kernel_under_the_name_of_another_is_not_taken_for_it() -> None:
    model, other = rrdb(), rrdb()
    with torch.no_grad():
        other.conv_first.weight.neg_()
    before = trace(model).graph
    after = _with_small_kernels(before, other)
    assert after.sha256() == before.sha256()
    assert all(op.weight.dtype == torch.float32 for op in after if isinstance(op, ir.Conv2d) and not op.pointwise)


def test_what_cannot_be_read_is_told_with_its_modules() -> None:
    inspection = inspect(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softmax(dim=1)))
    assert not inspection.convertible
    assert inspection.reason.startswith("1: softmax: it is curved")
    assert [(layer.name, layer.kind) for layer in inspection.layers] == [("0", "Conv2d"), ("1", "Softmax")]
    assert inspection.teacher is None and not inspection.predictions


def test_a_tail_that_cannot_be_kept_is_the_reason() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(3, 48, 3, padding=1)
            self.c = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.pixel_shuffle(self.b(x), 4) + nn.functional.pixel_shuffle(
                self.c(nn.functional.pixel_shuffle(self.a(x), 2)), 2
            )

    assert inspect(Skips()).convertible
    inspection = inspect(Skips(), tail="keep")
    assert not inspection.convertible and "use --tail fold" in inspection.reason
    assert inspection.teacher is not None and len(inspection.layers) > 3 and not inspection.predictions


def test_an_image_skip_is_predicted_and_told() -> None:
    class Enlarged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            big = nn.functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
            return nn.functional.pixel_shuffle(self.a(x), 2) + big

    inspection = inspect(Enlarged())
    assert not inspection.convertible
    assert inspection.reason.startswith("only with --image-skip outside")
    assert inspection.predictions


def test_parameters_are_the_networks_own() -> None:
    """A graph has biases of zeros, and slopes that are numbers of the code."""
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.LeakyReLU(0.1), nn.Conv2d(4, 3, 3, padding=1))
    bent = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4), nn.Conv2d(4, 3, 3, padding=1))
    for network in (plain, bent):
        cost = inspect(network.eval()).teacher
        assert cost is not None and cost.parameters == sum(p.numel() for p in network.parameters())
