"""memsrc verify: is this plain network this teacher?"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from memsr_compiler.arithmetic import name_arithmetic
from memsr_compiler.commands.given.teachers import read
from memsr_compiler.commands.interface.command import OnlyApproximate
from memsr_compiler.commands.interface.options import TeacherOptions, VerifyOptions
from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.commands.results.approximation import replacement_data
from memsr_compiler.commands.results.deviations import measure_teacher, tell_far
from memsr_compiler.errors import CertificateError
from memsr_compiler.lowering.equivalence import (
    Equivalence,
    Network,
    allowed_deviation,
    badness,
    check_equivalence,
    find_broken_shift,
)
from memsr_compiler.lowering.verify import check_certificate
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.probes import probe_images, sample_middles
from memsr_compiler.proof.guarantee import count_replacements
from memsr_compiler.quantities import say_count
from memsr_compiler.runtime.float16 import open_float16
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.teachers.teacher import Range
from memsr_compiler.torch_helpers import InFloat64, copy_module, put, torch_device
from memsr_compiler.trace.approximate.freeze import psnr_between

PHOTOGRAPHS = 4  # on which an approximation is run beside its teacher


def run(teacher_options: TeacherOptions, options: VerifyOptions, talk: Talk) -> None:
    """Check the certificate, then run both.

    Raises CertificateError or NotEquivalent if it is not the teacher, OnlyApproximate if it says so itself, and is
    what it says.
    """
    plain, place = options.plain, torch_device(options.device)
    net = load_plain(plain)
    teacher, input_range = read(teacher_options, talk)
    _require_range(net, plain, input_range)
    probes = probe_images(net.info.channels, input_range)
    if net[0].weight.dtype == torch.float16:  # large values are found on photographs
        probes |= sample_middles(net.info.channels, input_range)
    inputs = probes | _photographs(options.images, net, input_range)
    with talk.progress() as step:
        step("checking the certificate")
        try:
            certified = check_certificate(teacher, net, input_range=input_range)
        except CertificateError as error:
            raise CertificateError(
                f"{plain}: {error}; {_how_far(teacher.module, net, plain, inputs, input_range, place)}"
            ) from None
        step("running both")
        model = teacher.module if certified.frozen is None else certified.frozen
        result = measure(model, net, plain, inputs, input_range, place)
        own = measure_teacher(model, {name: x[:2] for name, x in probes.items()}, input_range, place)
        psnr = None if certified.frozen is None else _psnr_to_teacher(teacher.module, certified.frozen, _takes(net))
    talk.json(
        {
            "equivalent": result.equivalent and not certified.replaced,
            "approximation": {"replaced": replacement_data(certified.replaced), "psnr": psnr} if psnr else None,
            "certificate": "valid",
            "largest_rounding_in_half_ulps": certified.rounding,
            "guarantee": net.info.guarantee,
            "teacher_in_float32": own.value,
            **asdict(result),
        }
    )
    tell_far([own], input_range, talk.warn)
    talk.say(f"certificate  valid: {net.info.guarantee}; weights are the exact ones, rounded")
    of = "frozen network: " if certified.replaced else ""
    talk.say(f"measured     {of}{result} ({say_count(len(inputs), 'input')})")
    result.require()
    if psnr is None:
        talk.say("equivalent")
        return
    replaced = count_replacements(certified.replaced)
    talk.say(f"replaced     {', '.join(r.name for r in certified.replaced)}")
    talk.say(f"to teacher   {psnr:.2f} dB on photographs")
    raise OnlyApproximate(
        f"{plain}: is an approximation of the teacher, not its equivalent: {replaced} replaced, as its certificate "
        f"says; {psnr:.2f} dB to the teacher on photographs"
    )


def _require_range(net: PlainNet, path: Path, input_range: Range) -> None:
    """Raises CertificateError where a plain network is for other values than its teacher is read to take.

    What the file says is not believed: how far it may be off is measured in parts of the range.
    """
    if net.info.input_range != input_range:
        (low, high), (own_low, own_high) = net.info.input_range, input_range
        raise CertificateError(
            f"{path}: is for images of {low:g} to {high:g}, and the teacher takes {own_low:g} to {own_high:g}; convert "
            f"again, or say --input-range {low:g} {high:g} if that is known to be right"
        )


def _takes(net: PlainNet) -> Takes:
    return Takes(net.info.scale, net.info.channels, net.info.input_range)


def _psnr_to_teacher(model: torch.nn.Module, frozen: torch.nn.Module, takes: Takes) -> float:
    """PSNR of the frozen network to its teacher, on some of the photographs that ship."""
    images = sample_inputs(scale=takes.scale, channels=takes.channels, input_range=takes.input_range)[:PHOTOGRAPHS]
    return psnr_between(frozen, model, images, takes.input_range)


def _how_far(
    model: torch.nn.Module,
    net: PlainNet,
    path: Path,
    inputs: dict[str, Tensor],
    input_range: tuple[float, float],
    place: torch.device,
) -> str:
    """The difference that running both shows, if both can be run on the same images."""
    try:
        return str(measure(model, net, path, inputs, input_range, place))
    except Exception:  # the teacher is somebody else's code, and need not fit these inputs
        return "the two cannot be run on the same images"


def measure(
    model: torch.nn.Module,
    net: PlainNet,
    path: Path,
    inputs: dict[str, Tensor],
    input_range: tuple[float, float],
    place: torch.device,
) -> Equivalence:
    """Compare the file, in its own runtime and precision, with the teacher in float64 at some place.

    A float16 network runs on a GPU, or with halves stored between layers: see `open_float16`.
    """
    exact = put(copy_module(model, torch.float64), place)
    dtype = net[0].weight.dtype

    def teacher(x: Tensor) -> Tensor:
        with InFloat64():
            y: Tensor = exact(x.double().to(place))
        return y.cpu()

    def plain(x: Tensor) -> Tensor:
        y: Tensor = net(x.to(dtype))
        return y

    network: Network = plain
    arithmetic = name_arithmetic(str(dtype).removeprefix("torch."), "torch")
    if dtype == torch.float16:
        half = open_float16(path if path.suffix.lower() == ".onnx" else None, net)
        network, arithmetic = half, half.arithmetic
    elif path.suffix.lower() == ".onnx":
        from memsr_compiler.runtime.runners import OrtNetwork

        ort = OrtNetwork(path)
        network, arithmetic = ort, ort.arithmetic
    results = []
    for name, images in inputs.items():  # each by its own values: where they are large, more is allowed
        result = check_equivalence(teacher, network, images={name: images}, tolerance=math.inf)
        bound = allowed_deviation(result.peak, dtype, input_range, net)
        results.append(replace(result, bound=bound, arithmetic=arithmetic))
    result = max(results, key=badness)
    return result if result.equivalent else replace(result, beyond=find_broken_shift(inputs[result.input], net))


def _photographs(folder: Path | None, net: PlainNet, input_range: tuple[float, float]) -> dict[str, Tensor]:
    if folder is None:
        return {}
    from memsr_compiler.images.files import read_images
    from memsr_compiler.images.tensors import image_tensors

    tensors = image_tensors(read_images(folder), channels=net.info.channels, input_range=input_range)
    return {f"{folder} image {i}": x for i, x in enumerate(tensors)}
