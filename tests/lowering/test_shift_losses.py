"""Constants of shifts whose rounding takes more than a tensor can spare."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memsr_compiler import check_certificate, compile_to_plain, ir
from memsr_compiler.errors import CertificateError
from memsr_compiler.lowering.shift_losses import ShiftLoss, output_loss, worst_shift_loss
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.trace.trace import trace


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return EDSR(scale=2, blocks=1, channels=4).eval()


@pytest.mark.parametrize("constant", [1.0e7, 1.0e15])
def test_constants_that_leave_nothing_are_refused(network: nn.Module, constant: float) -> None:
    """Though every number is the exact one, rounded."""
    net = compile_to_plain(network, carry="shift", constant=constant)
    with pytest.raises(CertificateError, match=r": rounding the constants of shifts takes up to .* smaller constants"):
        check_certificate(network, net)


def test_the_paper_s_own_constant_passes(network: nn.Module) -> None:
    check_certificate(network, compile_to_plain(network, carry="shift", constant=1000.0))


def test_more_bits_take_larger_constants(network: nn.Module) -> None:
    """1e7 in float64; in float16, of which a constant of 1000 leaves steps of 1, not even that."""
    check_certificate(network.double(), compile_to_plain(network.double(), carry="shift", constant=1.0e7))
    halves = compile_to_plain(network.float(), carry="shift", constant=1000.0).half()
    with pytest.raises(CertificateError, match="in a wider dtype"):
        check_certificate(network, halves)


def test_the_worst_is_the_worst_for_its_size(network: nn.Module) -> None:
    """Of what is never anything, a 256th of the image is enough; NaN is too much."""
    with torch.no_grad():
        network.get_submodule("body.0.body.0").weight.zero_()  # type: ignore[operator]
        network.get_submodule("body.0.body.0").bias.zero_()  # type: ignore[operator]
    graph = trace(network).graph
    assert worst_shift_loss(graph, {}) is None and worst_shift_loss(graph, {"": 1.0}) is None
    worst = worst_shift_loss(graph, {"head.0": 1e-6, "body.0.body.1": 1e-7})
    assert worst == ShiftLoss("body.0.body.1", 1e-7, 1 / 256)
    assert not worst.too_much
    assert ShiftLoss("", float("nan"), 1.0).too_much and ShiftLoss("", 1.0, 1.0).too_much


def test_a_relu_has_room_for_its_operand(network: nn.Module) -> None:
    """Its own values may all be zero."""
    with torch.no_grad():
        network.get_submodule("body.0.body.0").bias.fill_(-100.0)  # type: ignore[operator]
    graph = trace(network).graph
    assert isinstance(graph["body.0.body.1"], ir.Relu)
    worst = worst_shift_loss(graph, {"body.0.body.1": 1.0})
    assert worst is not None and worst.peak > 90


def test_what_the_output_loses_is_what_the_channels_lose_times_their_weights() -> None:
    """y = 2 a + 3 b + 0 c: of losses of 1, 10 and 1000 either 32 or 28."""
    head, tail = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 1, 1, bias=False)
    with torch.no_grad():
        tail.weight.copy_(torch.tensor([2.0, 3.0, 0.0])[None, :, None, None])
    graph = trace(nn.Sequential(head, tail).eval()).graph
    most, peak = output_loss(graph, {"0": torch.tensor([1.0, 10.0, 1000.0]).double()})
    assert most == pytest.approx(32.0) and 0 < peak < 10
    assert output_loss(graph, {"0": torch.zeros(3).double()})[0] == 0
