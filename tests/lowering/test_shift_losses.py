"""Constants of shifts whose rounding takes more than a tensor can spare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import pytest
import torch
from torch import Tensor, nn

from memsr_compiler import check_certificate, compile_to_plain, ir
from memsr_compiler.errors import CertificateError
from memsr_compiler.lowering import shift_losses
from memsr_compiler.lowering.shift_losses import (
    Probed,
    ShiftLoss,
    _within_shifts,
    gather_images,
    measure_losses,
    measure_running,
    measure_stored,
    run_teacher,
    worst_shift_loss,
)
from memsr_compiler.lowering.unseen import Unseen, list_unseen
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.torch_helpers import copy_module
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
    probed = Probed(trace(network).graph)
    assert worst_shift_loss(probed, {}) is None and worst_shift_loss(probed, {"": 1.0}) is None
    worst = worst_shift_loss(probed, {"head.0": 1e-6, "body.0.body.1": 1e-7})
    assert worst == ShiftLoss("body.0.body.1", 1e-7, 1 / 256)
    assert not worst.too_much
    assert ShiftLoss("", float("nan"), 1.0).too_much and ShiftLoss("", 1.0, 1.0).too_much


def test_a_relu_has_room_for_its_operand(network: nn.Module) -> None:
    """Its own values may all be zero."""
    with torch.no_grad():
        network.get_submodule("body.0.body.0").bias.fill_(-100.0)  # type: ignore[operator]
    graph = trace(network).graph
    assert isinstance(graph["body.0.body.1"], ir.Relu)
    worst = worst_shift_loss(Probed(graph), {"body.0.body.1": 1.0})
    assert worst is not None and worst.peak > 90


def test_what_the_output_loses_is_what_the_channels_lose_times_their_weights() -> None:
    """y = 2 a + 3 b + 0 c: of losses of 1, 10 and 1000 either 32 or 28."""
    head, tail = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 1, 1, bias=False)
    with torch.no_grad():
        tail.weight.copy_(torch.tensor([2.0, 3.0, 0.0])[None, :, None, None])
    graph = trace(nn.Sequential(head, tail).eval()).graph
    found = measure_losses(Probed(graph), {"0": torch.tensor([1.0, 10.0, 1000.0]).double()})
    assert {round(off, 9) for off, _ in found} == {32.0, 28.0} and all(0 < peak < 10 for _, peak in found)
    assert all(off == 0 for off, _ in measure_losses(Probed(graph), {"0": torch.zeros(3).double()}))
    infinite = measure_losses(Probed(graph), {"0": torch.tensor([0.0, 0.0, math.inf]).double()})
    assert all(math.isnan(off) for off, _ in infinite)


def test_each_channel_reaches_what_it_does_on_the_probes() -> None:
    """Channels of x, -100 x and 2 x, and of a ReLU the same."""
    head = nn.Conv2d(1, 3, 1, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([1.0, -100.0, 2.0])[:, None, None, None])
    probed = Probed(trace(nn.Sequential(head, nn.ReLU(), nn.Conv2d(3, 1, 1)).eval()).graph)
    for name in ("0", "1"):
        assert probed.reach()[name].tolist() == pytest.approx([1.0, 100.0, 2.0])


@pytest.mark.parametrize("many", [1, 1 << 22])
def test_stored_numbers_are_as_far_off_as_they_are(
    many: int, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None at all of exact ones; of those of float16 what rounding takes; of larger networks on fewer pixels."""
    monkeypatch.setattr(shift_losses, "MANY", many)
    probed, net = Probed(trace(network).graph), compile_to_plain(network)
    images = gather_images(probed, net)
    known = run_teacher(probed, images)
    exact = measure_stored(copy_module(net, torch.float64), images, known)  # type: ignore[arg-type]
    halves = measure_stored(net.half(), images, known)
    searched = probed.search(list(probed.images.values()), net)
    assert len(exact) == sum(map(len, searched)) + (17 if many == 1 else 20)
    assert all(off < 1e-12 < 0.01 < peak for off, peak in exact)
    assert all(1e-6 < off < 1e-2 for off, _ in halves)
    with torch.no_grad():
        net[0].weight.zero_()
    assert median(off for off, _ in measure_stored(net, images, known)) > 0.01


class Cancels(nn.Module):
    """relu(1023 x) - relu(1022 x), of numbers that float16 holds, and products that it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([1023.0, 1022.0])[:, None, None, None])
            self.tail.weight.copy_(torch.tensor([1.0, -1.0])[None, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tail(self.head(x).relu())
        return y


def test_a_network_is_run_as_it_is_stored() -> None:
    """No number is off, and in float16 the output is by an eighth of the range."""
    teacher = Cancels().eval()
    halves = compile_to_plain(teacher).half()
    probed = Probed(trace(teacher).graph)
    images = gather_images(probed, halves)
    known = run_teacher(probed, images)
    assert max(off for off, _ in measure_stored(halves, images, known)) == 0
    assert max(off for off, _ in measure_running(halves, images, known)) > 0.1
    check_certificate(teacher, compile_to_plain(teacher))
    with pytest.raises(CertificateError, match=r"running it in float16 takes it .* off the teacher on an image"):
        check_certificate(teacher, halves)


def test_images_are_looked_for_beside_those_that_are_run(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the rest of a probe image shows, a larger network does not show where a corner of it is run."""
    sizes: list[int] = []

    def note(graph: ir.Graph, images: Sequence[Tensor]) -> list[Unseen]:
        sizes.extend(max(x.shape[2:]) for x in images)
        return list_unseen(graph, images)

    monkeypatch.setattr(shift_losses, "list_unseen", note)
    monkeypatch.setattr(shift_losses, "MANY", 1)
    gather_images(Probed(trace(network).graph), compile_to_plain(network))
    assert len(sizes) == 5 and max(sizes) == shift_losses.CORNER


class Powers(nn.Module):
    """x + relu(x - 1/2), of powers of two alone: with a shift every number is stored exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.unit, self.tail = (nn.Conv2d(1, 1, 1) for _ in range(3))
        with torch.no_grad():
            for conv, bias in ((self.head, 0.0), (self.unit, -0.5), (self.tail, 0.0)):
                conv.weight.fill_(1.0)
                nn.init.constant_(conv.get_parameter("bias"), bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        y: Tensor = self.tail(x + self.unit(x).relu())
        return y


def test_digits_that_a_shift_leaves_are_counted_where_it_is_made() -> None:
    """t + 2^20 in float32 has four bits of t left, though no stored number is off."""
    teacher = Powers().eval()
    few, many = (compile_to_plain(teacher, carry="shift", constant=2.0**k, input_range=(-1.0, 1.0)) for k in (10, 20))
    check_certificate(teacher, few)
    with pytest.raises(CertificateError, match=r"takes up to 0\.0625 from"):
        check_certificate(teacher, many)


def test_a_searched_image_beyond_a_shift_is_tried_with_less_contrast(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = compile_to_plain(Powers().eval()), torch.full((1, 3, 3), 1.0)
    monkeypatch.setattr(shift_losses, "find_broken_shift", lambda y, _: "beyond" if y.max() > 0.7 else "")
    kept = _within_shifts(x, net)
    assert kept is not None and bool((kept == 0.625).all())  # a quarter of the way from the middle, 1/2
    monkeypatch.setattr(shift_losses, "find_broken_shift", lambda *_: "beyond")
    assert _within_shifts(x, net) is None
