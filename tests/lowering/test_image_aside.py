"""Teachers that add the image at their end, each pixel repeated: with it outside they are the same networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler import check_certificate, check_equivalence, compile_to_plain
from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.lowering.image_aside import set_image_aside
from memsr_compiler.trace.trace import trace

End = Callable[[Tensor, Tensor], Tensor]


class Ending(nn.Module):
    """Two convolutions to 12 channels, and an end that is given their result and the image."""

    def __init__(self, end: End) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.last(self.first(x).relu()), x)


def enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def convolve_with_ones(x: Tensor) -> Tensor:
    return F.conv2d(x, torch.eye(3, dtype=x.dtype).repeat_interleave(4, 0)[..., None, None])


def _double(y: Tensor) -> Tensor:
    return y + y


ENDS: dict[str, End] = {
    "after the shuffle": lambda y, x: F.pixel_shuffle(y, 2) + enlarged(x),
    "the image first": lambda y, x: enlarged(x) + F.pixel_shuffle(y, 2),
    "before the shuffle": lambda y, x: F.pixel_shuffle(y + x.repeat_interleave(4, dim=1), 2),
    "put together": lambda y, x: F.pixel_shuffle(
        y + torch.cat([x[:, i : i + 1] for i in range(3) for _ in range(4)], dim=1), 2
    ),
    "a kernel of ones": lambda y, x: F.pixel_shuffle(y + convolve_with_ones(x), 2),
    "three terms": lambda y, x: F.pixel_shuffle(y, 2) + enlarged(x) + F.pixel_shuffle(y.relu(), 2),
}
OTHERS: dict[str, End] = {
    "half of the image": lambda y, x: F.pixel_shuffle(y, 2) + enlarged(0.5 * x),
    "brighter": lambda y, x: F.pixel_shuffle(y, 2) + enlarged(x + 1e-9),
    "colours exchanged": lambda y, x: F.pixel_shuffle(y, 2) + enlarged(x.flip(1)),
    "channels in turn": lambda y, x: F.pixel_shuffle(y + x.repeat(1, 4, 1, 1), 2),
    "blurred": lambda y, x: (
        F.pixel_shuffle(y, 2) + enlarged(F.conv2d(x, torch.ones(3, 1, 3, 3, dtype=x.dtype) / 8, padding=1, groups=3))
    ),
    "clamped": lambda y, x: (F.pixel_shuffle(y, 2) + enlarged(x)).clamp(0, 1),
    "its positive part": lambda y, x: F.pixel_shuffle(y, 2) + enlarged((x - 0.5).relu()),
    "none": lambda y, x: F.pixel_shuffle(y, 2),
    "twice": lambda y, x: _double(F.pixel_shuffle(y, 2) + enlarged(x)),
    "twice, before the shuffle": lambda y, x: F.pixel_shuffle(_double(y + x.repeat_interleave(4, dim=1)), 2),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_image_is_set_aside(name: str) -> None:
    teacher = Ending(ENDS[name]).eval()
    outside, inside = compile_to_plain(teacher, image_skip="outside"), compile_to_plain(teacher)
    assert (outside.info.image_skip, inside.info.image_skip) == ("nearest", "")
    assert max(outside.widths[1:-1]) < max(inside.widths[1:-1])
    for plain in (outside, inside):
        check_equivalence(teacher, plain).require()
        check_certificate(teacher, plain)


@pytest.mark.parametrize("name", OTHERS)
def test_another_end_is_carried_inside(name: str) -> None:
    teacher = Ending(OTHERS[name]).eval()
    plain = compile_to_plain(teacher, image_skip="outside")
    assert plain.info.image_skip == ""
    check_equivalence(teacher, plain).require()
    check_certificate(teacher, plain)


def test_a_network_that_keeps_the_size_adds_the_image_itself() -> None:
    class Denoiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = x + self.body(x)
            return y

    teacher = Denoiser().eval()
    plain = compile_to_plain(teacher, image_skip="outside")
    assert (plain.info.image_skip, plain.widths[1]) == ("nearest", 8)  # align
    check_equivalence(teacher, plain).require()
    check_certificate(teacher, plain)


def test_a_stack_for_each_resolution_keeps_it_inside() -> None:
    plain = compile_to_plain(Ending(ENDS["after the shuffle"]).eval(), image_skip="outside", tail="keep")
    assert plain.info.image_skip == ""


def test_nothing_else_of_the_graph_changes() -> None:
    traced = trace(Ending(ENDS["three terms"]).eval())
    aside = set_image_aside(traced)
    assert aside.image_skip is not None and aside.image_skip.factor == 2
    names = [op.name for op in aside.graph]
    assert [op.name for op in traced.graph if op.name in names] == names
    assert set_image_aside(aside) is aside


class RoundsTheImage(nn.Module):
    """Adds the image as float64 keeps it beside 2^52: in whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        image = (x + 2.0**52) - 2.0**52
        return nn.functional.pixel_shuffle(self.body(x) + torch.cat([image] * 4, 1), 2)


def test_an_image_in_whole_numbers_is_not_the_image() -> None:
    with pytest.raises(UnsupportedModel, match="Adding it rounds"):
        trace(RoundsTheImage().double().eval())
