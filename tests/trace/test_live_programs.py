"""Programs of torch.export given in Python: what they write in place, the types of their images, their sizes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from memsr_compiler import compile_to_plain
from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.teachers.teacher import as_teacher
from memsr_compiler.trace.trace import GraphModule, trace

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export, about itself
FREE = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}


class Merged(nn.Module):
    """A kernel that forward makes of a constant and weights, as training forms do that are merged there."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.make = nn.Conv2d(3, 12, 3, padding=1), make
        self.w = nn.Parameter(torch.randn(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(F.conv2d(x, self.conv.weight + self.make(self.w), self.conv.bias, padding=1), 2)


def into_zeros(w: Tensor) -> Tensor:
    kernel = torch.zeros(12, 3, 3, 3)
    kernel[:, :, 1, 1] = w
    return kernel


def by_channels(w: Tensor) -> Tensor:
    kernel = torch.zeros(12, 3, 3, 3)
    for i in range(3):
        kernel[:, i, 1, 1] = w[:, i]
    return kernel


def into_ones(w: Tensor) -> Tensor:
    kernel = torch.ones(12, 3, 3, 3)
    kernel[:, :, 1].mul_(w.view(12, 3, 1))
    return kernel


def into_eye(w: Tensor) -> Tensor:
    kernel = torch.eye(3).repeat(4, 1)
    kernel[:3] = w[:3]
    return kernel.view(12, 3, 1, 1).expand(12, 3, 3, 3)


def into_numbers(w: Tensor) -> Tensor:
    kernel = torch.arange(36, dtype=torch.float32).view(12, 3) / 36
    kernel[:, 0] += w[:, 0]
    return kernel.view(12, 3, 1, 1).expand(12, 3, 3, 3)


def into_full(w: Tensor) -> Tensor:
    bias = torch.full((12,), 0.1)
    bias[:3] = w[:3, 0]
    return bias.view(12, 1, 1, 1).expand(12, 3, 3, 3)


@pytest.mark.parametrize("make", [into_zeros, by_channels, into_ones, into_eye, into_numbers, into_full])
def test_weights_that_are_written_into_a_constant_stay_there(
    make: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """They were written into a copy of it, as the name of "copy_.default" was none of what writes in place."""
    network = Merged(make).eval()
    program: Any = torch.export.export(network, (torch.rand(2, 3, 9, 8),), dynamic_shapes=(FREE,)).module()
    x = torch.rand(2, 3, 7, 5)
    with caplog.at_level(logging.WARNING, "memsr_compiler"), torch.no_grad():
        traced = trace(program)
        expected = program(x).double()
    torch.testing.assert_close(GraphModule(traced.graph)(x.double()), expected, rtol=0, atol=1e-5)
    assert not traced.assumed
    assert not [record for record in caplog.records if record.name.startswith("memsr_compiler")]


class Padding(nn.Module):
    def __init__(self, pad: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pad = nn.Conv2d(3, 12, 3), pad

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(F.relu(self.conv(self.pad(x))), 2)


@pytest.mark.parametrize("pad", [nn.ZeroPad2d(1), nn.ConstantPad2d(1, 0.0), lambda x: F.pad(x, (1, 1, 1, 1))])
def test_padding_by_zeros_is_read_in_core_aten_too(pad: Callable[[Tensor], Tensor]) -> None:
    """Its value, 0.0, was taken for a mode, and refused as one that reflects."""
    program = torch.export.export(Padding(pad).eval(), (torch.rand(2, 3, 9, 8),), dynamic_shapes=(FREE,))
    x = torch.rand(2, 3, 7, 5, dtype=torch.float64)
    traced = trace(program.run_decompositions().module())
    torch.testing.assert_close(GraphModule(traced.graph)(x), Padding(pad).double()(x).detach(), rtol=0, atol=1e-12)


def test_padding_by_another_number_is_not() -> None:
    network = Padding(nn.ConstantPad2d(1, 0.5)).eval()
    program = torch.export.export(network, (torch.rand(2, 3, 9, 8),), dynamic_shapes=(FREE,))
    with pytest.raises(UnsupportedModel, match=r"padding \(1, 1, 1, 1\) \(value 0.5\) outside a convolution"):
        trace(program.run_decompositions().module())


class OfBytes(nn.Module):
    """A network that takes images as files hold them."""

    def __init__(self, scale: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.scale = nn.Conv2d(3, 12, 3, padding=1), scale

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(F.relu(self.conv(self.scale(x))), 2)


def overwritten(x: Tensor) -> Tensor:
    y = x.float()
    y.div_(255)
    return y + x.float()


@pytest.mark.parametrize(
    "scale",
    [
        lambda x: x.float() / 255,
        lambda x: x / 255,
        lambda x: x[:, [2, 1, 0]].flip(1).to(torch.float32).sub(128).div(128),
        lambda x: torch.cat(x.chunk(3, 1)[::-1], 1) * 0.5,
        overwritten,
    ],
)
@pytest.mark.parametrize("decomposed", [False, True])
def test_images_of_bytes_are_read_as_numbers_of_the_same_values(
    scale: Callable[[Tensor], Tensor], decomposed: bool
) -> None:
    """The cast rounded what it was compared at, which was told as if it drew random numbers."""
    network, x = OfBytes(scale).eval(), torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    program = torch.export.export(network, (x,), dynamic_shapes=(FREE,))
    traced = trace(program.run_decompositions().module() if decomposed else program.module())
    expected = network(x).double().detach()
    torch.testing.assert_close(GraphModule(traced.graph)(x.double()), expected, rtol=1e-5, atol=1e-3)
    assert traced.assumed == ("its images, of uint8, are given as floating-point numbers of the same values",)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
def test_images_of_bytes_have_values_up_to_255(tmp_path: Path) -> None:
    """Which was told as 0 to 1, and written into the plain network."""
    program = torch.export.export(
        OfBytes(lambda x: x / 255).eval(), (torch.zeros(2, 3, 9, 8, dtype=torch.uint8),), dynamic_shapes=(FREE,)
    )
    torch.export.save(program, tmp_path / "a.pt2")
    for teacher in (program.module(), read_teacher(tmp_path / "a.pt2", probe=False)):
        info = compile_to_plain(teacher).info
        assert info.input_range == (0.0, 255.0)
        assert not [words for words in info.assumed if words.startswith("input values")]
    with pytest.raises(InvalidInput, match="takes values from 0 to 255"):
        read_teacher(tmp_path / "a.pt2", input_range=(0.0, 1.0), probe=False)
    for network in (program.module(), nn.Sequential(program.module())):
        assert as_teacher(network).input_range == (0.0, 255.0)
        with pytest.raises(InvalidInput, match="takes images of uint8, values from 0 to 255"):
            as_teacher(network, input_range=(0.0, 1.0))


@pytest.mark.parametrize("scale", [lambda x: (x - 128) / 128, lambda x: (x * 2).float(), lambda x: (x >> 1).float()])
def test_what_bytes_are_computed_with_is_not(scale: Callable[[Tensor], Tensor]) -> None:
    """100 - 128 is 228 there."""
    x = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    program = torch.export.export(OfBytes(scale).eval(), (x,), dynamic_shapes=(FREE,))
    with pytest.raises(UnsupportedModel, match="takes images of uint8 and computes with them as integers"):
        trace(program.module())


def told_of(sizes: Any, end: Callable[[Tensor], Tensor], shape: tuple[int, ...], **options: Any) -> tuple[str, ...]:
    """What is assumed of a program that asks for sizes, or was exported for one."""
    network = Padding(lambda x: F.pad(end(x), (1, 1, 1, 1))).eval()
    program = torch.export.export(network, (torch.rand(shape),), dynamic_shapes=sizes and (sizes,))
    return trace(program.module(**options)).assumed


def by_height(x: Tensor) -> Tensor:
    return x * 2 if x.shape[-2] == 40 else x


def by_area(x: Tensor) -> Tensor:
    return x * 2 if x.shape[-1] * x.shape[-2] > 4000 else x


def if_square(x: Tensor) -> Tensor:
    return x if x.shape[-1] == x.shape[-2] else x * 2


def as_it_is(x: Tensor) -> Tensor:
    return x


AT_FREE_SIZES = {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}
IN_PAIRS = {2: 2 * Dim("h"), 3: 2 * Dim("w")}


@pytest.mark.parametrize(
    ("sizes", "end", "shape", "said"),
    [
        (AT_FREE_SIZES, by_height, (3, 8, 6), "to every image (it was exported for those with height != 40)"),
        (None, as_it_is, (3, 8, 6), "at every size (it was exported for images of 8x6)"),
        (AT_FREE_SIZES, as_it_is, (3, 8, 6), ""),
    ],
)
@pytest.mark.parametrize("checked", [False, True])
def test_programs_for_single_images_are_told_too(
    sizes: Any, end: Callable[[Tensor], Tensor], shape: tuple[int, ...], said: str, checked: bool
) -> None:
    """Of images (C, H, W) nothing was told."""
    told = told_of(sizes, end, shape, check_guards=checked)
    assert list(told) == ([f"it does the same {said}"] if said else [])


@pytest.mark.parametrize(
    ("sizes", "end", "said"),
    [
        (FREE, by_height, "those with height != 40"),
        (FREE, by_area, r"those with width \* height <= 4000"),
        (FREE, if_square, "those with height == width"),
        ({0: Dim.DYNAMIC, 2: Dim("h", max=99), 3: Dim("w", min=5)}, as_it_is, "those with height <= 99 and width >= 5"),
        (IN_PAIRS, by_height, r"those with height == 2 \* n and width == 2 \* m and batch == 2 and height != 40"),
    ],
)
def test_programs_without_their_guards_are_told(sizes: Any, end: Callable[[Tensor], Tensor], said: str) -> None:
    """`program.module(check_guards=False)` leaves out the module that says them; the sizes know them, too."""
    (told,) = told_of(sizes, end, (2, 3, 8, 8), check_guards=False)
    assert re.fullmatch(rf"it does the same (to every image|at every size) \(it was exported for {said}\)", told)


def test_of_programs_for_every_size_nothing_is_told() -> None:
    assert told_of(FREE, as_it_is, (2, 3, 8, 6), check_guards=False) == ()


class InHalves(Padding):
    """Computes in bfloat16, in part."""

    enabled = True

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.enabled):
            y = super().forward(x)
        return y.float()


@pytest.mark.parametrize("strict", [False, True])
def test_what_autocast_rounds_is_refused_as_casts_are(strict: bool, tmp_path: Path) -> None:
    """It rounds nothing in float64, in which programs are read."""
    network = InHalves(nn.ZeroPad2d(1)).eval()
    program = torch.export.export(network, (torch.rand(2, 3, 9, 8),), dynamic_shapes=(FREE,), strict=strict)
    torch.export.save(program, tmp_path / "a.pt2")
    refused = pytest.raises(UnsupportedModel, match=r"torch\.autocast: a cast to bfloat16 rounds values")
    with refused:
        trace(nn.Sequential(program.module()))
    with refused:
        read_teacher(tmp_path / "a.pt2", probe=False)


class InPart(nn.Module):
    """A part within `torch.no_grad()`, with one within that, gives two feature maps: graphs of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.side, self.tail = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(3, 4, 1),
            nn.Conv2d(8, 12, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.head(x)
            with torch.enable_grad():
                y = F.relu(y)
            z = self.side(x) * 0.5
        return F.pixel_shuffle(self.tail(torch.cat((y, z), 1)), 2)


@pytest.mark.parametrize("strict", [False, True])
def test_parts_without_gradients_are_read(strict: bool) -> None:
    """They were taken for graphs without their weights."""
    network = InPart().eval()
    program = torch.export.export(network, (torch.rand(2, 3, 9, 8),), dynamic_shapes=(FREE,), strict=strict)
    assert "submod" in str(program.graph)
    x = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    traced = trace(program.module())
    torch.testing.assert_close(GraphModule(traced.graph)(x), network.double()(x).detach(), rtol=0, atol=1e-12)


def test_autocast_that_is_off_is_read() -> None:
    network = InHalves(nn.ZeroPad2d(1)).eval()
    network.enabled = False
    program = torch.export.export(network, (torch.rand(2, 3, 9, 8),), dynamic_shapes=(FREE,))
    x = torch.rand(2, 3, 7, 5)
    result = GraphModule(trace(program.module()).graph)(x.double())
    torch.testing.assert_close(result, network(x).double().detach(), rtol=0, atol=1e-5)


def flattened(y: Tensor) -> Tensor:
    return y.flatten(2).view(y.shape)


def shuffled(y: Tensor) -> Tensor:
    n, c, h, w = y.shape
    return y.view(n, 3, c // 3, h * w).transpose(1, 2).reshape(n, c, h, w)


@pytest.mark.parametrize("reshape", [flattened, shuffled])
@pytest.mark.parametrize("images", [1, 2])
def test_pixels_in_one_axis_are_read_of_files_too(
    reshape: Callable[[Tensor], Tensor], images: int, tmp_path: Path
) -> None:
    """In a file their number is a product of sizes, written out."""
    network = Flattening(reshape).eval()
    free = FREE if images > 1 else {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(network, (torch.rand(images, 3, 9, 8),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "a.pt2")
    x = torch.rand(3, 3, 7, 5)
    for module in (
        read_teacher(tmp_path / "a.pt2", probe=False).module,
        program.run_decompositions().module(check_guards=False),
    ):
        traced = trace(module)
        result = GraphModule(traced.graph)(x.double())
        torch.testing.assert_close(result, network(x).double().detach(), rtol=0, atol=1e-5)
        assert traced.assumed == ()


class Flattening(nn.Module):
    def __init__(self, reshape: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.reshape = nn.Conv2d(3, 12, 3, padding=1), reshape

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(F.relu(self.reshape(self.conv(x))), 2)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (torch.export.unflatten, "what torch.export.unflatten makes of a program, which torch cannot copy"),
        (
            lambda program: program.graph_module,
            "the graph_module of a program of torch.export, which lacks",
        ),
    ],
)
@pytest.mark.parametrize("free", [True, False])
def test_forms_of_programs_that_are_not_whole_are_named(form: Callable[[Any], Any], words: str, free: bool) -> None:
    """They were said to have weights without numbers, or to be made for images of 3x3."""
    sizes = (FREE,) if free else None
    program = torch.export.export(Padding(nn.ZeroPad2d(1)).eval(), (torch.rand(2, 3, 9, 8),), dynamic_shapes=sizes)
    with pytest.raises(InvalidInput, match=rf"it is {words}.*; give program\.module\(\)"):
        trace(form(program))


def test_a_program_itself_is_told_to_give_its_module() -> None:
    program = torch.export.export(Padding(nn.ZeroPad2d(1)).eval(), (torch.rand(2, 3, 9, 8),))
    with pytest.raises(InvalidInput, match=r"not ExportedProgram; give its module\(\)"):
        compile_to_plain(program)  # type: ignore[arg-type]


class Deciding(Padding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cond(x.shape[2] > 40, lambda y: y * 2, lambda y: y * 1, (x,)))


def test_torch_cond_is_a_decision_in_files_too(tmp_path: Path) -> None:
    """They were said to hold code."""
    network = Deciding(nn.ZeroPad2d(1)).eval()
    program = torch.export.export(network, (torch.rand(2, 3, 9, 8),), dynamic_shapes=(FREE,))
    torch.export.save(program, tmp_path / "a.pt2")
    for module in (read_teacher(tmp_path / "a.pt2", probe=False).module, program.module()):
        with pytest.raises(UnsupportedModel, match=r"cond: a decision depends on the image.*export the branch that is"):
            trace(module)


def test_what_was_exported_in_training_is_told_to_export_again() -> None:
    """`program.module().eval()` raises."""
    network = Padding(lambda x: F.pad(F.dropout(x, 0.5), (1, 1, 1, 1)))
    program = torch.export.export(network.train(), (torch.rand(2, 3, 9, 8),), dynamic_shapes=(FREE,))
    with pytest.raises(InvalidInput, match=r"draws random numbers as it runs; export network.eval\(\) again"):
        trace(program.module())


def in_place_of_a_row(y: Tensor) -> Tensor:
    return torch.select_scatter(y, 2 * y[:, 1], 1, 0)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
@pytest.mark.parametrize("turn", [lambda y: y.flip(1), lambda y: y + y.amax(1, keepdim=True), in_place_of_a_row])
@pytest.mark.parametrize("free", [None, {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}])
def test_axes_of_single_images_are_no_axes_of_batches(
    turn: Callable[[Tensor], Tensor], free: dict[int, Any] | None, tmp_path: Path
) -> None:
    """Programs for (C, H, W) are read as for a batch of one, in which another axis is the first: rows were channels."""
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), OfAxes(turn), nn.PixelShuffle(2)).eval()
    program = torch.export.export(network, (torch.rand(3, 9, 8),), dynamic_shapes=(free,) if free else None)
    torch.export.save(program, tmp_path / "a.pt2")
    refused = pytest.raises(InvalidInput, match=r"exported for single images .* something else to a batch of one")
    with refused:
        trace(program.module())
    with refused:
        read_teacher(tmp_path / "a.pt2", probe=False)


class OfAxes(nn.Module):
    def __init__(self, turn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.turn = turn

    def forward(self, y: Tensor) -> Tensor:
        return self.turn(y)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
@pytest.mark.parametrize("free", [None, {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}])
def test_axes_of_single_images_that_are_counted_from_the_end_are_those(
    free: dict[int, Any] | None, tmp_path: Path
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), OfAxes(lambda y: y.flip(-3)), nn.PixelShuffle(2)).eval()
    program = torch.export.export(network, (torch.rand(3, 9, 8),), dynamic_shapes=(free,) if free else None)
    torch.export.save(program, tmp_path / "a.pt2")
    x = torch.rand(2, 3, 9, 8)
    for given in (program.module(), program.module(check_guards=False), tmp_path / "a.pt2"):
        torch.testing.assert_close(compile_to_plain(given)(x), network(x), rtol=0, atol=1e-5)


class OfTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = Padding(nn.ZeroPad2d(1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = self.one(x) + self.one(y)
        return result


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
def test_two_single_images_are_too_many() -> None:
    program = torch.export.export(OfTwo().eval(), (torch.rand(3, 9, 8), torch.rand(3, 9, 8)))
    with pytest.raises(UnsupportedModel, match="more than one input"):
        trace(program.module())


MEAN = torch.tensor([0.45, 0.44, 0.4], dtype=torch.float64).view(1, 3, 1, 1)


class Beside(nn.Module):
    """What is written in place into a copy of the image, and the image itself."""

    def __init__(self, copy: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.copy = nn.Conv2d(3, 12, 3, padding=1), copy

    def forward(self, x: Tensor) -> Tensor:
        y = self.copy(x)
        y -= 0.5
        return F.pixel_shuffle(self.head(y.to(x.dtype)), 2) + F.interpolate(x, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("free", [None, FREE])
@pytest.mark.parametrize(
    "copy",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.to(torch.float32, memory_format=torch.channels_last),
        lambda x: x.type_as(MEAN),
        lambda x: x.to(MEAN),
        lambda x: x - MEAN,
        lambda x: x + x.mean(1, keepdim=True, dtype=torch.float64),
    ],
    ids=["layout", "type and layout", "type_as", "to another", "float64 constant", "float64 mean"],
)
def test_what_is_written_into_a_copy_stays_there(
    copy: Callable[[Tensor], Tensor], free: dict[int, Any] | None, tmp_path: Path
) -> None:
    """Casts are taken out of programs, and some of them are copies."""
    model, x = Beside(copy).eval(), torch.rand(2, 3, 9, 8)
    program = torch.export.export(model, (x,), dynamic_shapes=(free,) if free else None)
    torch.export.save(program, tmp_path / "a.pt2")
    for given in (program.module(), tmp_path / "a.pt2"):
        plain = compile_to_plain(given, image_skip="outside")
        torch.testing.assert_close(plain(x), model(x.clone()).to(x.dtype), rtol=0, atol=1e-5)


@pytest.mark.parametrize("free", [None, FREE])
def test_what_is_done_to_a_program_is_compared_with_it(
    free: dict[int, Any] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A mutant of our own: no cast is a copy."""
    model = Beside(lambda x: x.to(torch.float32, copy=True)).eval()
    program = torch.export.export(model, (torch.rand(2, 3, 9, 8),), dynamic_shapes=(free,) if free else None)
    torch.export.save(program, tmp_path / "a.pt2")
    monkeypatch.setattr("memsr_compiler.trace.fx.casts._makes_a_copy", lambda *_: False)
    for read in (lambda: trace(program.module()), lambda: read_teacher(tmp_path / "a.pt2", probe=False)):
        with pytest.raises(UnsupportedModel, match="its program gives something else once casts"):
            read()
