"""Slopes of a plain network are claims like its weights: each is the teacher's, or 1 for what passes as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from helpers import graphs
from helpers.forged import Draft, DraftLayer
from torch import Tensor, nn

from memsr_compiler import PlainNet, check_certificate, compile_to_plain, ir
from memsr_compiler.errors import CertificateError
from memsr_compiler.proof.certificate import Certificate, Stage
from memsr_compiler.proof.checker import Checked, Layer, check
from memsr_compiler.teachers.families.ecbsr import ECBSR
from memsr_compiler.teachers.families.edsr import EDSR


def mobile() -> nn.Module:
    """PReLUs with slopes of both signs, 0 and 1 among them, beside the image."""
    torch.manual_seed(0)
    network = ECBSR(scale=2, blocks=1, channels=5, colours=1).eval()
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            module.weight.data = torch.tensor([0.0, 1.0, 0.25, -0.3, 1e-3])
    return network


def residual() -> nn.Module:
    """ReLUs beside what is carried past them."""
    torch.manual_seed(1)
    return EDSR(scale=2, blocks=2, channels=3, colours=1).eval()


def fine() -> nn.Module:
    """A PReLU behind a pixel shuffle."""
    torch.manual_seed(2)
    bend = nn.PReLU(3)
    bend.weight.data = torch.tensor([0.1, 0.2, -0.3])
    return nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.PixelShuffle(2), bend, nn.Conv2d(3, 1, 3, padding=1)).eval()


TEACHERS = {"its own slopes": mobile(), "carried values": residual(), "behind a pixel shuffle": fine()}


def draft(teacher: nn.Module) -> Draft:
    return Draft(teacher, compile_to_plain(teacher, activation="prelu", align=4))


def sloped(d: Draft) -> Iterator[tuple[DraftLayer, Tensor]]:
    for layer in d.layers:
        if layer.slope is not None:
            layer.slope = layer.slope.clone()
            yield layer, layer.slope


def passes(teacher: nn.Module, net: PlainNet) -> bool:
    try:
        check_certificate(teacher, net)
    except CertificateError:
        return False
    return True


@pytest.mark.parametrize("name", TEACHERS)
def test_no_other_slope_is_taken(name: str) -> None:
    """Nor the next number; only what is never negative, an image or padding, may have 0 for 1 or 1 for 0."""
    teacher, honest = TEACHERS[name], draft(TEACHERS[name])
    assert passes(teacher, honest.net())
    either = {
        (i, p)
        for i, level in enumerate(honest.levels[1:])
        for m in level
        if m.kind == "zero" or m.tensor == honest.graph.input.name
        for p in m.positions
    }
    tried = 0
    d = draft(teacher)
    for i, layer in enumerate(d.layers):
        if layer.slope is None:
            continue
        layer.slope = layer.slope.clone()
        for channel, slope in enumerate(layer.slope[:, 0, 0]):
            was = slope.clone()
            up, down = (torch.nextafter(was, torch.tensor(way)) for way in (math.inf, -math.inf))
            for other in (up, down, -was - 0.5, torch.tensor(0.0), torch.tensor(1.0), torch.tensor(math.nan)):
                if float(other) == float(was):
                    continue
                layer.slope[channel] = other
                harmless = (i, channel) in either and float(other) in (0.0, 1.0)
                assert passes(teacher, d.net()) == harmless, f"layer {i}, channel {channel}: {was:g} became {other:g}"
                tried += 1
            layer.slope[channel] = was
    assert tried > 30 and passes(teacher, d.net())


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("name", TEACHERS)
def test_without_its_slopes_a_layer_is_refused(name: str, relu: bool) -> None:
    d = draft(TEACHERS[name])
    for layer, slope in sloped(d):
        layer.slope, layer.relu = None, relu
        with pytest.raises(CertificateError, match=r"slope of channel|goes through a ReLU as it is"):
            check_certificate(TEACHERS[name], d.net())
        layer.slope, layer.relu = slope, False
    check_certificate(TEACHERS[name], d.net())


def test_where_nothing_was_bent_nothing_is() -> None:
    """All that a level holds is carried; a ReLU there would cut it."""
    d = draft(residual())
    assert not d.layers[0].relu and d.layers[0].slope is None
    d.layers[0].relu = True
    with pytest.raises(CertificateError, match="goes through a ReLU as it is, though it may be negative"):
        check_certificate(residual(), d.net())
    d.layers[0].relu, d.layers[0].slope = False, torch.full((len(d.layers[0].bias), 1, 1), 0.5)
    with pytest.raises(CertificateError, match=r"goes through a ReLU as it is|slope of channel"):
        check_certificate(residual(), d.net())


def test_the_last_layer_has_no_activation() -> None:
    d = draft(residual())
    d.layers[-1].slope = torch.ones(len(d.layers[-1].bias), 1, 1)
    with pytest.raises(CertificateError, match="ReLU or pixel shuffle in the wrong place"):
        check_certificate(residual(), d.net())


# -- by hand ---------------------------------------------------------------------------------------------------------


def prelu(name: str, operand: str, *slopes: float) -> ir.PRelu:
    return ir.PRelu(name=name, inputs=(operand,), slope=torch.tensor(slopes, dtype=torch.float64))


def whole(tensor: str, channels: int = 2, first: int = 0) -> ir.Meaning:
    return ir.Meaning("value", tuple(range(first, first + channels)), tensor, tuple(range(channels)))


def bent_layer(weight: Tensor, bias: Tensor, *slopes: float) -> Layer:
    slope = torch.tensor(slopes, dtype=weight.dtype)[:, None, None] if slopes else None
    return Layer(weight, bias, False, 1, slope)


def check_levels(graph: ir.Graph, layers: list[Layer], *levels: list[ir.Meaning]) -> Checked:
    stage = Stage(1, tuple(map(tuple, levels)))
    return check(graph, layers, Certificate("", "", (graph.input.low, graph.input.high), (stage,)))


def bent() -> ir.Graph:
    return graphs.graph(
        graphs.source(2, 0.0), graphs.conv("a", "x"), prelu("p", "a", 0.25, -2.0), graphs.conv("b", "p"),
        graphs.relu("r", "b"), graphs.conv("c", "r"), graphs.add("y", "c", "a"),
    )  # fmt: skip


def numbers_of(graph: ir.Graph, name: str) -> tuple[Tensor, Tensor]:
    op = graph[name]
    assert isinstance(op, ir.Conv2d)
    return op.weight, op.bias


def layers_of_bent(graph: ir.Graph) -> list[Layer]:
    """p beside a, then r beside a, then y."""
    (a, a_bias), (b, b_bias), (c, c_bias) = (numbers_of(graph, name) for name in "abc")
    copy = torch.zeros_like(b)
    copy[:, :, 1, 1] = torch.eye(2, dtype=torch.float64)
    nothing = torch.zeros(2, dtype=torch.float64)
    second = torch.cat([torch.cat([b, 0 * b], 1), torch.cat([0 * b, copy], 1)])
    return [
        bent_layer(torch.cat([a, a]), torch.cat([a_bias, a_bias]), 0.25, -2.0, 1.0, 1.0),
        bent_layer(second, torch.cat([b_bias, nothing]), 0.0, 0.0, 1.0, 1.0),
        Layer(torch.cat([c, copy], 1), c_bias, False, 1),
    ]


def test_by_hand() -> None:
    graph = bent()
    layers = layers_of_bent(graph)
    levels = [[whole("x")], [whole("p"), whole("a", first=2)], [whole("r"), whole("a", first=2)], [whole("y")]]
    check_levels(graph, layers, *levels)
    for lie in ("a", "r"):  # it is p that the first two channels hold
        with pytest.raises(CertificateError, match=r"may be negative|slope of channel|does not hold"):
            check_levels(graph, layers, levels[0], [replace(whole(lie)), whole("a", first=2)], *levels[2:])
    with pytest.raises(CertificateError, match=r"slope of channel 2 is 1, what it means asks for 0\.25"):
        check_levels(graph, layers, levels[0], [whole("p"), whole("p", first=2)], *levels[2:])
    for kind in ("positive", "negative"):
        signs = replace(whole("a", first=2), kind=kind)
        with pytest.raises(CertificateError, match="slope of channel 2 is 1, what it means asks for 0"):
            check_levels(graph, layers, levels[0], [whole("p"), signs], *levels[2:])


def test_a_carried_value_is_not_taken_for_one_that_is_never_negative() -> None:
    """It stands between channels that are; what adds it up must not go through a ReLU as it is."""
    graph = bent()
    layers = layers_of_bent(graph)
    assert layers[1].slope is not None
    cut = replace(layers[1], slope=0 * layers[1].slope)
    levels = [[whole("x")], [whole("p"), whole("a", first=2)], [whole("r"), whole("a", first=2)], [whole("y")]]
    with pytest.raises(CertificateError, match="a: goes through a ReLU as it is, though it may be negative"):
        check_levels(graph, [layers[0], cut, layers[2]], *levels)


def test_slopes_have_a_shape_of_their_own() -> None:
    graph = bent()
    first, *others = layers_of_bent(graph)
    assert first.slope is not None
    levels = [[whole("x")], [whole("p"), whole("a", first=2)], [whole("r"), whole("a", first=2)], [whole("y")]]
    for wrong in (first.slope.flatten(), first.slope[:2], first.slope[None]):
        with pytest.raises(CertificateError, match="slopes that are not one for each channel"):
            check_levels(graph, [replace(first, slope=wrong), *others], *levels)
    with pytest.raises(CertificateError, match="beside a ReLU"):
        check_levels(graph, [replace(first, relu=True), *others], *levels)


def left_out(constant: float, slope: float) -> None:
    """A channel of the PReLU that no weight feeds is left out of the plain network."""
    weight = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    weight[0] = 1.0
    bias = torch.tensor([0.0, constant], dtype=torch.float64)
    graph = graphs.graph(
        graphs.source(2, 0.0),
        ir.Conv2d(name="a", inputs=("x",), weight=weight, bias=bias),
        prelu("p", "a", 0.5, slope), graphs.conv("y", "p"),
    )  # fmt: skip
    last, end = numbers_of(graph, "y")
    layers = [bent_layer(weight[:1], bias[:1], 0.5), Layer(last[:, :1], end, False, 1)]
    check_levels(graph, layers, [whole("x")], [ir.Meaning("value", (0, -1), "p", (0, 1))], [whole("y")])


def test_a_channel_may_be_left_out_that_is_always_zero() -> None:
    left_out(0.0, 0.5)
    left_out(-1.0, 0.0)
    for constant, slope in ((-1.0, 0.5), (1.0, 0.0), (1.0, 0.5)):
        with pytest.raises(CertificateError, match="a channel was left out that is not always zero"):
            left_out(constant, slope)


def test_digits_of_small_slopes_are_lost() -> None:
    """float16 makes 3e-8 of a slope of 4e-8: a quarter of what it lets through, up to 5 times the image here."""
    a, b = (torch.ones(1, 1, 1, 1, dtype=torch.float64) * v for v in (-5.0, 1.0))
    none = torch.zeros(1, dtype=torch.float64)
    graph = graphs.graph(
        graphs.source(1, 0.0), ir.Conv2d(name="a", inputs=("x",), weight=a, bias=none), prelu("p", "a", 4e-8),
        ir.Conv2d(name="y", inputs=("p",), weight=b, bias=none),
    )  # fmt: skip
    halves = [x.half() for x in (a, none, torch.full((1, 1, 1), 4e-8), b)]
    layers = [Layer(halves[0], halves[1], False, 1, halves[2]), Layer(halves[3], halves[1], False, 1)]
    stage = Stage(1, ((whole("x", 1),), (whole("p", 1),), (whole("y", 1),)))
    reach = {"x": torch.ones(1).double(), "a": 5 * torch.ones(1).double(), "p": 5 * torch.ones(1).double()}
    checked = check(graph, layers, Certificate("", "", (0.0, 1.0), (stage,)), lambda: reach)
    off = abs(float(halves[2]) - 4e-8)
    assert off > 5e-9 and checked.by_channel["p"].item() == pytest.approx(5 * off, rel=1e-2)
