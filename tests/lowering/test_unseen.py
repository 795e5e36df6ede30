"""Images that are looked for, on which units fire that are dead on the probe images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler import check_certificate, compile_to_plain, ir
from memsr_compiler.errors import CertificateError
from memsr_compiler.lowering.unseen import MOST, Unseen, find_images, list_unseen
from memsr_compiler.plain.probes import probe_images
from memsr_compiler.trace.trace import trace


def bias_of(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None, "made with one"
    return layer.bias


class Detector(nn.Module):
    """A unit that fires on a checkerboard of 5x5 pixels and on no probe image, behind a skip, and what it is worth."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.body = nn.Conv2d(1, 8, 5, padding=2), nn.Conv2d(8, 8, 3, padding=1)
        self.threshold, self.gain = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.tail = nn.Conv2d(8, 4, 3, padding=1)
        signs = torch.tensor([[(-1.0) ** (row + column) for column in range(5)] for row in range(5)])
        with torch.no_grad():
            for layer in (self.body, self.threshold, self.gain):
                layer.weight[:, 7] = layer.weight[7] = bias_of(layer)[7] = 0.0
            self.tail.weight[:, 7] = bias_of(self.head)[7] = 0.0
            self.head.weight[7] = signs * 1.7 / 13
            self.threshold.weight[7, 7], bias_of(self.threshold)[7] = 1.0, -1.0009
            self.gain.weight[7, 7], bias_of(self.gain)[7] = gain, -0.1 * gain
            self.tail.weight[:, 7, 1, 1] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        z = self.body(y.relu()) + y
        return F.pixel_shuffle(self.tail(self.gain(self.threshold(z).relu()).relu()), 2)


def list_here(module: nn.Module) -> tuple[ir.Graph, list[Unseen]]:
    graph = trace(module.eval()).graph
    return graph, list_unseen(graph, probe_images(graph.input.channels).values())


def test_a_unit_that_no_probe_image_shows_is_found() -> None:
    graph, unseen = list_here(Detector(20.0))
    hidden = {Unseen("relu:2", 1, 7), Unseen("relu:3", 1, 7)}
    assert hidden <= set(unseen)
    images = find_images(graph, unseen)
    assert images.dtype == torch.float64 and len(images) <= 5 * MOST
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    assert not hidden & set(list_unseen(graph, [images]))


def test_where_all_is_seen_there_is_no_image() -> None:
    graph, unseen = list_here(nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.PReLU(), nn.Conv2d(1, 1, 1)))
    unseen = [side for side in unseen if side.side != (1 if float(graph["0"].weight) < 0 else -1)]  # type: ignore[attr-defined]
    assert not unseen and find_images(graph, unseen).shape == (0, 1, 13, 13)


class Bends(nn.Module):
    """y = bend(difference of two neighbours in a checkerboard of 3x3, which is 5 on it, 0.9 on an edge at most)."""

    def __init__(self, bend: nn.Module, sign: float, shuffle: int) -> None:
        super().__init__()
        self.head, self.shuffle, self.bend = nn.Conv2d(1, shuffle**2, 3, padding=1, bias=False), shuffle, bend
        self.sign = sign
        signs = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]])
        self.head.weight = nn.Parameter(signs.expand(shuffle**2, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.bend(self.sign * (F.pixel_shuffle(self.head(x), self.shuffle) - 4.5))  # type: ignore[no-any-return]


class Larger(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, 0 * x)


@pytest.mark.parametrize("bend", [nn.ReLU(), nn.PReLU(1), nn.Hardtanh(0.0, 0.2), nn.Hardtanh(-0.2, 0.0), Larger()])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("shuffle", [1, 2])
def test_both_sides_of_every_bend_are_looked_for(bend: nn.Module, sign: float, shuffle: int) -> None:
    """Of every pixel that a shuffle makes of one."""
    graph, unseen = list_here(Bends(bend, sign, shuffle))
    assert {side.channel for side in unseen} == set(range(shuffle**2))
    assert not list_unseen(graph, [*probe_images(1).values(), find_images(graph, unseen)])


def test_many_units_are_looked_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than there are images, at pixels of their own."""
    torch.manual_seed(0)
    head = nn.Conv2d(1, 300, 3, padding=1)
    with torch.no_grad():
        bias_of(head).copy_(-0.93 * head.weight.clamp_min(0).sum((1, 2, 3)))
    graph, unseen = list_here(nn.Sequential(head, nn.ReLU(), nn.Conv2d(300, 1, 1)))
    images = find_images(graph, unseen)
    assert len(unseen) > 200 and len(images) <= 5 * MOST
    assert len(find_images(graph, unseen, most=3)) <= 15
    monkeypatch.setattr("memsr_compiler.lowering.unseen.HAIR", 0.0)
    assert not set(unseen) & set(list_unseen(graph, [images]))


@pytest.mark.parametrize("constant", [200.0, 2.0e4])
def test_losses_of_constants_behind_such_a_unit_are_refused(constant: float) -> None:
    """A gain of 20 behind it: 4.6 grey levels at C = 20,000."""
    teacher = Detector(20.0).eval()
    check = partial(check_certificate, teacher, compile_to_plain(teacher, carry="shift", constant=constant))
    if constant < 1000:
        check()
    else:
        with pytest.raises(CertificateError, match=r"stored numbers alone .* smaller constants"):
            check()


@pytest.mark.parametrize("gain", [5.0, 30.0])
def test_digits_of_halves_behind_such_a_unit_are_counted(gain: float) -> None:
    teacher = Detector(gain).eval()
    check = partial(check_certificate, teacher, compile_to_plain(teacher).half())
    if gain < 10:
        check()
    else:
        with pytest.raises(CertificateError, match=r"stored numbers alone .* wider dtype"):
            check()


def test_numbers_too_large_for_float32_hide_none() -> None:
    """A channel of 1e39, made small again, is infinite there, and nothing could be found; a gain of 2000 in float64."""
    teacher = Detector(2000.0).double().eval()
    with torch.no_grad():
        teacher.head.weight[6] = bias_of(teacher.head)[6] = 0.0
        for tensor in (teacher.body.weight[6], bias_of(teacher.body)[6:7]):
            tensor *= 1e39
        teacher.threshold.weight[:, 6] *= 1e-39
    with pytest.raises(CertificateError, match="stored numbers alone"):
        check_certificate(teacher, compile_to_plain(teacher, carry="shift", constant=6e10))


class Huge(Detector):
    """What is beyond 0.7, as no grey is that is begun with, is multiplied by 1e60, by 1e-60 again, and added to it."""

    def __init__(self, factor: float) -> None:
        super().__init__(20.0)
        self.bright, self.factors = nn.Conv2d(1, 1, 1), (factor, factor, 1 / factor, 1 / factor)
        nn.init.ones_(self.bright.weight)
        nn.init.constant_(bias_of(self.bright), -0.7)

    def forward(self, x: Tensor) -> Tensor:
        bright = self.bright(x).relu()
        for factor in self.factors:
            bright = bright * factor
        return super().forward(x + 0.001 * bright)


def test_numbers_too_large_for_float32_on_brighter_images_hide_none() -> None:
    (graph, unseen), (tame, same) = list_here(Huge(1e30)), list_here(Huge(1.0))
    assert unseen == same and Unseen("relu:3", 1, 7) in unseen
    # One search is in float64, the other in float32, whose signs of gradients are the same.
    torch.testing.assert_close(find_images(graph, unseen), find_images(tame, same), rtol=0, atol=1e-5)


def test_beyond_the_constant_nothing_is_promised() -> None:
    """A C above all values on probe images and below that of the checkerboard."""
    teacher = Detector(1.0).eval()
    check_certificate(teacher, compile_to_plain(teacher, carry="shift", constant=1.3))


SIGNS = torch.tensor([[(-1.0) ** (row + column) for column in range(5)] for row in range(5)]) * 1.7 / 13


class Beside(nn.Module):
    """A unit that fires on a checkerboard of 5x5 pixels, worth 30 times as much, beside others that are dead."""

    def __init__(self, threshold: float, others: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.gain = nn.Conv2d(1, 1 + others, 5, padding=2), nn.Conv2d(1 + others, 4, 1, bias=False)
        with torch.no_grad():
            bias_of(self.head).fill_(-10.0)[0] = -threshold
            self.head.weight[0], self.gain.weight[:, 0] = SIGNS, 30.0

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.gain(self.bend(self.head(x))), 2)

    def bend(self, y: Tensor) -> Tensor:
        return y.relu()


def halves_are_refused(teacher: nn.Module) -> bool:
    """Whether a network in float16, off by 2.5 grey levels where the unit fires, is refused for what it loses."""
    teacher.eval()
    net = compile_to_plain(teacher)
    check_certificate(teacher, net)
    try:
        check_certificate(teacher, net.half())
    except CertificateError as error:
        return "stored numbers alone" in str(error)
    return False


def largest_on_probes(layer: nn.Conv2d) -> float:
    """Of its first channel, without the bias."""
    with torch.no_grad():
        return max(float(layer(x.float())[:, 0].max() - bias_of(layer)[0]) for x in probe_images(1).values())


def test_a_unit_that_fires_by_a_hair_is_not_seen() -> None:
    """Of what it loses, a probe image shows no more than the hair."""
    assert halves_are_refused(Beside(largest_on_probes(Beside(1.0).head) - 2e-5))


@pytest.mark.parametrize("others", [0, 40, 150])
def test_dead_units_beside_it_hide_none(others: int) -> None:
    """They take images, and of contrasts there is one at which it fires and its output is small."""
    assert halves_are_refused(Beside(1.0009, others))


class Subtracted(Beside):
    """y = relu(x) - x, or clamp(x) - x, which is 0 where the bend lets x through."""

    def __init__(self, *, clamp: bool) -> None:
        super().__init__(1.0009)
        self.clamp = clamp
        with torch.no_grad():
            self.head.weight[0], bias_of(self.head)[0] = -SIGNS, 1.0009

    def bend(self, y: Tensor) -> Tensor:
        return y.clamp(0.0, 20.0) - y if self.clamp else y.relu() - y


@pytest.mark.parametrize("clamp", [False, True])
def test_what_is_subtracted_beyond_a_bend_is_looked_for(clamp: bool) -> None:
    """A closed unit loses nothing, and what it is subtracted from does."""
    teacher = Subtracted(clamp=clamp)
    with torch.no_grad():
        teacher.head.weight[1:], teacher.gain.weight[:, 1:] = 0.0, 0.0
        bias_of(teacher.head)[1:] = 1.0
    assert halves_are_refused(teacher)


class Shuffled(nn.Module):
    """Of four pixels that are made of one, the last is such a unit, and the others are dead."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.gain = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(1, 1, 1, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()[3], bias_of(self.head)[:3], bias_of(self.head)[3] = SIGNS, -0.5, -1.0009
            self.gain.weight.fill_(30.0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.gain(F.pixel_shuffle(self.head(x), 2).relu())
        return y


def test_each_pixel_of_a_shuffle_is_a_unit_of_its_own() -> None:
    assert halves_are_refused(Shuffled())


class Rings(nn.Module):
    """A unit that fires on a checkerboard, most of it by 3x3 pixels, and a carried value of the ring around these."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.gain = nn.Conv2d(1, 2, 5, padding=2), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 4, 1)
        ring = torch.ones(5, 5)
        ring[1:4, 1:4] = 0
        with torch.no_grad():
            self.head.weight[0], self.head.weight[1] = SIGNS * (2 - 1.5 * ring), -SIGNS.sign() * ring / 8
            self.body.weight.zero_()[0, 0], self.gain.weight[:, 0], self.gain.weight[:, 1] = 1.0, 40.0, 0.1
            for layer in (self.head, self.body, self.gain):
                bias_of(layer).zero_()
            bias_of(self.body)[0] = -1.0009

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        return F.pixel_shuffle(self.gain(self.body(y).relu() + torch.cat([0 * y[:, :1], y[:, 1:]], 1)), 2)


def test_a_constant_that_strong_images_pass_hides_no_others() -> None:
    """C = 0.5 is more than the ring gives on probe images, and less than on whole checkerboards."""
    teacher = Rings().eval()
    net = compile_to_plain(teacher, carry="shift", constant=0.5)
    check_certificate(teacher, net)
    with pytest.raises(CertificateError, match="stored numbers alone"):
        check_certificate(teacher, net.half())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_s_gradients_may_be_off(mode: Callable[[], AbstractContextManager[None]]) -> None:
    teacher = Detector(5.0).eval()
    net = compile_to_plain(teacher)
    with mode():
        check_certificate(teacher, net)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


def test_what_another_activation_bounds_is_not_looked_for() -> None:
    """A row of thousands of activations would be searched for minutes."""
    bends = nn.ReLU(), nn.ReLU(), nn.Hardtanh(-1, 1e9), nn.Hardtanh(-2, 1e10), nn.Hardtanh(0.1, 1e11), nn.ReLU()
    first, last = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 4, 1)
    with torch.no_grad():
        first.weight.fill_(1.0)
        bias_of(first).fill_(-0.5)
    _, unseen = list_here(nn.Sequential(first, *bends, last, nn.PixelShuffle(2)))
    assert [(side.op, side.side) for side in unseen] == [("3", 2)]
