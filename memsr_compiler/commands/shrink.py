"""memsrc shrink: a teacher in, a much narrower plain network out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memsr_compiler.arithmetic import name_arithmetic
from memsr_compiler.commands.given.default_files import HERE, find_plain_network, name_beside
from memsr_compiler.commands.given.material import read_material
from memsr_compiler.commands.interface.check_outputs import check_outputs, write_page
from memsr_compiler.commands.interface.options import ShrinkOptions, TeacherOptions
from memsr_compiler.commands.interface.output import Talk, finite, is_first, silence_others, widths_text
from memsr_compiler.commands.results.approximation import frozen_data, tell_frozen
from memsr_compiler.commands.results.pictures import PICTURES, Images, draw_pictures
from memsr_compiler.commands.students.common import (
    Source,
    cost_cells,
    cost_data,
    derive,
    read_source,
)
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.evaluation.image_sets import ImageSet, TestImage
from memsr_compiler.evaluation.scores import enlarge, enlarge_bicubic, mean_psnr
from memsr_compiler.images.files import to_uint8
from memsr_compiler.ir import names
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.quantities import say_count
from memsr_compiler.reports.student import Row, report_student
from memsr_compiler.reports.text import format_decibels
from memsr_compiler.runtime.runners import Provider, TorchNetwork
from memsr_compiler.runtime.timing import make_timer
from memsr_compiler.student.report import LayerShrunk, LevelsKept, ShrinkReport
from memsr_compiler.student.statistics.distributed import join_processes
from memsr_compiler.tflite.write import import_schema
from memsr_compiler.torch_helpers import copy_module, torch_device

BUILT = 256 << 20  # bytes of weights; a plain network with more is not built for the report's pictures


def run(teacher_options: TeacherOptions, options: ShrinkOptions, talk: Talk) -> None:
    """Read a teacher, derive a student, score and write it; of several processes all derive, the first writes."""
    talk = silence_others(talk)
    torch_device(options.device)  # raises where it is not to be had
    if teacher_options.teacher == HERE:
        teacher_options = replace(teacher_options, teacher=find_plain_network())
        talk.say(f"{teacher_options.teacher}: the only plain network in this folder")
    out = options.out or name_beside(teacher_options.teacher, ".student.onnx")
    if out.suffix not in (".onnx", ".safetensors", ".tflite"):
        raise InvalidInput(f"{out}: a student is written as .onnx, .safetensors or .tflite; name it so")
    if out.suffix == ".tflite":
        import_schema()  # raises now, not after the work
    if options.save is not None and options.save.suffix != ".safetensors":
        raise InvalidInput(f"{options.save}: --save writes .safetensors; name it so")
    files = [path for path in (out, options.save, options.report) if path is not None]
    check_outputs(files, reads=[teacher_options.teacher], images=[options.calibration], overwrite=options.overwrite)
    budget = _budget(options)
    teacher = read_source(teacher_options, options.align, talk, options.calibration)
    talk.say(f"{teacher_options.teacher}: {teacher.words}\n")
    material = read_material(options.calibration, teacher.takes, talk)
    with talk.progress() as step:
        with join_processes():
            net = derive(teacher, options, budget, material, step)
        if not is_first():
            return
        tests = material.tests(teacher.takes)
        step("running both on photographs")
        name = "plain" if teacher.is_plain else "teacher"
        outputs = {
            name: _outputs(teacher.model, teacher.takes, tests.images, options.device),
            "student": _outputs(net, teacher.takes, tests.images, options.device),
        }
        if teacher.frozen is not None:
            outputs["frozen"] = _outputs(teacher.frozen.module, teacher.takes, tests.images, options.device)
        rows = _rows(teacher, net, tests, outputs)
        page = ""
        if options.report is not None:
            page = _page(teacher_options.teacher, options, teacher, net, rows, tests, outputs, step)
        step("writing")
        _write(net, out, options, page)
    _tell(net, rows, tests, files, options, talk)


def _budget(options: ShrinkOptions) -> dict[str, Any]:
    """The budget as arguments of `shrink`; with a limit on latency, also what times it."""
    if options.max_latency is None:
        if options.provider != "cpu" or options.threads is not None:
            raise InvalidInput("--provider and --threads say what --max-latency is measured on; give it, or leave them")
        return options.budget
    return {**options.budget, "timer": make_timer(options.provider, threads=options.threads)}


def _outputs(network: nn.Module, takes: Takes, tests: Sequence[TestImage], device: Provider) -> Images:
    """A network's output for each image, rounded to 8 bits, as it is scored."""
    single = TorchNetwork(copy_module(network, torch.float32), provider=device)
    return [to_uint8(enlarge(single, takes, image)) for image in tests]


def _rows(teacher: Source, net: PlainNet, tests: ImageSet, outputs: Mapping[str, Images]) -> list[Row]:
    """Rows of the table of costs.  The plain network is the teacher's equivalent, so its PSNR is the teacher's; or that
    of the frozen network, where one stands for the teacher."""
    report = _report(net)
    own = mean_psnr(tests.images, outputs["plain" if teacher.is_plain else "teacher"])
    rows = [Row("bicubic", None, mean_psnr(tests.images, map(enlarge_bicubic, tests.images)))]
    if teacher.frozen is not None:  # whose cost is counted, and the teacher's is not
        rows.append(Row("teacher", None, own))
        own = mean_psnr(tests.images, outputs["frozen"])
        rows.append(Row("frozen", report.teacher_cost, own))
    elif not teacher.is_plain:
        rows.append(Row("teacher", report.teacher_cost, own))
    if teacher.plain is not None:
        rows.append(Row("plain", teacher.plain, own))
    return [*rows, Row("student", report.cost, mean_psnr(tests.images, outputs["student"]))]


def _report(net: PlainNet) -> ShrinkReport:
    report: object = net.report
    assert isinstance(report, ShrinkReport), "shrink leaves its report with the student"
    return report


def _page(
    path: Path,
    options: ShrinkOptions,
    teacher: Source,
    net: PlainNet,
    rows: Sequence[Row],
    tests: ImageSet,
    outputs: Mapping[str, Images],
    step: Callable[[str], None],
) -> str:
    shown = tests.images[:PICTURES]
    columns = {name: images[:PICTURES] for name, images in outputs.items()}
    if not teacher.is_plain:
        step("building the plain network")
        plain = _plain(teacher, options, shown)
        columns = {"teacher": columns["teacher"], **plain, "student": columns["student"]}
    step("drawing the report")
    return report_student(
        net,
        teacher_name=path.name,
        rows=rows,
        size=options.size,
        images=f"{tests.words}, protocol edsr; {_name_arithmetic(options)}",
        pictures=draw_pictures(shown, columns, grey=teacher.takes.channels == 1),
    )


def _plain(teacher: Source, options: ShrinkOptions, tests: Sequence[TestImage]) -> dict[str, Images]:
    """The plain network's pictures; none where it is too large to be built for them."""
    input_range = teacher.takes.input_range
    try:
        net = compile_to_plain(
            teacher.teacher.convertible,
            input_range=input_range,
            align=options.align,
            image_skip="outside",
            max_weights=BUILT,
        )
    except MemsrError:
        return {}
    return {"plain": _outputs(net, teacher.takes, tests, options.device)}


def _write(net: PlainNet, out: Path, options: ShrinkOptions, page: str) -> None:
    from memsr_compiler.plain.tflite_model import export_tflite
    from memsr_compiler.plain.write import export_onnx, save_plain

    if out.suffix == ".onnx":
        export_onnx(net, out)
    elif out.suffix == ".tflite":
        export_tflite(net, out)
    else:
        save_plain(net, out)
    if options.save is not None:
        save_plain(net, options.save)
    if options.report is not None:
        write_page(options.report, page)


def _tell(
    net: PlainNet, rows: Sequence[Row], tests: ImageSet, files: Sequence[Path], options: ShrinkOptions, talk: Talk
) -> None:
    report = _report(net)
    width, height = options.size
    talk.json(
        {
            "written": [str(path) for path in files],
            "info": asdict(net.info),
            "widths": net.widths,
            "mode": report.mode,
            "layers": [_layer_data(layer) for layer in report.layers],
            "size": [width, height],
            **{row.name: cost_data(row.cost, options.size) for row in rows if row.cost is not None},
            "psnr": {row.name: finite(row.psnr) for row in rows},
            "psnr_on": tests.words,
            "protocol": "edsr",
            "arithmetic": _name_arithmetic(options),
            "fidelity": [finite(value) for value in report.fidelity],
            "levels": None if report.choice is None else asdict(report.choice),
            "milliseconds": report.milliseconds,
            "approximation": frozen_data(report.frozen),
            "seconds": report.seconds,
        }
    )
    tell_frozen(report.frozen, talk)
    talk.table(
        "Layers",
        ("layer", "teacher's width", "student's width", "Eq. 15 error", "own error"),
        [
            (_layer_name(a), str(a.teacher_width), str(a.width), f"{a.lost:.4f}", f"{a.own_error:.4f}")
            for a in report.layers
        ],
    )
    talk.table(
        f"Costs at a {width}x{height} input; PSNR on {tests.words}, protocol edsr",
        ("", "parameters", "multiply-adds", "feature maps", "PSNR-Y"),
        [(row.name, *cost_cells(row.cost, options.size), format_decibels(row.psnr)) for row in rows],
    )
    talk.say(f"computed in  {_name_arithmetic(options)}")
    if talk.verbose:
        talk.table("Seconds", ("stage", "seconds"), [(k, f"{v:.2f}") for k, v in report.seconds.items()])
    talk.say(f"widths       {widths_text(net.widths)}")
    if report.choice is not None:
        talk.say(f"levels       {_name_levels(report.choice)}")
    if report.milliseconds is not None:
        talk.say(f"takes        {report.milliseconds:.1f} ms at {width}x{height}, in ONNX Runtime, {options.provider}")
    talk.say(
        f"derived      from {say_count(report.images, 'crop')}, {say_count(report.pixels, 'pixel')}, in "
        f"{_seconds(report)} s"
    )
    if report.fidelity:
        talk.say(f"fidelity     {' -> '.join(f'{value:.2f}' for value in report.fidelity)} dB to the teacher's output")
    narrower = any(layer.width < layer.teacher_width for layer in report.layers)
    if report.mode == "data-aware" and options.refit is None and len(report.fidelity) == 1 and narrower:
        talk.say("refit        none: so large a student would take long; --refit 50 adds a joint refit")
    talk.say(f"written      {', '.join(map(str, files))}")


def _name_arithmetic(options: ShrinkOptions) -> str:
    """The arithmetic in which networks are scored."""
    return name_arithmetic("float32", "torch", options.device)


def _name_levels(choice: LevelsKept) -> str:
    """'2, 4, 6 of 12; the even choice, 3, 6, 9, is 1.20 dB further from the teacher'"""
    kept, even = (", ".join(map(str, levels)) or "none" for levels in (choice.kept, choice.even))
    words = f"{kept} of {len(choice.missed)}"
    if not choice.losses:
        return f"{words}, which is the even choice"
    further = 10 * math.log10(max(choice.losses[1], 1e-30) / max(choice.losses[0], 1e-30))
    if choice.kept == choice.even:
        return f"{words}, the even choice; those of which the most is missed are {-further:.2f} dB further away"
    return f"{words}; the even choice, {even}, is {further:.2f} dB further from the teacher"


def _seconds(report: ShrinkReport) -> str:
    return f"{sum(report.seconds.values()):.1f}"


def _layer_name(layer: LayerShrunk) -> str:
    """'3  body.0.relu and 2 more', the newest first"""
    more = f" and {len(layer.holds) - 1} more" if len(layer.holds) > 1 else ""
    return f"{layer.number:>2}  {names.value(layer.holds[-1])}{more}"


def _layer_data(layer: LayerShrunk) -> dict[str, Any]:
    return {
        "number": layer.number,
        "holds": list(layer.holds),
        "teacher_width": layer.teacher_width,
        "width": layer.width,
        "relus": layer.relus,
        "spans": layer.spans,
        "eq15_error": finite(layer.lost),
        "own_error": finite(layer.own_error),
        "singular_values": layer.singular_values.tolist(),
    }
