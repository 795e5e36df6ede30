"""Plain networks in float16: computed as float16 is, and brought into its range by powers of two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import random_network
from helpers.plain_files import tiny, uncertified
from helpers.wide_values import WIDE, overflowing
from torch import Tensor, nn

from memsr_compiler import check_certificate, compile_to_plain, export_onnx, load_plain, save_plain
from memsr_compiler.errors import CertificateError, ExportError
from memsr_compiler.plain.halves import LARGEST, find_narrow, fit_to_half, measure_peaks, run_in_halves, scale_channels
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.probes import probe_images, sample_middles
from memsr_compiler.torch_helpers import enlarge


@pytest.fixture(scope="module")
def wide() -> PlainNet:
    return compile_to_plain(overflowing(), input_range=WIDE)


def images(net: PlainNet) -> dict[str, Tensor]:
    return probe_images(net.info.channels, net.info.input_range)


def test_every_layer_is_rounded_to_halves_and_nothing_else() -> None:
    net = tiny()
    x = torch.rand(2, 1, 6, 7) * 255
    first, second = (layer.weight.half().float() for layer in net)
    hidden = F.conv2d(x.half().float(), first, net[0].bias.half().float(), padding=1).relu().half()
    output = F.conv2d(hidden.float(), second, net[1].bias.half().float()).half()
    assert torch.equal(run_in_halves(net, x), F.pixel_shuffle(output, 2))


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_an_image_skip_is_added_to_halves(mode: str) -> None:
    net, x = tiny(mode), torch.rand(1, 1, 5, 4) * 255
    plain = tiny()
    skip = enlarge(x.half().float(), 2, mode).half()
    assert torch.equal(run_in_halves(net, x), (run_in_halves(plain, x).float() + skip.float()).half())


def test_what_leaves_the_range_is_infinite_and_then_no_number(wide: PlainNet) -> None:
    x = torch.rand(1, 3, 24, 24) * 255
    assert run_in_halves(wide, x).isfinite().sum() == 0


def test_channels_are_scaled_and_the_certificate_says_so(wide: PlainNet, tmp_path: Path) -> None:
    """The file of /shared/faults/fp16_overflow.onnx, made here: all NaN on a GPU, "equivalent" on a processor."""
    report = export_onnx(wide, tmp_path / "plain.onnx", dtype="float16")
    assert report.peaks[1].value > LARGEST and report.peaks[1].scaled and not report.peaks[-1].scaled
    stored = load_plain(tmp_path / "plain.onnx")
    assert stored.certificate is not None and stored.certificate.stages[0].scaled
    check_certificate(overflowing(), stored, input_range=WIDE)
    for x in (torch.rand(1, 3, 24, 24) * 255, torch.full((1, 3, 9, 9), 255.0)):
        with torch.no_grad():
            exact = wide.double()(x.double())
        deviation = (run_in_halves(stored, x).double() - exact).abs().max()
        assert deviation < 2 / 255 * max(255.0, float(exact.abs().max()) / 2)


def test_a_teacher_in_halves_is_scaled_in_safetensors_too(tmp_path: Path) -> None:
    teacher = overflowing().half()
    net = compile_to_plain(teacher, input_range=WIDE)
    x = torch.rand(1, 3, 24, 24) * 255
    assert not run_in_halves(net, x).isfinite().any()
    save_plain(net, tmp_path / "plain.safetensors")
    assert run_in_halves(load_plain(tmp_path / "plain.safetensors"), x).isfinite().all()
    check_certificate(teacher, tmp_path / "plain.safetensors", input_range=WIDE)


def test_what_stays_in_range_is_stored_as_it_is(tmp_path: Path) -> None:
    net = compile_to_plain(overflowing(grow=0.1), input_range=WIDE)
    report = export_onnx(net, tmp_path / "plain.onnx", dtype="float16")
    assert [peak.scaled for peak in report.peaks] == [0, 0, 0]
    for here, there in zip(load_plain(tmp_path / "plain.onnx"), net, strict=True):
        assert torch.equal(here.weight, there.weight.half())


@pytest.mark.parametrize("seed", range(12))
def test_powers_of_two_change_no_digit(seed: int) -> None:
    """Any powers on any levels: the same function, bit for bit in float64, and a certificate that holds."""
    network = random_network(seed)
    net = compile_to_plain(network, input_range=(0.0, 1.0))
    generator = torch.Generator().manual_seed(seed)
    exponents = []
    assert net.certificate is not None
    levels = [level for stage in net.certificate.stages for level in stage.levels[1:]]
    for layer, level in zip(net, levels, strict=True):
        k = torch.randint(-6, 7, (layer.out_channels,), generator=generator)
        fixed = [p for m in level if m.kind in ("one", "shifted") for p in m.positions if p >= 0]
        k[fixed] = 0
        exponents.append(k if layer.relu and layer.shuffle == 1 else torch.zeros_like(k))
    scaled = scale_channels(net, exponents)
    if any(k.any() for k in exponents):
        assert scaled.sha256() != net.sha256()
    check_certificate(network, scaled, input_range=(0.0, 1.0))
    x = torch.rand(2, net.info.channels, 5, 4, generator=generator, dtype=torch.float64)
    wide_layers = uncertified(net)
    wide_layers._exact = ()  # the float32 weights, which are those that were scaled
    with torch.no_grad():
        assert torch.equal(scaled.double()(x), wide_layers.double()(x))
    back = scale_channels(scaled.float(), [-k for k in exponents])
    assert back.sha256() == net.sha256() and back.certificate == net.certificate


@pytest.mark.parametrize(
    ("scaled", "words"),
    [
        ((1, 0, 1), "the teacher's is"),  # another power than the weights have
        ((0, 0, 1), "cannot be scaled"),  # the image
        ((3, 0, 1), "cannot be scaled"),  # the output
        ((1, 99, 1), "cannot be scaled"),
        ((1, -1, 1), "cannot be scaled"),
        ((1, 0, 0), "cannot be scaled"),
        ((1, 0, 65), "cannot be scaled"),
        ((7, 0, 1), "which there is not"),
    ],
)
def test_a_certificate_that_scales_what_is_not_scaled_is_refused(
    wide: PlainNet, scaled: tuple[int, int, int], words: str
) -> None:
    net = uncertified(wide)
    assert wide.certificate is not None
    (stage,) = wide.certificate.stages
    net.certificate = replace(wide.certificate, stages=(replace(stage, scaled=(scaled,)),))
    with pytest.raises(CertificateError, match=words):
        check_certificate(overflowing(), net, input_range=WIDE)


@pytest.mark.parametrize("level", [0, 1])
def test_channels_scaled_up_to_the_end_of_halves_are_refused(level: int) -> None:
    """By powers that probes and photographs that ship just allow, another photograph was infinite (26,520 values)."""
    teacher = overflowing(grow=0.1)
    net = compile_to_plain(teacher, input_range=WIDE)
    probes = probe_images(3, WIDE) | sample_middles(3, WIDE)
    peaks = measure_peaks(net, probes.values())
    powers = [torch.full((layer.out_channels,), -6) for layer in net]
    powers[level] = -(LARGEST / peaks[level]).log2().floor().long()
    powers[-1] = torch.zeros_like(powers[-1])
    scaled = scale_channels(net, powers).half()
    assert all(run_in_halves(scaled, x).isfinite().all() for x in probes.values())
    with pytest.raises(CertificateError, match=rf"layers.{level}: channel \d is stored as up to [\d,]+, too near"):
        check_certificate(teacher, scaled, input_range=WIDE)
    powers[level] += 3
    check_certificate(teacher, scale_channels(net, powers).half(), input_range=WIDE)


def test_a_shift_that_overflows_within_its_own_constant_is_refused() -> None:
    """t + C fits on probes and photographs, and C + C, of which the certificate speaks, does not."""
    net = compile_to_plain(overflowing(grow=0.1), input_range=WIDE).half()
    assert net.certificate is not None and find_narrow(net, probe_images(3, WIDE).values()) == ""
    (stage,) = net.certificate.stages
    shifted = replace(stage.levels[1][0], kind="shifted", constant=40_000.0)
    levels = (stage.levels[0], (shifted, *stage.levels[1][1:]), *stage.levels[2:])
    net.certificate = replace(net.certificate, stages=(replace(stage, levels=levels),))
    assert "is stored as up to 80,000, within its shift's C" in find_narrow(net, probe_images(3, WIDE).values())


def test_an_output_that_leaves_the_range_is_refused(tmp_path: Path) -> None:
    net = compile_to_plain(overflowing(end=1e4), input_range=WIDE)
    with pytest.raises(ExportError, match=r"layers\.2: channel \d+, the output, reaches [\d,]+, .*65,504.*float32"):
        export_onnx(net, tmp_path / "plain.onnx", dtype="float16")
    assert list(tmp_path.iterdir()) == []
    assert export_onnx(net, tmp_path / "plain.onnx").peaks == ()


def test_an_image_that_leaves_the_range_is_refused(tmp_path: Path) -> None:
    net = compile_to_plain(overflowing(grow=0.1), input_range=(0.0, 65535.0))
    with pytest.raises(ExportError, match=r"image has values up to 65535.*values from 0 to 1"):
        export_onnx(net, tmp_path / "plain.onnx", dtype="float16")


def test_a_shifted_value_is_not_scaled(tmp_path: Path) -> None:
    class Skip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.body = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            y: Tensor = x + self.body(x.relu())
            return y

    net = compile_to_plain(Skip().eval(), carry="shift", constant=65000.0, input_range=WIDE)
    with torch.no_grad():
        net.certificate = None
    assert fit_to_half(net, images(net))[1][0].scaled  # without a certificate nothing is known to be shifted
    net = compile_to_plain(Skip().eval(), carry="shift", constant=65600.0, input_range=WIDE)
    with pytest.raises(ExportError, match=r"layers\.0\.\w+: 65\d+.* is beyond float16|holds a shifted value"):
        export_onnx(net, tmp_path / "plain.onnx", dtype="float16")


def test_weights_too_large_for_halves_are_scaled_too(tmp_path: Path) -> None:
    net = uncertified(tiny())
    with torch.no_grad():
        net[0].weight[1] *= 1e6
        net[1].weight[:, 1] *= 1e-6
    report = export_onnx(net, tmp_path / "net.onnx", dtype="float16")
    assert report.peaks[0].scaled == 1
    x = torch.rand(1, 1, 6, 6) * 255
    with torch.no_grad():
        exact = net.double()(x.double())
    stored = run_in_halves(load_plain(tmp_path / "net.onnx"), x)
    assert float((stored.double() - exact).abs().max()) < 2e-3 * float(exact.abs().max())


def test_numbers_that_halves_do_not_hold_are_no_obstacle(tmp_path: Path) -> None:
    """1e-44 in float32 has no digits to spare for a smaller power of two; in float16 it is 0 in any case."""
    model = overflowing()
    with torch.no_grad():
        model.get_parameter("2.weight")[0, 0, 0, 0] = 1e-44
    export_onnx(compile_to_plain(model, input_range=WIDE), tmp_path / "plain.onnx", dtype="float16")
    check_certificate(model, tmp_path / "plain.onnx", input_range=WIDE)


def test_weights_that_would_lose_their_digits_are_refused(tmp_path: Path) -> None:
    """A bias of 1e9 in float16 is one of 1e9 / 2^18: beside it weights of 1e-3 are nothing."""
    net = uncertified(tiny())
    with torch.no_grad():
        net[0].weight[1] *= 1e-3
        net[0].bias[1] = 1e9
        net[1].weight[:, 1] *= 1e-9
    with pytest.raises(ExportError, match=r"layers\.0\.weight: has to be scaled so far down.*--dtype float32"):
        export_onnx(net, tmp_path / "net.onnx", dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_halves_cannot_be_scaled_where_digits_are_lost() -> None:
    net = uncertified(tiny()).half()
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = 7e-5
    with pytest.raises(ExportError, match=r"layers\.0: its weights, scaled by powers of two, leave the range"):
        scale_channels(net, [torch.full((5,), 4), torch.zeros(4, dtype=torch.int64)])


def test_peaks_are_those_of_the_unscaled_network() -> None:
    net = tiny()
    x = torch.rand(3, 1, 8, 8) * 255
    with torch.no_grad():
        hidden = net[0](x)
        expected = [hidden.amax((0, 2, 3)), F.pixel_unshuffle(net[1](hidden), 2).abs().amax((0, 2, 3))]
    for peak, want in zip(measure_peaks(net, [x[:1], x[1:]]), expected, strict=True):
        torch.testing.assert_close(peak.float(), want, rtol=1e-5, atol=0)


def test_digits_that_are_lost_below_the_normal_numbers_are_counted(tmp_path: Path) -> None:
    net = uncertified(tiny())
    with torch.no_grad():
        net[0].bias[:3] = torch.tensor([1e-9, 1.5e-7, 2.0**-20])  # flushed; coarse; small, and exact
    rounding = export_onnx(net, tmp_path / "net.onnx", dtype="float16").rounding
    assert (rounding.flushed, rounding.coarse) == (1, 2)


def test_photographs_are_in_the_networks_range() -> None:
    colour, grey = sample_middles(3, (-1.0, 1.0)), sample_middles(1, (0.0, 255.0))
    assert len(colour) == len(grey) == 5 and sample_middles(12) == {}
    assert all(x.shape == (1, 3, 48, 48) and -1 <= float(x.min()) < 0 < float(x.max()) <= 1 for x in colour.values())
    assert all(x.shape == (1, 1, 48, 48) and 16 <= float(x.min()) < float(x.max()) <= 235 for x in grey.values())


def test_a_prelu_makes_no_number_of_an_infinite_one(tmp_path: Path) -> None:
    """A ReLU unit far below -65,504: in the PReLU form 0 times that, where an engine computes node by node."""

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.unit = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
            self.tail = nn.Conv2d(3, 12, 3, padding=1)
            nn.init.constant_(self.unit.weight, -20.0)

        def forward(self, x: Tensor) -> Tensor:
            x = self.head(x)
            return F.pixel_shuffle(self.tail(x + self.unit(x).relu()), 2)

    torch.manual_seed(0)
    teacher = Skip().eval()
    nn.init.constant_(teacher.head.weight, 0.1)
    net = compile_to_plain(teacher, input_range=WIDE, activation="prelu")
    white = torch.full((1, 3, 9, 9), 255.0)
    assert run_in_halves(net, white).isnan().any()
    report = export_onnx(net, tmp_path / "plain.onnx", dtype="float16")
    assert any(peak.value > LARGEST and peak.scaled for peak in report.peaks)
    assert run_in_halves(load_plain(tmp_path / "plain.onnx"), white).isfinite().all()
