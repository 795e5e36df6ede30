"""A plain network is its teacher, by its certificate: the check that `memsrc verify` does before it runs both."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import get_args

import torch
from torch import nn

from memsr_compiler import ir
from memsr_compiler.analysis.schedule import Carrying
from memsr_compiler.errors import CertificateError, first_line
from memsr_compiler.ir.approximation import Replacement
from memsr_compiler.ir.validate import receptive_field
from memsr_compiler.lowering.equivalence import find_broken_shift, most_accepted
from memsr_compiler.lowering.image_aside import set_image_aside
from memsr_compiler.lowering.shift_losses import (
    Probed,
    gather_images,
    measure_losses,
    measure_running,
    measure_stored,
    run_teacher,
    worst_shift_loss,
)
from memsr_compiler.plain.halves import LARGEST, find_narrow
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.manifest import REPEATED
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.probes import probe_images, sample_middles
from memsr_compiler.proof import checker
from memsr_compiler.proof.certificate import Certificate
from memsr_compiler.proof.checker import Checked
from memsr_compiler.proof.guarantee import Carried, list_carried, state_guarantee
from memsr_compiler.teachers.teacher import Range, Teacher, TeacherLike, as_teacher
from memsr_compiler.torch_helpers import one_thread
from memsr_compiler.trace.approximate.freeze import rebuild
from memsr_compiler.trace.trace import GraphModule, Traced, trace


@dataclass(frozen=True)
class CertificateCheck:
    """Statement of a valid certificate.

    guarantee    for which inputs the plain network is the teacher, in words
    input_range  of these inputs' values
    carried      every tensor that passes ReLUs on its way to a later layer
    rounding     largest rounding of a weight, in half units of its last place: at most about 1
    frozen       the network of which it is the equivalent where that is an approximation of the teacher, else None
    replaced     what of the teacher it replaces
    """

    guarantee: str
    input_range: Range
    carried: tuple[Carried, ...]
    rounding: float
    frozen: GraphModule | None = None
    replaced: tuple[Replacement, ...] = ()


@one_thread()
def check_certificate(
    teacher: TeacherLike, plain: PlainNet | str | PathLike[str], *, input_range: Range | None = None
) -> CertificateCheck:
    """Check, by its certificate, that a plain network is this teacher.  No compiler is believed.

    Both are run, in float64 and on small images, only to refuse what rounding of the stored numbers has made useless.

    Where the certificate says that it is of an approximation, what is checked is the teacher with the replacements that
    it names, and `replaced` of the result tells them: it is then not the teacher.

    teacher      what `read_teacher` gives, a module, or a file's path
    plain        the network, or its file
    input_range  of the teacher's values; None: the plain network's, unless the teacher's own is known

    Raises CertificateError where the network has no certificate, is for another range than the teacher's own, or the
    proof does not go through; InvalidInput for files that cannot be read, and UnsupportedModel for a teacher that no
    plain network can express.
    """
    net = plain if isinstance(plain, PlainNet) else load_plain(plain)
    source = as_teacher(teacher, input_range=input_range or net.info.input_range)
    try:
        if input_range is None:
            _require_range(teacher, source, net)
        traced = _read(source, net)
        return _check(set_image_aside(traced) if net.info.image_skip == REPEATED else traced, net, source.input_range)
    except CertificateError as error:
        raise CertificateError(str(error) if isinstance(plain, PlainNet) else f"{plain}: {error}") from None


def _read(teacher: Teacher, net: PlainNet) -> Traced:
    """Read the teacher; with the replacements that the certificate names, where it is of an approximation."""
    if net.certificate is None or not net.certificate.approximation:
        return trace(teacher.module, input_range=teacher.input_range)
    return rebuild(teacher.module, net.certificate.approximation, input_range=teacher.input_range)


def _require_range(given: TeacherLike, source: Teacher, net: PlainNet) -> None:
    """Raises CertificateError where the teacher's own range is known, and the plain network is for another."""
    own = source.stated_range
    if own is None and isinstance(given, Teacher) and not given.range_is_assumed:
        own = given.input_range
    if own is not None and own != net.info.input_range:
        low, high = net.info.input_range
        raise CertificateError(
            f"is for images of {low:g} to {high:g}, and the teacher takes {own[0]:g} to {own[1]:g}; convert again, or "
            f"say --input-range {low:g} {high:g} if that is known to be right"
        )


def _check(teacher: Traced, net: PlainNet, input_range: Range) -> CertificateCheck:
    certificate = _certificate_for(net, teacher.graph)
    _require_own_layers(net)
    try:
        tensors = tuple(list_carried(certificate, teacher.graph, [layer.slopes for layer in net.checkable()]))
    except (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise CertificateError(f"the certificate is malformed ({type(error).__name__}: {first_line(error)})") from error
    replaced = certificate.approximation
    _require_facts(net, teacher, input_range, state_guarantee(tensors, replaced))
    probed = Probed(teacher.graph)
    checked = checker.check(teacher.graph, net.checkable(), certificate, probed.reach)
    loss = worst_shift_loss(probed, checked.losses, _say_cause(checked))
    if loss is not None and loss.too_much:
        raise CertificateError(f"{loss}; {_say_way_out(checked, certificate)}")
    _require_small(probed, checked, net)
    _require_room(net)
    _require_near(probed, checked, net)
    frozen = GraphModule(teacher.graph, teacher.image_skip) if replaced else None
    return CertificateCheck(net.info.guarantee, input_range, tensors, checked.rounding, frozen, replaced)


def _require_own_layers(net: PlainNet) -> None:
    """Raises CertificateError for a module that was made to do something else than its numbers say."""
    for name, module in net.named_modules():
        hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        other = isinstance(module, PlainLayer) and not module.is_plain
        if hooked or other or type(module) not in (PlainNet, PlainLayer, nn.ModuleList):
            raise CertificateError(
                f"{name or 'the network'} has been changed since it was made (a hook, a stride, a padding, a class of "
                "its own): its certificate speaks of its numbers alone; take that off"
            )


def _require_small(probed: Probed, checked: Checked, net: PlainNet) -> None:
    """Raises CertificateError where what channels lose, small or not for their tensors, is too much for the output."""
    if not checked.by_channel:
        return
    assert net.certificate is not None, "it has been looked at"
    for off, peak in measure_losses(probed, checked.by_channel):
        accepted = most_accepted(peak, net[0].weight.dtype, net.info.input_range)
        if not off <= accepted:
            raise CertificateError(
                f"{_say_cause(checked)} moves the output by up to {off:.3g}, and {accepted:.3g} is accepted; "
                f"{_say_way_out(checked, net.certificate)}"
            )


def _require_near(probed: Probed, checked: Checked, net: PlainNet) -> None:
    """Raises CertificateError where the stored numbers, each the exact one rounded, are too far off all together.

    Run exactly, and then as they are run: numbers without any loss may leave no digits of what is added to them.
    """
    assert net.certificate is not None, "it has been looked at"
    dtype = net[0].weight.dtype
    images = gather_images(probed, net)
    exact = run_teacher(probed, images)
    for cause, measure in (
        ("its stored numbers alone take it", measure_stored),
        (f"running it in {str(dtype).removeprefix('torch.')} takes it", measure_running),
    ):
        for off, peak in measure(net, images, exact):
            accepted = most_accepted(peak, dtype, net.info.input_range)
            if not off <= accepted:
                beyond = next(filter(None, (find_broken_shift(x, net) for x in probed.images.values())), "")
                raise CertificateError(
                    f"{cause} {off:.3g} off the teacher on an image, and {accepted:.3g} is accepted; "
                    f"{beyond or _say_way_out(checked, net.certificate)}"
                )


def _require_room(net: PlainNet) -> None:
    """Raises CertificateError where values in float16 go so high that those of another photograph may be infinite."""
    if net[0].weight.dtype != torch.float16:
        return
    channels, input_range = net.info.channels, net.info.input_range
    narrow = find_narrow(net, (probe_images(channels, input_range) | sample_middles(channels, input_range)).values())
    if narrow:
        raise CertificateError(f"{narrow}, too near to {LARGEST:,.0f}, where float16 ends; convert again")


def _say_cause(checked: Checked) -> str:
    if checked.constants:
        return "rounding the constants of shifts"
    return "keeping fewer digits, of numbers too small for their dtype or of large ones that cancel,"


def _say_way_out(checked: Checked, certificate: Certificate) -> str:
    if not checked.constants:
        return "convert again in a wider dtype, or scale the teacher's weights so that they are neither small nor large"
    if certificate.shifts:
        return "convert again with smaller constants, in a wider dtype, or with --carry auto"
    return "a clamp has bounds, or the teacher a constant, far beyond its values: take them out, or use a wider dtype"


def _certificate_for(net: PlainNet, teacher: ir.Graph) -> Certificate:
    if net.certificate is None:
        raise CertificateError(
            "has no certificate: a student, which approximates its teacher (eval tells how well), or a network that "
            "was trained on; nothing ties it to a teacher"
        )
    if net.certificate.teacher_sha256 != teacher.sha256():
        raise CertificateError(
            "its certificate is for another teacher, or another --input-range "
            f"({net.certificate.teacher_sha256[:12]}, this one is {teacher.sha256()[:12]}); convert this teacher"
        )
    return net.certificate


def _require_facts(net: PlainNet, teacher: Traced, input_range: Range, proved: str) -> None:
    """Raises CertificateError unless what the network says of itself is true of this teacher."""
    assert net.certificate is not None, "it has been looked at"
    skip = teacher.image_skip
    carry = "shift" if net.certificate.shifts else net.info.carry if net.info.carry in get_args(Carrying) else "auto"
    facts = {
        "scale": (net.info.scale, teacher.graph.scale),
        "channels": (net.info.channels, teacher.graph.input.channels),
        "image skip": (net.info.image_skip, skip.mode if skip else ""),
        "factor of the image skip": (net.info.scale if skip else 0, skip.factor if skip else 0),
        "input range": (net.info.input_range, input_range),
        "guarantee": (net.info.guarantee, proved),
        "carry": (net.info.carry, carry),
        "receptive field": (net.info.receptive_field, receptive_field(teacher.graph)),
        "teacher's SHA-256": (net.info.teacher_sha256, net.certificate.teacher_sha256),
    }
    for name, (said, true) in facts.items():
        if said != true:
            raise CertificateError(f"says its {name} is '{said}', and it is '{true}'; convert again")
