"""A plain network in float16: as it is computed there, and with its channels in float16's range.

float16 ends at 65,504.  What a layer stores beyond it is infinite, and the next layer makes NaN of that; ONNX Runtime's
CPU hides it, since it computes float16 files in float32.  ReLU is homogeneous, and so is PReLU: a channel may be stored
as 2^-k of what it is, if its column in the next layer is 2^k as large: in binary numbers no digit changes, and the
certificate says which channels hold how much less than they mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler.errors import ExportError
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.stored import find_proved_dtype, named_tensors, require_finite, round_to, sha256_in
from memsr_compiler.proof.certificate import Certificate, Stage
from memsr_compiler.torch_helpers import enlarge

LARGEST = float(torch.finfo(torch.float16).max)
HEADROOM = 8.0
"""Room that a scaled channel is given above the largest value measured: other images go higher."""

NOTHING = 2.0**-25
"""The largest number that float16 rounds to 0: whatever digits a smaller one has, none is stored."""

_MOST = 64  # powers of two that the certificate's checker allows


@dataclass(frozen=True)
class LayerPeak:
    """Largest magnitude that a layer makes of some images.

    value    of its channels, as the unscaled network computes them
    scaled   channels that are stored as a smaller power of two of what they are
    """

    value: float
    scaled: int = 0


def run_in_halves(net: PlainNet, images: Tensor) -> Tensor:
    """The network's output where halves are stored between layers: (N, C, H, W) -> float16.

    Sums are float32, as on a GPU's matrix units; what a convolution gives and what a PReLU makes of it are rounded to
    float16, to infinity beyond 65,504, of which a slope of 0 makes no number.
    """
    with torch.no_grad():
        y = run_layers_in_halves(net, images)
        if not net.info.image_skip:
            return y
        enlarged = enlarge(images.detach().cpu().half().float(), net.scale, net.info.image_skip)
        return (y.float() + enlarged.half().float()).half()


def run_layers_in_halves(net: PlainNet, images: Tensor) -> Tensor:
    """The last layer's output in float16, without an image that skips the layers."""
    with torch.no_grad():
        y = images.detach().cpu().half()
        for layer in net:
            y = _activate(layer, _convolve(layer, y.float(), torch.float16).half().float(), torch.float16).half()
            y = F.pixel_shuffle(y, layer.shuffle)
        return y


def _convolve(layer: PlainLayer, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Convolution in x's dtype, weights rounded to another before."""
    weight, bias, *_ = (t.detach().cpu().to(dtype).to(x.dtype) for t in layer.numbers())
    return F.conv2d(x, weight, bias, padding=layer.weight.shape[-1] // 2)


def _activate(layer: PlainLayer, y: Tensor, dtype: torch.dtype) -> Tensor:
    """The layer's activation in y's dtype, slopes rounded to another before."""
    _, _, *slope = (t.detach().cpu().to(dtype).to(y.dtype) for t in layer.numbers())
    if slope:
        return F.prelu(y, slope[0].flatten())
    return y.relu() if layer.relu else y


def measure_peaks(net: PlainNet, images: Iterable[Tensor]) -> list[Tensor]:
    """Largest magnitude of each channel of each layer, before its pixel shuffle, on images (N, C, H, W).

    Behind a ReLU; in front of a PReLU, which makes no number of an infinite one by a slope of 0.
    """
    peaks = [torch.zeros(layer.out_channels, dtype=torch.float64) for layer in net]
    with torch.no_grad():
        for x in images:
            y = x.detach().cpu().float()
            for peak, layer in zip(peaks, net, strict=True):
                before = _convolve(layer, y, layer.weight.dtype)
                y = _activate(layer, before, layer.weight.dtype)
                highest = y if layer.slope is None else before
                torch.maximum(peak, highest.abs().amax(dim=(0, 2, 3)).double(), out=peak)
                y = F.pixel_shuffle(y, layer.shuffle)
    return peaks


def fit_to_half(net: PlainNet, images: Mapping[str, Tensor]) -> tuple[PlainNet, tuple[LayerPeak, ...]]:
    """The same network with channels that leave float16's range scaled by powers of two, and each layer's peak.

    images   by name: what the largest values are measured on

    The network is returned as it is where nothing leaves the range.  Raises ExportError with layer and value where no
    power of two helps: the image, the output and what leaves a stage are not scaled, nor are carries by a shift.
    """
    for name, tensor in named_tensors(net):
        require_finite(name, tensor)
    low, high = net.info.input_range
    if max(abs(low), abs(high)) > LARGEST:
        raise ExportError(
            f"the image has values up to {max(abs(low), abs(high)):.6g}, and float16 ends at {LARGEST:,.0f}; use "
            "--dtype float32, or convert a network for values from 0 to 1"
        )
    peaks = measure_peaks(net, images.values())
    exponents = _choose_exponents(net, peaks)
    report = tuple(
        LayerPeak(float(p.nan_to_num(nan=math.inf).max()), int(k.count_nonzero()))
        for p, k in zip(peaks, exponents, strict=True)
    )
    if not any(peak.scaled for peak in report):
        return net, report
    scaled = scale_channels(net, exponents)
    for i, (layer, other) in enumerate(zip(net, scaled, strict=True)):
        _require_digits(i, layer, other)
    return scaled, report


def _require_digits(i: int, layer: PlainLayer, scaled: PlainLayer) -> None:
    """Raise ExportError where numbers so small that float16 has fewer digits for them lose what matters.

    They may lose as much as rounding takes from the largest weight of their row: so the certificate's checker has it.
    """
    info = torch.finfo(torch.float16)
    largest = layer.weight.detach().cpu().double().flatten(1).abs().amax(1).clamp_min(info.smallest_normal)
    for name in ("weight", "bias"):
        exact, kept = (getattr(x, name).detach().cpu().double() for x in (layer, scaled))
        factor = torch.where(exact == 0, 1.0, kept / exact)
        lost = torch.where(kept == 0, exact.abs(), (kept.half().double() / factor - exact).abs())
        allowed = info.eps / 2 * torch.maximum(exact.abs(), largest.reshape(-1, *[1] * (exact.ndim - 1)))
        if bool((lost > allowed).any()):
            raise ExportError(
                f"layers.{i}.{name}: has to be scaled so far down, for its values to stay within float16, that digits "
                "are lost; use --dtype float32"
            )


def _choose_exponents(net: PlainNet, peaks: Sequence[Tensor]) -> list[Tensor]:
    """For each layer's channels the k by which they are stored as 2^-k of what they are; 0 wherever that will do.

    Raises ExportError for a value that stays out of range.
    """
    fixed = list_fixed(net)
    exponents: list[Tensor] = []
    below = torch.zeros(net[0].in_channels, dtype=torch.int64)
    for i, (layer, peak) in enumerate(zip(net, peaks, strict=True)):
        if not bool(peak.isfinite().all()):
            raise ExportError(f"layers.{i}: reaches values beyond float32 already; use weights of another training")
        weight = layer.weight.detach().cpu().double() * _power(below)[:, None, None]
        bias = layer.bias.detach().cpu().double()
        rows = torch.maximum(weight.flatten(1).abs().amax(1), bias.abs())
        k = torch.maximum(_bits_beyond(peak * HEADROOM), _bits_beyond(rows))
        k[fixed[i]] = 0
        for name, tensor in (("weight", weight * _power(-k)[:, None, None, None]), ("bias", bias * _power(-k))):
            round_to(f"layers.{i}.{name}", tensor, "float16")  # raises where it is still too large
        out = peak * _power(-k) > LARGEST
        if bool(out.any()):
            channel = int((peak * out).argmax())
            raise ExportError(_say_out_of_range(net, i, channel, float(peak[channel])))
        if int(k.max()) > _MOST:
            raise ExportError(f"layers.{i}: reaches {float(peak.max()):.3g}, too much to scale; use --dtype float32")
        exponents.append(k)
        below = k if layer.shuffle == 1 else torch.zeros(layer.out_channels // layer.shuffle**2, dtype=torch.int64)
    return exponents


def find_narrow(net: PlainNet, images: Iterable[Tensor]) -> str:
    """Which channel has hardly any room left below float16's end, among those that could be scaled; "" for none.

    `fit_to_half` leaves each a factor of `HEADROOM` on the same images, so that photographs, which go higher, have room
    too.  Half of that is asked for here: stored numbers, rounded, give other peaks than exact ones.  What is shifted by
    C has room for all values within C, of which the certificate speaks.
    """
    stages = net.certificate.stages if net.certificate else ()
    for m in (m for stage in stages for level in stage.levels for m in level if 2 * m.constant > LARGEST):
        return f"{m.tensor}: is stored as up to {2 * m.constant:,.0f}, within its shift's C"
    for i, (peak, fixed) in enumerate(zip(measure_peaks(net, images), list_fixed(net), strict=True)):
        stored = torch.where(fixed, 0.0, peak)
        if not bool((stored * HEADROOM / 2 <= LARGEST).all()):
            return f"layers.{i}: channel {int(stored.argmax())} is stored as up to {float(stored.max()):,.0f}"
    return ""


def _bits_beyond(values: Tensor) -> Tensor:
    """Powers of two by which values are beyond float16; 0 for those that are not."""
    return (values / LARGEST).clamp_min(1).log2().ceil().long()


def _power(exponents: Tensor) -> Tensor:
    return torch.ldexp(torch.ones(len(exponents), dtype=torch.float64), exponents)


def list_fixed(net: PlainNet) -> list[Tensor]:
    """For each layer the channels (C_out,) that cannot be scaled."""
    last = len(net.layers) - 1
    fixed = [torch.full((layer.out_channels,), i == last or layer.shuffle > 1) for i, layer in enumerate(net)]
    levels = [level for stage in net.certificate.stages for level in stage.levels[1:]] if net.certificate else []
    for channels, level in zip(fixed, levels, strict=False):
        for m in level:
            if m.kind in ("one", "shifted"):
                channels[[p for p in m.positions if p >= 0]] = True
    return fixed


def _say_out_of_range(net: PlainNet, i: int, channel: int, peak: float) -> str:
    layer = net[i]
    if i < len(net.layers) - 1 and layer.shuffle == 1:
        what, way_out = "which holds a shifted value", "use --carry auto, a smaller --constant, or --dtype float32"
    else:
        what = "the output" if i == len(net.layers) - 1 else "which a pixel shuffle follows"
        way_out = "use --dtype float32, or a network whose output is in the range of its image"
    return (
        f"layers.{i}: channel {channel}, {what}, reaches {peak:,.0f}, and float16 ends at {LARGEST:,.0f}; no power of "
        f"two helps there; {way_out}"
    )


def scale_channels(net: PlainNet, exponents: Sequence[Tensor]) -> PlainNet:
    """The network with channels stored as 2^-k of what they are, and its certificate, which says so.

    exponents   for each layer the k (C_out,) of its channels; 0 where the resolution rises, and at the end

    Raises ExportError where a weight would leave the range of its dtype, so that digits were lost which float16 has.
    """
    layers = []
    below = torch.zeros(net[0].in_channels, dtype=torch.int64)
    for i, (layer, k) in enumerate(zip(net, exponents, strict=True)):
        rows, columns = _power(-k), _power(below)[:, None, None]
        factors = (rows[:, None, None, None] * columns, rows)
        tensors = [t.detach().cpu() for t in (layer.weight, layer.bias)]
        scaled = [(t.double() * factor).to(t.dtype) for t, factor in zip(tensors, factors, strict=True)]
        undone = [t.double() / factor for t, factor in zip(scaled, factors, strict=True)]
        lost = [(a != b.double()) & (c.abs() > NOTHING) for a, b, c in zip(undone, tensors, scaled, strict=True)]
        if any(bool(digits.any()) for digits in lost):
            raise ExportError(
                f"layers.{i}: its weights, scaled by powers of two, leave the range of {layer.weight.dtype}; use "
                "--dtype float32"
            )
        layers.append(PlainLayer(*scaled, relu=layer.relu, shuffle=layer.shuffle, slope=layer.slope))
        below = k if layer.shuffle == 1 else torch.zeros(layer.out_channels // layer.shuffle**2, dtype=torch.int64)
    result = PlainNet(layers, net.info, report=net.report).eval()
    result.certificate = _restate(net, result, exponents)
    return result


def _restate(net: PlainNet, scaled: PlainNet, exponents: Sequence[Tensor]) -> Certificate | None:
    """The certificate of the network, for the scaled one."""
    proved = find_proved_dtype(net)
    if net.certificate is None or proved is None:  # which is refused where it is stored
        return net.certificate
    stages: list[Stage] = []
    layer = 0
    for stage in net.certificate.stages:
        entries = {(level, channel): k for level, channel, k in stage.scaled}
        for level in range(1, len(stage.levels)):
            for channel in exponents[layer].nonzero()[:, 0].tolist():
                k = entries.get((level, channel), 0) + int(exponents[layer][channel])
                entries[level, channel] = k
            layer += 1
        kept = tuple((level, channel, k) for (level, channel), k in sorted(entries.items()) if k)
        stages.append(replace(stage, scaled=kept))
    return replace(net.certificate, plain_sha256=sha256_in(scaled, proved), stages=tuple(stages))
