"""Counts: those of torch's own counter, and those of MemSR's Table 4 by its convention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from memsr_compiler.analysis.cost import cost_of_graph, published_macs
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.fsrcnn import FSRCNN
from memsr_compiler.teachers.families.imdn import IMDN
from memsr_compiler.trace.trace import trace

PIXELS = 1920 * 1080  # of the output


def plain_m(scale: int) -> nn.Sequential:
    """35 convolutions of 64 channels."""
    inner = [layer for _ in range(33) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), *inner, nn.Conv2d(64, 3 * scale**2, 3, padding=1),
        nn.PixelShuffle(scale),
    )  # fmt: skip


def network(name: str, scale: int) -> nn.Module:
    torch.manual_seed(0)
    families: dict[str, Callable[[], nn.Module]] = {
        "EDSR-baseline": lambda: EDSR(scale=scale, blocks=16, channels=64),
        "EDSR, one-conv tail": lambda: EDSR(scale=scale, blocks=16, channels=64, tail="conv"),
        "Plain-M": lambda: plain_m(scale),
        "FSRCNN": lambda: FSRCNN(scale=scale, colours=3),
        "IMDN": lambda: IMDN(scale=scale, attention=False),
    }
    return families[name]().eval()


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("name", ["EDSR-baseline", "EDSR, one-conv tail", "Plain-M", "FSRCNN", "IMDN"])
def test_multiply_adds_are_those_that_torch_counts(name: str, scale: int) -> None:
    net = network(name, scale)
    cost = cost_of_graph(trace(net).graph)
    slopes = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.PReLU))
    assert cost.parameters == sum(p.numel() for p in net.parameters()) - slopes
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 3, 6, 5))
    assert 2 * 30 * cost.macs_per_pixel == counter.get_total_flops()


@pytest.mark.parametrize(
    ("name", "scale", "published", "digits"),
    [
        ("EDSR-baseline", 2, 712.8, 1),
        ("EDSR-baseline", 4, 257.5, 1),
        ("Plain-M", 2, 636.3, 1),
        ("Plain-M", 4, 161.8, 1),
        ("IMDN", 2, 359, 0),
        ("FSRCNN", 2, 34, 0),
    ],
)
def test_table_4_by_its_own_convention(name: str, scale: int, published: float, digits: int) -> None:
    giga = published_macs(trace(network(name, scale)).graph) * PIXELS / scale**2 / 1e9
    assert round(giga, digits) == published


def test_fsrcnn_computes_a_third_of_what_is_published() -> None:
    cost = cost_of_graph(trace(network("FSRCNN", 2)).graph)
    assert round(cost.macs_per_pixel * PIXELS / 4 / 1e9, 1) == 12.6


@pytest.mark.parametrize(("scale", "thousands"), [(2, 1227), (4, 1248)])
def test_parameters_of_plain_m(scale: int, thousands: int) -> None:
    net = plain_m(scale)
    assert round(cost_of_graph(trace(net).graph).parameters / 1000) == thousands
    inner = [p.numel() for layer in list(net)[1:-2] for p in layer.parameters()]
    assert sum(inner) == 1_218_624  # what the paper gives at every scale
