"""Constants as large as the image, or one for each image: one number beside feature maps, and never added up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.export import Dim

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.ir.interpreter import run
from memsr_compiler.trace.builder import Builder
from memsr_compiler.trace.fx.reader import read
from memsr_compiler.trace.fx.tracers import trace_symbolically
from memsr_compiler.trace.trace import trace
from memsr_compiler.trace.views import View

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export, about itself
Make = Callable[[Any, Tensor], Tensor]  # of the network, and a feature map
Use = Callable[[Tensor], Tensor]
HEIGHT_OR_WIDTH, IMAGES = "computes with the height or width", "computes with the number of images"


class Net(nn.Module):
    """Makes a constant, makes another of it, and takes that for a factor."""

    step: Tensor
    one: Tensor

    def __init__(self, make: Make, use: Use) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.weights = nn.Parameter((torch.arange(8.0).view(1, 8, 1, 1) + 1) / 4096)
        self.register_buffer("step", torch.full((1, 8, 1, 1), 1 / 4096))
        self.register_buffer("one", torch.ones(1, 1, 1, 1))
        self.make, self.use = make, use
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        return self.tail(F.relu(y * self.use(self.make(self, y))))  # type: ignore[no-any-return]


def read_by_symbols(model: nn.Module) -> Any:
    builder = Builder(3, 0.0, 1.0)
    view = read(trace_symbolically(model, 3), builder)
    assert isinstance(view, View)
    return builder.graph(view)


def of_program(model: nn.Module) -> Any:
    shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    return torch.export.export(model, (torch.rand(2, 3, 24, 28),), dynamic_shapes=shapes).module()


def require_same(model: nn.Module, graph: Any) -> None:
    model = model.double()
    for shape in ((1, 3, 1, 1), (1, 3, 5, 7), (3, 3, 4, 2), (9, 3, 2, 3)):
        x = torch.rand(shape, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(run(graph, x), model(x), rtol=1e-6, atol=1e-6)  # constants of float32


OVER_THE_IMAGE: dict[str, Make] = {
    "expand_as": lambda m, y: m.step.expand_as(y),
    "expand": lambda m, y: m.step.expand(y.shape),
    "expand of a parameter": lambda m, y: m.weights.expand(-1, -1, y.shape[2], y.shape[3]),
    "expand of one number": lambda m, y: m.one.expand(1, 8, y.shape[2], y.shape[3]) / 4096,
    "broadcast_to": lambda m, y: torch.broadcast_to(m.weights, y.shape),
    "repeat": lambda m, y: m.weights.repeat(1, 1, y.shape[2], y.shape[3]),
    "repeat for all": lambda m, y: m.weights.repeat(y.shape[0], 1, y.shape[2], y.shape[3]),
    "full": lambda m, y: torch.full((1, 8, y.shape[2], y.shape[3]), fill_value=1 / 4096),
    "zeros and one": lambda m, y: torch.zeros((y.shape[0], 8, y.shape[2], 1)) + 1 / 4096,
    "new_ones": lambda m, y: m.one.new_ones((1, 8, 1, y.shape[3])) / 4096,
    "ones_like": lambda m, y: torch.ones_like(m.step.expand_as(y)) * m.step,
}
OVER_IMAGES: dict[str, Make] = {
    "expand": lambda m, y: m.weights.expand(y.shape[0], -1, -1, -1),
    "repeat": lambda m, y: m.weights.repeat(y.shape[0], 1, 1, 1),
    "full": lambda m, y: torch.full((y.shape[0], 8, 1, 1), 1 / 16),
    "new_full": lambda m, y: y.new_full((y.shape[0], 8, 1, 1), 1 / 16),
}
USES: dict[str, Use] = {
    "sum": lambda c: c.sum().clamp(min=1),
    "sum of axes": lambda c: c.sum((0, 2, 3), keepdim=True).clamp(min=1),
    "sum of pieces": lambda c: torch.cat(c.chunk(2, 1), 1).sum((0, 2, 3), True).clamp(min=1),
    "norm": lambda c: c.norm().clamp(min=1),
    "cumsum": lambda c: c.cumsum(0).cumsum(2).cumsum(-1).clamp(min=1),
    "shape": lambda c: c.flatten().shape[0] / 4096 * c,
    "numel": lambda c: c.numel() * c,
    "prod": lambda c: (c + 1).prod().clamp(min=3),
    "reshape": lambda c: c.reshape(1, 1, 1, -1).sum(3, True).clamp(min=1),
    "transposed": lambda c: (c.transpose(0, 1) * 1).flatten(1).sum(1).view(1, 8, 1, 1).clamp(min=1),
    "var": lambda c: (c.var() * 4096).clamp(min=1),
    "logsumexp": lambda c: c.logsumexp((0, 2, 3), True).clamp(min=8),
    "matrix product": lambda c: (c.flatten(1).T @ c.flatten(1)).sum().clamp(min=1),
    "written into": lambda c: torch.ones_like(c).mul_(c).sum().clamp(min=1),
}
WIDE: dict[str, Use] = {
    **USES,
    "dilated": lambda c: F.conv2d(c, torch.ones(8, 8, 3, 3), padding=300, dilation=300),
    "a part": lambda c: c[:, :, :1, :1] * c[..., 300:].sum().clamp(min=1),
    "a pixel": lambda c: F.pad(c, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
    "pooled": lambda c: F.avg_pool2d(c, 3, 1, 1),
    "softmax": lambda c: torch.softmax(c, 2).clamp(min=1 / 16),
    "edges": lambda c: F.conv2d(c, torch.ones(8, 8, 3, 3), padding=1),
}


NOT_READ = (UnsupportedModel, fx.proxy.TraceError, TypeError)  # torch.fx itself does not follow all of them


@pytest.mark.parametrize("make", OVER_THE_IMAGE)
def test_no_sum_over_pixels_of_a_constant_is_that_of_one(make: str) -> None:
    for use in WIDE.values():
        with pytest.raises(NOT_READ):
            read_by_symbols(Net(OVER_THE_IMAGE[make], use))


@pytest.mark.parametrize("make", OVER_IMAGES)
def test_no_sum_over_images_of_a_constant_is_that_of_two(make: str) -> None:
    for use in USES.values():
        with pytest.raises(NOT_READ):
            read_by_symbols(Net(OVER_IMAGES[make], use))


@pytest.mark.parametrize("make", [*OVER_THE_IMAGE.values(), *OVER_IMAGES.values()])
def test_its_shape_is_that_of_no_image(make: Make) -> None:
    with pytest.raises(NOT_READ):
        read_by_symbols(Net(make, lambda c: c * c.shape[-1] * c.size(0)))


class Area(Net):
    """Damps what it adds to images of more than 4096 pixels."""

    def __init__(self) -> None:
        super().__init__(lambda m, y: m.one.expand_as(y), lambda c: (4096 / c.sum((2, 3), True)).clamp(max=1))


@pytest.mark.parametrize(
    "make",
    [
        Area,
        partial(fx.symbolic_trace, Area()),
        partial(fx.symbolic_trace, Net(OVER_THE_IMAGE["repeat"], USES["sum"])),
        partial(fx.symbolic_trace, Net(OVER_THE_IMAGE["broadcast_to"], USES["norm"])),
        partial(of_program, Net(OVER_THE_IMAGE["expand"], USES["sum"])),
        partial(of_program, Net(lambda m, y: torch.ones(y.shape[2:]) / 64, USES["norm"])),
        partial(of_program, Net(lambda m, y: torch.full(y.shape, 1 / 4096), USES["cumsum"])),
        lambda: Net(lambda m, y: torch.full(y.shape, 1 / 4096), USES["sum"]),
    ],
)
def test_what_adds_up_pixels_of_constants_is_refused(make: Callable[[], nn.Module]) -> None:
    """The images with which a reading is compared are small, and a clamp hides from them what is done to large ones."""
    with pytest.raises(UnsupportedModel, match=HEIGHT_OR_WIDTH):
        trace(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Net(lambda m, y: m.one.expand_as(y), lambda c: (16 / c.sum(0, True)).clamp(max=1)),
        lambda: Net(OVER_IMAGES["new_full"], USES["sum"]),
        partial(fx.symbolic_trace, Net(OVER_IMAGES["expand"], USES["sum"])),
        partial(fx.symbolic_trace, Net(OVER_IMAGES["repeat"], lambda c: (256 * c).sum(0, True).clamp(min=1))),
        partial(of_program, Net(OVER_IMAGES["expand"], USES["norm"])),
        partial(of_program, Net(OVER_IMAGES["full"], USES["sum"])),
    ],
)
def test_what_adds_up_constants_for_each_image_is_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(UnsupportedModel, match=f"{IMAGES}|{HEIGHT_OR_WIDTH}"):
        trace(make())


TABLE = torch.tensor([1.0] * 8 + [2.0] * 92)


@pytest.mark.parametrize(
    "take",
    [
        lambda table, n: table[n],
        lambda table, n: table[:n].amax(),
        lambda table, n: table.narrow(0, 0, n).amax(),
        lambda table, n: table.select(0, n),
        lambda table, n: table.split(n)[0].amax(),
    ],
)
def test_no_number_is_taken_out_of_a_table_by_the_number_of_images(take: Callable[[Tensor, int], Tensor]) -> None:
    class Table(Net):
        def __init__(self) -> None:
            super().__init__(lambda m, y: take(m.table, y.shape[0]), lambda c: c)
            self.table = nn.Parameter(TABLE)

    with pytest.raises(UnsupportedModel, match=IMAGES):
        trace(fx.symbolic_trace(Table()))


ALIKE: dict[str, Use] = {
    "scaled": lambda c: 2 - c * 0.5,
    "curved": lambda c: (c.abs() + 0.1).sqrt(),
    "bounded": lambda c: c.clamp(min=1e-4).clamp_max(0.5),
    "a gate": torch.sigmoid,
    "another": lambda c: torch.where(c > 1 / 1024, c + 1, c - 1),
    "copied": lambda c: c.clone().contiguous().detach().float().data.to(c.dtype).to(c.device),
    "in place": lambda c: (c * 1).add_(0.25).mul_(2),
    "filled": lambda c: torch.zeros_like(c) + torch.full_like(c, 0.3) + torch.ones_like(c),
    "channels last": lambda c: c.permute(0, 2, 3, 1).transpose(1, 3).transpose(2, 3),
    "in two": lambda c: torch.cat(c.chunk(2, 1)[::-1], 1),
    "less the mean of channels": lambda c: c - c.mean(1, keepdim=True) + c.sum(1, keepdim=True),
    "the mean of pixels": lambda c: c.mean((2, 3), keepdim=True) + c.amax((2, 3), True),
    "taken apart": lambda c: c.unsqueeze(0)[0, :, [1, 0, 3, 2, 7, 6, 5, 4]],
    "with another": lambda c: torch.maximum(c, torch.tensor(0.1)) / (torch.arange(8.0).view(8, 1, 1) + 1),
}


@settings(max_examples=40, deadline=None)
@given(
    make=st.sampled_from([*OVER_THE_IMAGE.values(), *list(OVER_IMAGES.values())[:2]]),
    uses=st.lists(st.sampled_from(list(ALIKE.values())), max_size=4),
)
def test_what_does_the_same_to_every_number_is_read(make: Make, uses: list[Use]) -> None:
    def use(constant: Tensor) -> Tensor:
        for one in uses:
            constant = one(constant)
        return constant

    model = Net(make, use)
    try:
        traced = trace_symbolically(model, 3)
    except (fx.proxy.TraceError, TypeError):  # torch.ones(n, 1, h, w): torch.export's reader has it
        return
    builder = Builder(3, 0.0, 1.0)
    view = read(traced, builder)
    assert isinstance(view, View)
    require_same(model, builder.graph(view))


def adain(y: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (y - mean.expand(y.shape)) / (std.expand_as(y) ** 2 + 1e-5).sqrt()


HONEST: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "noise map": lambda m, y: torch.cat([y, y.new_full((y.shape[0], 1, *y.shape[2:]), 0.2)], 1)[:, 1:],
    "ones": lambda m, y: y * torch.ones(y.shape[0], 1, *y.shape[2:]).to(y.device),
    "a mask": lambda m, y: y * (1 - torch.zeros(y.shape[2], y.shape[3])[None, None]),
    "a mask with axes": lambda m, y: y * torch.ones(y.shape[2:]).unsqueeze(0).unsqueeze(0).repeat(y.shape[0], 1, 1, 1),
    "bounds": lambda m, y: torch.max(y.clamp(m.step.expand_as(y) - 1, m.step.expand_as(y)), torch.zeros(y.shape)),
    "statistics": lambda m, y: adain(y, m.weights, m.step) * m.weights.expand_as(y) - m.step,
    "a norm that is written out": lambda m, y: (y - y.mean(1, True)) * m.weights.expand_as(y) + m.step.expand(y.shape),
    "channels last": lambda m, y: last(last(y) * m.step.view(8).expand(last(y).shape)),
    "zeros, added to": lambda m, y: torch.zeros(y.shape).add_(y) + m.one.new_zeros((1, 8, *y.shape[2:])),
    "a style for each image": lambda m, y: y * m.weights.view(1, 8).expand(y.shape[0], -1)[:, :, None, None],
    "a style of layers": lambda m, y: y * style(m, y.shape[0])[:, :, None, None],
    "a class": lambda m, y: (
        y * F.embedding(torch.zeros(y.shape[0], dtype=torch.long), m.weights.view(1, 8)).view(-1, 8, 1, 1)
    ),
}


def last(y: Tensor) -> Tensor:
    return y.permute(0, 2, 3, 1) if y.shape[1] == 8 else y.permute(0, 3, 1, 2)


def style(m: Net, count: int) -> Tensor:
    each = F.linear(m.weights.view(1, 8).expand(count, 8), torch.eye(8).to(m.weights))
    return torch.softmax(each, 1) * F.layer_norm(each, (8,)).softmax(-1)


class Honest(Net):
    def __init__(self, change: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__(lambda m, y: y, lambda c: c)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(F.relu(self.change(self, self.head(x))))  # type: ignore[no-any-return]


FOR_EACH = ("a style for each image", "a style of layers", "a class")


@pytest.mark.parametrize("name", HONEST)
def test_beside_a_feature_map_it_is_one_number(name: str) -> None:
    model = Honest(HONEST[name])
    networks = [model, of_program(model)] if name in ("ones", *FOR_EACH) else [model]  # which take their time
    for graph in [trace(network).graph for network in networks]:
        require_same(model, graph)
