"""Deviation of a plain network that is about to be written from its teacher, and whether it will do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from memsr_compiler.arithmetic import FULL_FLOAT32, name_arithmetic
from memsr_compiler.commands.interface.options import ConvertOptions
from memsr_compiler.errors import ExportError, MemsrError
from memsr_compiler.lowering.equivalence import Equivalence, check_equivalence, most_accepted, rounding_bound
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.probes import probe_images, sample_middles
from memsr_compiler.runtime.float16 import open_float16
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.torch_helpers import InFloat64, compiling_nothing, copy_module, full_float32, put, torch_device

Range = tuple[float, float]

TEACHER = "teacher in float32"


@dataclass(frozen=True)
class Deviation:
    """Largest difference of a network from the teacher in float64, on probes; in float16 on photographs too.

    name        the network, and what it is computed in
    explained   what rounding explains;   accepted   what a person accepts
    input       where the difference is largest;   arithmetic   engine and precision, in words
    """

    name: str
    value: float
    explained: float
    accepted: float
    input: str
    arithmetic: str

    @property
    def allowed(self) -> float:
        """The most with which it is called equivalent: rounding explains it, and a person accepts it."""
        return min(self.explained, self.accepted)


@dataclass(frozen=True)
class _Candidate:
    name: str
    run: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    arithmetic: str
    counted: nn.Module  # its terms, constants and dtype say what rounding explains


@compiling_nothing()
def measure_deviations(
    model: nn.Module,
    net: PlainNet,
    out: Path,
    staged: Path | None,
    options: ConvertOptions,
    input_range: Range,
    warn: Callable[[str], None],
) -> list[Deviation]:
    """Deviations of the teacher itself in float32, of the network, and of its file, if it is an ONNX model.

    net      whose weights, rounded to the file's dtype, are in the file
    staged   the ONNX model where it lies until it gets its name; None for a file of another kind
    """
    place = torch_device(options.device)
    half = net[0].weight.dtype == torch.float16 or (staged is not None and options.dtype == "float16")
    images = {name: x[:2] for name, x in probe_images(net.info.channels, input_range).items()}
    if half:
        images |= sample_middles(net.info.channels, input_range)
    known = _run_exactly(model, images, place)
    candidates = [_in_torch(TEACHER, model, place), _in_torch("plain in float32", net, place)]
    if half:
        runner = open_float16(staged, net)
        candidates.append(_Candidate(f"{out.name} (float16)", runner, torch.float16, runner.arithmetic, net))
    elif staged is None and net[0].weight.dtype == torch.float64:
        candidates.append(_in_torch(f"{out.name} (float64)", net, place, torch.float64))
    elif staged is not None:
        try:
            ort = OrtNetwork(staged)
            name = f"{out.name} in ONNX Runtime ({options.dtype})"
            candidates.append(_Candidate(name, ort, torch.float32, ort.arithmetic, net))
        except MemsrError as error:
            warn(f"{out.name} was not run: {error}")
    with full_float32(place):
        return [_measure(candidate, images, known, input_range) for candidate in candidates]


@compiling_nothing()
def measure_teacher(
    model: nn.Module, images: Mapping[str, Tensor], input_range: Range, place: torch.device
) -> Deviation:
    """A teacher in float32 against itself in float64: large where it rounds, and no plain network does."""
    known = _run_exactly(model, images, place)
    with torch.no_grad(), full_float32(place):
        return _measure(_in_torch(TEACHER, model, place), images, known, input_range)


def _run_exactly(model: nn.Module, images: Mapping[str, Tensor], place: torch.device) -> dict[str, Tensor]:
    exact = put(copy_module(model, torch.float64), place)
    with torch.no_grad(), InFloat64():
        return {name: exact(x.to(place, copy=True)).cpu() for name, x in images.items()}


def tell_far(measured: Iterable[Deviation], input_range: Range, warn: Callable[[str], None]) -> None:
    """Warn of deviations that 8-bit images show."""
    half = (input_range[1] - input_range[0]) / 510
    for deviation in measured:
        if not deviation.value <= half:
            warn(
                f"{deviation.name} deviates by {deviation.value:.2e}, over half a grey level ({half:.2e}); see "
                "docs/results/exactness.md"
            )


def _in_torch(name: str, network: nn.Module, place: torch.device, dtype: torch.dtype = torch.float32) -> _Candidate:
    module = put(copy_module(network, dtype), place)
    words = name_arithmetic(FULL_FLOAT32 if dtype == torch.float32 else "float64", "torch", place.type)
    return _Candidate(name, lambda x: module(x.to(place, dtype)).cpu(), dtype, words, network)


def _measure(
    candidate: _Candidate, images: Mapping[str, Tensor], known: Mapping[str, Tensor], input_range: Range
) -> Deviation:
    """The deviation on the image where it is largest for what is accepted there: large values excuse no other image."""
    results = [_compare(known[name], candidate.run, name, x) for name, x in images.items()]
    worst = max(results, key=lambda result: result.deviation / most_accepted(result.peak, candidate.dtype, input_range))
    return Deviation(
        candidate.name,
        worst.deviation,
        rounding_bound(worst.peak, candidate.dtype, candidate.counted),
        most_accepted(worst.peak, candidate.dtype, input_range),
        worst.input,
        candidate.arithmetic,
    )


def _compare(expected: Tensor, network: Callable[[Tensor], Tensor], name: str, x: Tensor) -> Equivalence:
    return check_equivalence(lambda _: expected, network, images={name: x}, tolerance=math.inf)


def require_accepted(measured: Iterable[Deviation], net: PlainNet, out: Path, input_range: Range) -> None:
    """Raises ExportError with cause and way out if what is to be written deviates by more than a person accepts.

    That is half a grey level, two in float16 (`most_accepted`); or twice what the teacher itself loses in float32.
    """
    own, *_, written = measured
    allowed = max(written.accepted, 2 * own.value if math.isfinite(own.value) else 0.0)
    if written.value <= allowed:
        return
    low, high = input_range
    levels = f"{written.value / (high - low) * 255:,.1f} of 255 grey levels"
    raise ExportError(
        f"{out}: is not written. It deviates from the teacher by {written.value:.3g}, {levels}, on {written.input} "
        f"({written.arithmetic}), and {allowed:.3g} is accepted: {_say_why(written, net, own, allowed)}"
    )


def _say_why(written: Deviation, net: PlainNet, own: Deviation, allowed: float) -> str:
    """Cause and way out."""
    half = written.name.endswith("(float16)")
    constant = net.largest_shift
    if constant:
        dtype = torch.float16 if half else torch.float32
        step = torch.finfo(dtype).eps * constant
        smaller = f" of {constant * allowed / written.value / 2:.1g} or less" if math.isfinite(written.value) else ""
        return (
            f"beside the shift's C = {constant:g} values have steps of up to {step:.2g}. Take a smaller --constant"
            f"{smaller}, have it measured with --calibration, or use --carry split, which needs none"
            + ("; or --dtype float32" if half else "")
        )
    if half and not math.isfinite(written.value):
        return "a value is beyond 65,504, where float16 ends. Use --dtype float32"
    if half:
        return "float16 has 11 binary digits, and this network needs more. Use --dtype float32"
    if not math.isfinite(own.value):
        return (
            "in float32 the teacher's own values are infinite or no numbers. Check its --input-range, and that its "
            "weights are those of a trained network"
        )
    largest = max(float(layer.bias.detach().abs().max()) for layer in net)
    if torch.finfo(torch.float32).eps * largest > allowed / 4:
        return (
            f"beside a constant of {largest:.6g}, such as the bound of a clamp that no value reaches, values have "
            f"steps of up to {torch.finfo(torch.float32).eps * largest:.2g}. Take the clamp out of the network"
        )
    return (
        f"the teacher itself deviates by {own.value:.3g}, and the plain network should be no worse. Use --carry split, "
        "and please report this"
    )
