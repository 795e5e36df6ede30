"""Counts of a run: those of the graph where there is one, those by hand where there is attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memsr_compiler.analysis.cost import cost_of_graph, published_macs
from memsr_compiler.analysis.counted_run import count_multiply_adds, count_published
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.fsrcnn import FSRCNN
from memsr_compiler.teachers.families.idn import IDN
from memsr_compiler.teachers.families.imdn import IMDN
from memsr_compiler.teachers.families.latticenet import LatticeNet
from memsr_compiler.teachers.families.srcnn import SRCNN
from memsr_compiler.teachers.families.swinir import SwinIR
from memsr_compiler.trace.trace import trace

SHAPE = (1, 3, 12, 10)


@pytest.mark.parametrize(
    "network",
    [
        EDSR(scale=2, blocks=2, channels=8),
        EDSR(scale=3, blocks=1, channels=8, tail="conv"),
        FSRCNN(scale=3, colours=3, channels=8, narrow=4),
        IMDN(scale=2, blocks=1, channels=16, attention=False),
        IDN(scale=2, blocks=1, channels=16, kept=4),
        SRCNN(channels=8, narrow=4, colours=3),
    ],
)
def test_a_run_has_the_counts_of_its_graph(network: nn.Module) -> None:
    graph = trace(network.eval()).graph
    assert count_multiply_adds(network, SHAPE) == 120 * cost_of_graph(graph).macs_per_pixel
    assert count_published(network, SHAPE) == 120 * published_macs(graph)


def test_attention_by_hand() -> None:
    """A pixel of a window of 4 x 4 is compared with 16, of 12 channels in all, and takes 16 values together."""
    channels, hidden, scale = 12, 20, 2
    layers = {"blocks": 1, "layers": 2, "channels": channels, "heads": 3, "window": 4, "hidden": hidden}
    network = SwinIR(scale=scale, **layers)
    linear = 2 * (4 * channels * channels + 2 * channels * hidden)
    convolutions = 9 * (3 * channels + 2 * channels**2 + channels * 3 * scale**2)
    products = 2 * 2 * 16 * channels
    assert count_multiply_adds(network, (1, 3, 8, 12)) == 96 * (linear + convolutions + products)
    assert count_published(network, (1, 3, 8, 12)) == 96 * (linear + convolutions + 3 * channels + 3 * scale**2)
    assert count_multiply_adds(network, (1, 3, 5, 9)) == count_multiply_adds(network, (1, 3, 8, 12))  # padded


def test_gates_count_once_for_a_whole_image() -> None:
    network = LatticeNet(scale=2, blocks=1, channels=8, narrow=6, hidden=2)
    small, large = (count_multiply_adds(network, (1, 3, side, side)) for side in (4, 8))
    gates = 4 * 2 * (8 * 2 + 2 * 8)  # four of them, of mean and of deviation
    assert large - gates == 4 * (small - gates)


def test_a_network_is_left_as_it_was() -> None:
    network = EDSR(scale=2, blocks=1, channels=4).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    count_published(network, SHAPE)
    count_multiply_adds(network, SHAPE)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(layer._forward_hooks for layer in network.modules())
