"""Programs of torch.export given in Python: read as their files are, whatever they ask of an image first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import Dim

from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.trace.approximate.freeze import find_places
from memsr_compiler.trace.trace import GraphModule, trace

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export, about itself


class Net(nn.Module):
    def __init__(self, end: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.end = nn.Conv2d(3, 12, 3, padding=1), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.conv(x), x)


def shuffles(y: Tensor, x: Tensor) -> Tensor:
    n, _, h, w = y.shape
    return y.view(n, 3, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, 3, 2 * h, 2 * w)


def takes_apart(y: Tensor, x: Tensor) -> Tensor:
    n, c, h, w = y.shape
    return F.pixel_shuffle(y.view(n, c, 1, h, w).view(n, c, h, w), 2)


def decides(y: Tensor, x: Tensor) -> Tensor:
    return F.pixel_shuffle(y * 2 if x.shape[2] % 2 else y, 2)


def export(end: Callable[[Tensor, Tensor], Tensor], side: Any, images: int = 1) -> Any:
    shapes = None if side is None else (dict.fromkeys((2, 3) if images == 1 else (0, 2, 3), side),)
    program = torch.export.export(Net(end).eval(), (torch.rand(images, 3, 9, 8),), dynamic_shapes=shapes)
    module: Any = program.module()
    assert "_guards_fn" in dict(module.named_children())
    return module


def test_its_questions_are_no_part_of_the_network(caplog: pytest.LogCaptureFixture) -> None:
    """They were taken for computing with the number of images."""
    program, x = export(shuffles, Dim.DYNAMIC), torch.rand(2, 3, 5, 4, dtype=torch.float64)
    before = program.code
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        traced = trace(program)
        within = trace(nn.Sequential(program, nn.Identity()))
    assert not [r for r in caplog.records if r.name.startswith("memsr_compiler")]
    assert traced.assumed == within.assumed == ()
    with torch.no_grad():
        expected = Net(shuffles).double()(x)
    for graph in (traced.graph, within.graph):
        torch.testing.assert_close(GraphModule(graph)(x), expected, rtol=0, atol=1e-12)
    assert program.code == before and "_guards_fn" in dict(program.named_children())


def decides_by(question: Callable[[Any, Any, Any], Any]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda y, x: F.pixel_shuffle(y * 2 if question(x.shape[0], *x.shape[2:]) else y, 2)


@pytest.mark.parametrize(
    ("question", "which"),
    [
        (lambda n, h, w: h % 2, "height % 2 != 0"),
        (lambda n, h, w: h == 1080, "height != 1080"),
        (lambda n, h, w: h % 1000 == 0, "height % 1000 != 0"),
        (lambda n, h, w: w > 2560, "width <= 2560"),
        (lambda n, h, w: h * w > 8_000_000, "width * height <= 8000000"),
        (lambda n, h, w: h > 2 * w + 3000, "height <= 3000 + 2 * width"),
        (lambda n, h, w: n > 8, "batch <= 8"),
        (lambda n, h, w: n == 16, "batch != 16"),
    ],
)
def test_images_for_which_it_was_not_made_are_told(
    question: Callable[[Any, Any, Any], Any], which: str, caplog: pytest.LogCaptureFixture
) -> None:
    program = export(decides_by(question), Dim.AUTO, images=2)
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        traced = trace(nn.Sequential(program))
    assert f"its part 0 was exported for images with {which}: read as for every image" in caplog.text
    assert traced.assumed == (f"its part 0 does the same to every image (it was exported for those with {which})",)


def test_so_are_multiples_and_more_conditions_than_are_read(caplog: pytest.LogCaptureFixture) -> None:
    shapes = ({2: 8 * Dim("h"), 3: Dim("w")},)
    program: Any = torch.export.export(Net(shuffles).eval(), (torch.rand(1, 3, 16, 9),), dynamic_shapes=shapes)
    (words,) = trace(program.module()).assumed
    assert words == "it does the same to every image (it was exported for those with height == 8 * n)"
    program = export(lambda y, x: shuffles(y * 2 if any(x.shape[2] == 99 + i for i in range(9)) else y, x), Dim.AUTO)
    (words,) = trace(program).assumed
    assert words.endswith(
        "(it was exported for those with height != 99 and height != 100 and height != 101 and height"
        " != 102 and 5 conditions more)"
    )


def test_guards_that_do_not_say_what_they_ask_are_told() -> None:
    for wrap in (lambda _: lambda *_: None, lambda asks: lambda *images: asks(*images)):
        program = export(shuffles, Dim.DYNAMIC)
        program._guards_fn.forward = wrap(program._guards_fn.forward)
        (words,) = trace(program).assumed
        assert words == "it does the same to every image (it was exported for those with what its guards demand)"


def test_so_is_the_one_size_of_a_program(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        traced = trace(export(decides, None))
    assert "it was exported for images of 9x8: read as for every size" in caplog.text
    assert traced.assumed == ("it does the same at every size (it was exported for images of 9x8)",)
    with pytest.raises(UnsupportedModel, match="view: the size of the image, 9x8, is written into the program"):
        trace(export(takes_apart, None))


def test_its_gates_are_found() -> None:
    gated = export(lambda y, x: F.pixel_shuffle(y * torch.sigmoid(y.mean((2, 3), keepdim=True)), 2), Dim.DYNAMIC)
    assert find_places(gated) == ("gate",)


@pytest.mark.parametrize("buffer", [True, False])
def test_what_torch_fx_left_without_numbers_is_told(buffer: bool) -> None:
    """EDSR's and RCAN's code assigns its mean as it runs."""

    class Centred(nn.Module):
        mean: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)
            self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
            if not buffer:
                del self.mean
                self.mean = torch.full((1, 3, 1, 1), 0.5)

        def forward(self, x: Tensor) -> Tensor:
            self.mean = self.mean.type_as(x)
            return F.pixel_shuffle(self.conv(x - self.mean), 2)

    network = Centred().eval()
    trace(network)
    program = fx.symbolic_trace(network)
    for left in (network, program):
        with pytest.raises(InvalidInput, match=r"^Centred: its mean holds no numbers any more: forward assigns to it"):
            trace(left)


def writes_into_casts(y: Tensor, x: Tensor) -> Tensor:
    same, copied, other = y.to(torch.float32), y.to(torch.float32, copy=True), y.to(torch.float64)
    same.mul_(2)
    copied.mul_(3)
    other.mul_(5)
    return F.pixel_shuffle(y + copied + other.float(), 2)


@pytest.mark.parametrize(
    "end",
    [
        lambda y, x: shuffles(y.float(), x),
        lambda y, x: shuffles(y.to(x.device), x.to(y.dtype)),
        lambda y, x: shuffles(y - torch.tensor([0.5]).to(y.device), x),
        lambda y, x: shuffles(y.double() * 2, x).to(x.dtype),
        lambda y, x: shuffles(y * torch.tensor([3]).to(x.dtype), x),
        lambda y, x: shuffles(y.type_as(x), x),
        writes_into_casts,
    ],
)
@pytest.mark.parametrize("decomposed", [False, True])
def test_its_casts_are_no_demand_for_a_type(end: Callable[[Tensor, Tensor], Tensor], decomposed: bool) -> None:
    """`.to(x.device)`, of everybody's mean; torch.export demands the type of what it casts."""
    shapes = ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    program = torch.export.export(Net(end).eval(), (torch.rand(1, 3, 9, 8),), dynamic_shapes=shapes)
    module: Any = (program.run_decompositions({}) if decomposed else program).module()
    before = module.code
    x = torch.rand(2, 3, 5, 8)
    result = GraphModule(trace(module).graph)(x.double())
    torch.testing.assert_close(result.float(), Net(end)(x.clone()).detach().float(), rtol=0, atol=1e-5)
    assert module.code == before


def test_casts_that_round_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="a cast to float16 rounds values"):
        trace(export(lambda y, x: shuffles(y.half().float(), x), Dim.DYNAMIC))


def shuffles_channels(y: Tensor, x: Tensor) -> Tensor:
    b, c, h, w = y.shape
    return y.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)


def goes_through_tokens(y: Tensor, x: Tensor) -> Tensor:
    b, c, h, w = y.shape
    tokens = y.view(b, c, -1).permute(0, 2, 1) * 2
    return tokens.permute(0, 2, 1).view(b, c, h, w)


def goes_through_rows(y: Tensor, x: Tensor) -> Tensor:
    b, c, h, w = y.shape
    return (y.permute(0, 2, 3, 1).reshape(-1, c) * 2).reshape(b, h, w, -1).permute(0, 3, 1, 2)


def appends_zeros(y: Tensor, x: Tensor) -> Tensor:
    b, _, h, w = y.shape
    return torch.cat([y[:, :8], y.new_zeros(b, 4, h, w)], 1)


def weighs(y: Tensor, x: Tensor) -> Tensor:
    return y * torch.arange(12, dtype=y.dtype).reshape(1, -1, 1, 1)


@pytest.mark.parametrize("change", [shuffles_channels, goes_through_tokens, goes_through_rows, appends_zeros, weighs])
def test_the_one_image_for_which_it_was_made_is_a_batch(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Its 1 stands in reshapes with another size left open, and in what is made as large as the image."""
    program = export(lambda y, x: F.pixel_shuffle(F.relu(change(y, x)), 2), Dim.DYNAMIC)
    x = torch.rand(3, 3, 5, 4, dtype=torch.float64)
    expected = F.pixel_shuffle(F.relu(change(Net(shuffles).double().conv(x), x)), 2).detach()
    torch.testing.assert_close(GraphModule(trace(program).graph)(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        lambda y, x: y - y.amax(0).view(1, -1, *y.shape[2:]),
        lambda y, x: y[0].reshape(y.shape[0], -1, *y.shape[2:]),
        lambda y, x: y.reshape(1, -1, *y.shape[2:])[:, :12],
    ],
)
def test_a_one_that_is_no_batch_is_none(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """For one image it is what it says; where it is read, it is read as that."""
    program = export(lambda y, x: F.pixel_shuffle(F.relu(change(y, x)), 2), Dim.DYNAMIC)
    x = torch.rand(1, 3, 5, 4, dtype=torch.float64)
    expected = F.pixel_shuffle(F.relu(change(Net(shuffles).double().conv(x), x)), 2).detach()
    try:
        graph = trace(program).graph
    except UnsupportedModel:
        return
    torch.testing.assert_close(GraphModule(graph)(x), expected, rtol=0, atol=1e-12)


def crops(y: Tensor, x: Tensor) -> Tensor:
    kernel = (torch.arange(12 * 3 * 64) % 7 - 3).view(12, 3, 8, 8)
    grown = F.conv_transpose2d(F.relu(y), kernel.to(y.dtype), stride=4)
    return grown[:, :, 2:-2, 2:-2]


def takes_the_last(y: Tensor, x: Tensor) -> Tensor:
    return F.pixel_shuffle(torch.cat([y.narrow(1, -2, 2), y.narrow(1, 0, 8), y.narrow(1, -6, 2)], 1), 2)


def drops_nothing(y: Tensor, x: Tensor) -> Tensor:
    return F.pixel_shuffle(F.relu(F.dropout(y, 0.0)), 2)


@pytest.mark.parametrize("end", [crops, takes_the_last, drops_nothing])
@pytest.mark.parametrize("images", [0, 1, 2])
def test_slices_to_the_end_and_dropouts_of_nothing_are_read(
    end: Callable[[Tensor, Tensor], Tensor], images: int
) -> None:
    """An export for any number of images writes [:, :, 2:-2] with the whole batch, 0 to 2**63 - 1, before it."""
    network = export(end, Dim.DYNAMIC, images) if images else Net(end).eval()
    x = torch.rand(3, 3, 5, 4, dtype=torch.float64)
    result = GraphModule(trace(network).graph)(x)
    torch.testing.assert_close(result, Net(end).double()(x).detach(), rtol=0, atol=1e-12)


def test_a_transform_that_it_begins_ends_with_the_reading() -> None:
    """torch.export writes the begin of a vmap into it, and not always its end."""
    end = torch.vmap(lambda y: F.pixel_shuffle(y, 2))
    program: Any = torch.export.export(Net(lambda y, x: end(y)).eval(), (torch.rand(1, 3, 9, 8),)).module()
    depth = torch._C._functorch.get_dynamic_layer_stack_depth()
    with suppress(UnsupportedModel):
        trace(program)
    assert torch._C._functorch.get_dynamic_layer_stack_depth() == depth


def accumulates(y: Tensor, x: Tensor) -> Tensor:
    z = torch.zeros(y.shape, dtype=y.dtype, device=y.device)
    for gain in (0.5, 0.25):
        z.add_(y * gain)
    return F.pixel_shuffle(z, 2)


def fills(y: Tensor, x: Tensor) -> Tensor:
    z = torch.zeros(y.shape[0], 12, y.shape[2], y.shape[3], dtype=y.dtype)
    z[:, :4], z[:, 4:] = y[:, 8:], F.relu(y[:, :8])
    return F.pixel_shuffle(z, 2)


def fills_alike(y: Tensor, x: Tensor) -> Tensor:
    z = torch.ones_like(y, dtype=y.dtype)
    z[:, 1:] = y[:, :11]
    return F.pixel_shuffle(z, 2)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("end", [accumulates, fills, fills_alike])
def test_what_is_made_as_large_as_the_image_is_of_its_type(
    end: Callable[[Tensor, Tensor], Tensor], images: int
) -> None:
    """It stayed of float32, in which the program was exported, and rounded what was written into it."""
    traced, x = trace(export(end, Dim.DYNAMIC, images)), torch.rand(2, 3, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = Net(end).double().eval()(x)
    assert torch.allclose(GraphModule(traced.graph)(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_images_of_halves_that_are_cast_first_are_read(kind: torch.dtype) -> None:
    """The cast was kept, and rounded an image of float64 on the way."""

    class Casting(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.cat([x[:, 1:], x[:, :1]], 1).float())

    model = Casting(lambda y, x: F.pixel_shuffle(y, 2)).eval()
    program = torch.export.export(model, (torch.rand(1, 3, 9, 8).to(kind),), dynamic_shapes=({2: Dim.DYNAMIC},))
    x = torch.rand(1, 3, 5, 8, dtype=torch.float64).to(kind)
    with torch.no_grad():
        expected = model(x)
    assert torch.allclose(GraphModule(trace(program.module()).graph)(x.double()), expected.double(), rtol=0, atol=1e-6)


def test_a_part_that_takes_a_weight_of_integers_takes_no_image(caplog: pytest.LogCaptureFixture) -> None:
    """Parts within `torch.no_grad()` are graphs of their own; told was that the images are of int8."""

    class Stored(nn.Module):
        kernels: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kernels", torch.randint(0, 9, (12, 3, 3, 3), dtype=torch.uint8))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                weight = (self.kernels - 4.0) * 0.01
            return F.pixel_shuffle(F.conv2d(x, weight, padding=1), 2)

    free = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.enable_grad():
        program = torch.export.export(Stored().eval(), (torch.rand(1, 3, 9, 8),), dynamic_shapes=(free,)).module()
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        traced = trace(program, input_range=(0.0, 1.0))
    assert "floating-point numbers" not in caplog.text and not traced.assumed


def test_what_a_part_was_made_for_is_told_of_the_part() -> None:
    """It may be given features, which are larger: told was that the image has no more than 100 rows."""
    free = {2: Dim("rows", max=100), 3: Dim.DYNAMIC}
    parts = [Net(lambda y, x: F.pixel_shuffle(y, 2)).eval() for _ in range(2)]
    programs = [torch.export.export(part, (torch.rand(1, 3, 9, 8),), dynamic_shapes=(free,)).module() for part in parts]
    assumed = trace(nn.Sequential(*programs)).assumed
    for number, words in enumerate(assumed):
        assert words.startswith(
            f"its part {number} does the same to every image (it was exported for those with height"
        )
    assert len(assumed) == 2
    assert trace(programs[0]).assumed[0].startswith("it does the same to every image (it was exported for those with ")
