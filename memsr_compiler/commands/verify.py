"""memsrc verify: is this plain network this teacher?"""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from memsr_compiler import checker
from memsr_compiler.commands.console import Talk
from memsr_compiler.commands.teachers import TeacherOptions, read
from memsr_compiler.equivalence import Equivalence, Network, check_equivalence, probe_images, rounding_bound
from memsr_compiler.errors import CertificateError
from memsr_compiler.plain import PlainNet
from memsr_compiler.storage import load_plain
from memsr_compiler.trace import trace


def run(options: TeacherOptions, plain: Path, images: Path | None, talk: Talk) -> None:
    """Check the certificate, then run both.  Raises CertificateError or NotEquivalent if it is not the teacher."""
    net = load_plain(plain)
    if options.input_range is None:
        options = TeacherOptions(**{**options.__dict__, "input_range": net.info.input_range})
    teacher, input_range = read(options, talk)
    with talk.progress() as step:
        step("checking the certificate")
        rounding = prove(teacher.module, net, input_range, plain)
        step("running both")
        inputs = probe_images(net.info.channels, input_range) | _photographs(images, net, input_range)
        result = measure(teacher.module, net, plain, inputs)
    talk.json(
        {
            "equivalent": result.equivalent,
            "certificate": "valid",
            "largest_rounding_in_half_ulps": rounding,
            "guarantee": net.info.guarantee,
            **asdict(result),
        }
    )
    talk.say(f"certificate  valid: {net.info.guarantee}; weights are the exact ones, rounded")
    talk.say(f"measured     {result} ({len(inputs)} inputs)")
    result.require()
    talk.say("equivalent")


def prove(model: torch.nn.Module, net: PlainNet, input_range: tuple[float, float], path: Path) -> float:
    """Check the certificate against the teacher as it is read now.  Returns the largest rounding, in half ulps."""
    if net.certificate is None:
        raise CertificateError(f"{path}: has no certificate (fine-tuned?); compare outputs with memsrc eval instead")
    graph = trace(model, input_range=input_range).graph
    if net.certificate.teacher_sha256 != graph.sha256():
        raise CertificateError(
            f"{path}: its certificate is for another teacher ({net.certificate.teacher_sha256[:12]}, this one is "
            f"{graph.sha256()[:12]}); convert this teacher"
        )
    half_ulp = torch.finfo(net[0].weight.dtype).eps / 2
    return checker.check(graph, net.checkable(), net.certificate) / half_ulp


def measure(model: torch.nn.Module, net: PlainNet, path: Path, inputs: dict[str, Tensor]) -> Equivalence:
    """The file in its own runtime and precision, against the teacher in float64."""
    exact = copy.deepcopy(model).double()

    def teacher(x: Tensor) -> Tensor:
        y: Tensor = exact(x.double())
        return y

    def plain(x: Tensor) -> Tensor:
        y: Tensor = net(x.to(net[0].weight.dtype))
        return y

    network: Network = plain
    if path.suffix == ".onnx":
        from memsr_compiler.runtime import OrtNetwork

        network = OrtNetwork(path)
    loose = check_equivalence(teacher, network, images=inputs, tolerance=float("inf"))
    magnitude = max([loose.peak, *(net.certificate.shifts.values() if net.certificate else ())])
    bound = rounding_bound(magnitude, net[0].weight.dtype, net)
    return check_equivalence(teacher, network, images=inputs, tolerance=bound)


def _photographs(folder: Path | None, net: PlainNet, input_range: tuple[float, float]) -> dict[str, Tensor]:
    if folder is None:
        return {}
    from memsr_compiler.images import read_images, to_tensor

    low, high = input_range
    found = {}
    for i, image in enumerate(read_images(folder)):
        x = to_tensor(image).double() * (high - low) + low
        found[f"{folder} image {i}"] = x.mean(1, keepdim=True) if net.info.channels == 1 else x
    return found
