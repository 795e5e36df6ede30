"""Programs of torch.export in core ATen, as run_decompositions() makes them, are read as the same networks."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.teachers import pt2
from memsr_compiler.teachers.families.compact import SRVGGNetCompact
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.fsrcnn import FSRCNN
from memsr_compiler.teachers.families.imdn import IMDNBaseline
from memsr_compiler.teachers.families.rrdb import RRDBNet
from memsr_compiler.teachers.families.srresnet import SRResNet
from memsr_compiler.teachers.families.vdsr import VDSR
from memsr_compiler.trace.trace import GraphModule, trace

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export, about itself

Step = Callable[[Tensor], Tensor]
SIZE = (9, 8)


class Net(nn.Module):
    """A convolution, steps of one's own, and a pixel shuffle."""

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.steps = nn.Conv2d(3, 12, 3, padding=1), steps

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        for step in self.steps:
            y = step(y)
        return F.pixel_shuffle(y, 2)


class Layers(Net):
    """The same with modules."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.layers = nn.ModuleList(layers)


def export(network: nn.Module, free: tuple[int, ...] = (2, 3), colours: int = 3) -> Any:
    image = torch.rand(2 if 0 in free else 1, colours, *SIZE)
    program = torch.export.export(network.eval(), (image,), dynamic_shapes=(dict.fromkeys(free, Dim.DYNAMIC),))
    return program.run_decompositions()


def through_file(program: Any) -> nn.Module:
    data = io.BytesIO()
    torch.export.save(program, data)
    assert pt2.suspicions(data.getvalue()) == []
    return pt2.load_exported(data.getvalue())[0]


def assert_same(graph: Any, network: nn.Module, images: int = 2, colours: int = 3, apart: float = 1e-10) -> None:
    x = 2 * torch.rand(images, colours, *SIZE, dtype=torch.float64) - 1
    with torch.no_grad():
        expected = copy.deepcopy(network).double()(x)
        torch.testing.assert_close(GraphModule(graph)(x), expected, rtol=0, atol=apart)


def drawn(network: nn.Module) -> nn.Module:
    """A network with slopes and norms as training makes them."""
    torch.manual_seed(1)
    for part in network.modules():
        if isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, -0.5, 1.5)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(part.weight, -1, 1)
    return network.eval()


@pytest.mark.parametrize("free", [(), (2, 3)])
@pytest.mark.parametrize(
    ("network", "colours"),
    [
        (EDSR(scale=2, blocks=1, channels=4), 3),
        (EDSR(scale=4, blocks=1, channels=4), 3),
        (FSRCNN(scale=2, blocks=1, channels=6, narrow=3), 1),
        (VDSR(blocks=2, channels=4), 1),
        (IMDNBaseline(scale=2, blocks=1, channels=8), 3),
        (SRVGGNetCompact(scale=2, blocks=2, channels=4), 3),
        (SRResNet(scale=2, blocks=1, channels=4), 3),
        (RRDBNet(scale=4, blocks=1, channels=4, growth=2), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_usual_networks_are_read_as_they_were(network: nn.Module, colours: int, free: tuple[int, ...]) -> None:
    network = drawn(network)
    program = export(network, free, colours)
    module = through_file(program) if free else program.module()
    assert_same(trace(module).graph, network, colours=colours)


@pytest.mark.parametrize(
    "layer",
    [
        nn.PReLU(),
        nn.PReLU(12),
        nn.LeakyReLU(0.2),
        nn.ReLU6(),
        nn.Hardtanh(-2, 3),
        nn.Threshold(0.25, 0.25),
        nn.Threshold(0.0, 0.0),
        nn.Hardsigmoid(),
        nn.BatchNorm2d(12),
        nn.Dropout(0.3),
        nn.ChannelShuffle(3),
        nn.AvgPool2d(3, 1, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("free", [(2, 3), (0, 2, 3)])
def test_so_are_layers(layer: nn.Module, free: tuple[int, ...]) -> None:
    network = drawn(Layers(layer))
    program = export(network, free)
    module = through_file(program) if 0 in free else program.module()
    assert_same(trace(module).graph, network)


@pytest.mark.parametrize(
    "step",
    [
        lambda y: torch.where(y > 0, y, 0.1 * y),
        lambda y: torch.where(y <= 0, 0.1 * y, y),
        lambda y: torch.where(y > 0, y, torch.zeros_like(y)),
        lambda y: torch.where(y > 0, 2 * y, y / 2),
        lambda y: torch.where(y > 0.5, y, 0.5),
        lambda y: torch.where(y < 0.5, y, torch.full_like(y, 0.5)),
        lambda y: torch.where(y >= 1, 2 * y - 1, y),
        lambda y: torch.where(y > 1, 1.0, y.neg() + 2),
        lambda y: torch.where(y > 0, y, y),
        lambda y: y.where(y > 0, 0.3 * y),
        lambda y: y.masked_fill(y < 0, 0.0),
        lambda y: torch.where(
            y > torch.linspace(-1, 1, 12).view(1, 12, 1, 1), y, torch.linspace(-1, 1, 12).view(12, 1, 1)
        ),
        lambda y: torch.where(torch.tensor(True), y, 0.0),
        lambda y: torch.lerp(y, -y, 0.25),
        lambda y: torch.cat(y.split((4, 8), 1)[::-1], 1),
        lambda y: F.pixel_unshuffle(F.pixel_shuffle(y, 2), 2).flip(1),
    ],
)
def test_so_are_choices_that_bend(step: Step) -> None:
    network = Net(step).eval()
    assert_same(trace(export(network).module()).graph, network)
    assert_same(trace(network).graph, network)


def test_a_bound_that_it_keeps_in_float32_is_that_with_which_it_compares() -> None:
    network = Layers(nn.Threshold(0.3, 0.3)).eval()
    assert_same(trace(export(network).module()).graph, network, apart=2e-8)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda y: torch.where(y > 1e-3, y, 0.1 * y), "it jumps"),
        (lambda y: torch.where(y > 0, y, 0.1 * y + 1e-6), "it jumps"),
        (lambda y: torch.where(y > 0, y, -1.0), "it jumps"),
        (lambda y: torch.where(y >= 0, 1.0, 0.0), "it jumps"),
        (lambda y: torch.where(y > 0.5, y, 0.5 + 1e-7), "it jumps"),
        (lambda y: torch.where(y > 0.3, y + 0.1, 0.3), "it jumps"),
        (lambda y: torch.where(y.flip(1) > 0, y, 0.1 * y), "straight lines"),
        (lambda y: torch.where(y > 0, y, 0.1 * y.flip(1)), "straight lines"),
        (lambda y: torch.where(y > 0, y, y.abs()), "straight lines"),
        (lambda y: torch.where(y > y.flip(1), y, y.flip(1)), "above a number"),
        (lambda y: torch.where(y == 0, y, 0.1 * y), "no word"),
        (lambda y: y * (y > 0), "above a number"),
        (lambda y: torch.where((y > 0) & (y < 1), y, 0.1 * y), "above a number"),
    ],
)
def test_others_are_refused(step: Step, why: str) -> None:
    network = Net(step).eval()
    for program in (network, export(network).module()):
        with pytest.raises(UnsupportedModel, match=why):
            trace(program)


LINES = st.tuples(st.integers(-2, 2), st.integers(-2, 2))


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from([torch.gt, torch.ge, torch.lt, torch.le]),
    bound=st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
    over=LINES,
    slope=st.integers(-2, 2),
    shift=st.one_of(st.none(), st.integers(-2, 2)),
    scaled=st.booleans(),
)
def test_a_choice_is_read_where_it_is_continuous(
    kind: Any, bound: float, over: tuple[int, int], slope: int, shift: int | None, scaled: bool
) -> None:
    """Two straight lines; the second meets the first, where its shift is not drawn."""
    start = over[0] * bound + over[1] - slope * bound if shift is None else float(shift)

    def choose(y: Tensor) -> Tensor:
        y = 3 * y if scaled else y
        return torch.where(kind(y, bound), y * over[0] + over[1], y * slope + start)

    network = Net(choose).eval()
    x = 4 * torch.rand(2, 3, 5, 4, dtype=torch.float64) - 2
    if over[0] * bound + over[1] != slope * bound + start:
        with pytest.raises(UnsupportedModel, match="it jumps"):
            trace(network)
        return
    graph = trace(network).graph
    torch.testing.assert_close(GraphModule(graph)(x), copy.deepcopy(network).double()(x).detach(), rtol=0, atol=1e-10)
    one = torch.rand(1, 3, 5, 4)
    torch.testing.assert_close(GraphModule(graph).float()(one), network(one).detach(), rtol=0, atol=1e-4)


@settings(max_examples=5, deadline=None)
@given(factor=st.integers(2, 3), order=st.permutations(range(6)), copies=st.booleans(), split=st.booleans())
def test_a_reshape_of_one_size_is_read_where_it_is_a_pixel_shuffle(
    factor: int, order: list[int], copies: bool, split: bool
) -> None:
    """Drawn orders of axes are seldom one: those two are tried as well."""
    height, width = SIZE
    for axes in (order, [0, 1, 4, 2, 5, 3], [0, 1, 2, 4, 3, 5]):

        def forward(y: Tensor, axes: list[int] = axes) -> Tensor:
            y = y.repeat(1, factor**2, 1, 1)[:, : 3 * factor**2]
            y = y.view(1, 3, factor, factor, height, width).permute(axes)
            y = y.clone(memory_format=torch.contiguous_format) if copies else y
            return y.reshape(1, 3, height * factor, width * factor)

        network = Own(forward).eval()
        program = torch.export.export(network, (torch.rand(1, 3, *SIZE),))
        program = program.run_decompositions() if split else program
        try:
            graph = trace(program.module()).graph
        except UnsupportedModel:
            assert axes != [0, 1, 4, 2, 5, 3]
            continue
        assert_same(graph, network, images=1)


class Own(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.steps[0](self.conv(x))


def test_what_is_written_between_the_steps_of_a_shuffle_counts() -> None:
    def writes(y: Tensor) -> Tensor:
        parts = y.view(1, 3, 2, 2, *SIZE)
        copied = parts.permute(0, 1, 4, 2, 5, 3).contiguous()
        y.mul_(2)
        return copied.reshape(1, 3, 18, 16)

    def scales(y: Tensor) -> Tensor:
        copied = y.view(1, 3, 2, 2, *SIZE).permute(0, 1, 4, 2, 5, 3).contiguous()
        copied.mul_(2)
        return copied.reshape(1, 3, 18, 16)

    read = 0
    for step in (writes, scales):
        network = Own(step).eval()
        exported = torch.export.export(network, (torch.rand(1, 3, *SIZE),))
        for program in (exported.module(), exported.run_decompositions().module()):
            try:
                graph = trace(program).graph
            except UnsupportedModel:
                continue
            assert_same(graph, network, images=1)
            read += 1
    assert read


def test_a_shuffle_of_one_pixel_is_a_view_and_keeps_what_is_written() -> None:
    """Of larger ones it is a copy."""

    def writes(y: Tensor) -> Tensor:
        fine = y.view(1, 3, 2, 2, *y.shape[2:]).permute(0, 1, 4, 2, 5, 3)
        fine = fine.reshape(1, 3, 2 * y.shape[2], 2 * y.shape[3])
        fine.add_(1)
        return F.pixel_shuffle(y, 2) + 0 * fine

    network = Own(writes).eval()
    program = torch.export.export(network, (torch.rand(1, 3, 1, 1),)).module()
    one = torch.rand(1, 3, 1, 1)
    try:
        graph = trace(program).graph
    except UnsupportedModel:
        return
    torch.testing.assert_close(GraphModule(graph).float()(one), network(one).detach(), rtol=0, atol=1e-5)
