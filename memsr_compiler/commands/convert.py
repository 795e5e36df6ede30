"""memsrc convert: a teacher in, an equivalent plain network out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.analysis.cost import Cost, cost_of_graph
from memsr_compiler.commands.check_outputs import check_outputs, write_page
from memsr_compiler.commands.find_network import name_beside
from memsr_compiler.commands.options import ConvertOptions, TeacherOptions
from memsr_compiler.commands.output import Talk, mebibytes, thousands, widths_text
from memsr_compiler.commands.teachers import describe, read
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.ir.pipeline import PassReport
from memsr_compiler.lowering.compile import Report, compile_to_plain
from memsr_compiler.lowering.equivalence import Network, check_equivalence, probe_images
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.torch_helpers import copy_module, full_float32, one_thread, torch_device
from memsr_compiler.trace.trace import trace

if TYPE_CHECKING:
    from memsr_compiler.plain.network import PlainNet


@one_thread()
def run(teacher_options: TeacherOptions, options: ConvertOptions, talk: Talk) -> None:
    """Read a teacher, compile it, write the plain network, and run that beside the teacher."""
    out = options.out or name_beside(teacher_options.teacher, ".plain.onnx")
    if out.suffix not in (".onnx", ".safetensors"):
        raise InvalidInput(f"{out}: a plain network is written as .onnx or .safetensors; name it so")
    if out.suffix == ".safetensors" and options.dtype != "float32":
        raise InvalidInput(f"--dtype {options.dtype} is for .onnx files; .safetensors keep the teacher's own precision")
    torch_device(options.device)
    files = [out, out.with_suffix(".cert.json"), *([options.report] if options.report else [])]
    check_outputs(files, reads=[teacher_options.teacher], overwrite=options.overwrite)
    teacher, input_range = read(teacher_options, talk)
    talk.say(f"{teacher_options.teacher}: {describe(teacher, input_range)}")
    steps: list[tuple[str, ir.Graph]] = []
    passes: list[PassReport] = []
    with talk.progress() as step:
        constant = _constants(teacher.module, options, input_range, talk, step)

        def on_pass(report: PassReport) -> None:
            passes.append(report)
            step(f"{report.name} done")

        step("reading the network")
        net = compile_to_plain(
            teacher.module,
            carry=options.carry,
            constant=constant,
            tail=options.tail,
            input_range=input_range,
            align=options.align,
            image_skip=options.image_skip,
            max_weights=int(options.max_weights * 2**30),
            on_pass=on_pass,
            on_graph=(lambda name, graph: steps.append((name, graph))) if options.report else None,
        )
        step(f"writing {out}")
        written = _write(net, out, options)
        step("running it beside the teacher")
        measured = deviations(teacher.module, net, out, options, input_range, talk)
    graph = trace(teacher.module, input_range=input_range).graph if options.report or not talk.quiet else None
    cost = cost_of_graph(graph) if graph is not None else None
    if options.report is not None and graph is not None and cost is not None:
        _write_report(options.report, net, [("as read", graph), *steps], teacher_options.teacher.name, cost, measured)
        written.append(options.report)
    _tell(net, cost, passes, measured, written, options, talk)


def _constants(
    model: nn.Module, options: ConvertOptions, input_range: tuple[float, float], talk: Talk, step: Callable[[str], None]
) -> dict[str, float] | float | None:
    if options.carry != "shift" or options.constant is not None:
        return options.constant
    from memsr_compiler.lowering.shift_constants import calibrate

    constants = calibrate(
        model,
        _calibration_images(options.calibration),
        margin=options.margin,
        input_range=input_range,
        tail=options.tail,
        device=options.device,
        on_step=lambda: step("searching for an input that breaks the constants"),
    )
    talk.say(f"shift: {constants}")
    if constants.worst > 1:
        talk.warn(
            "for some images within the input range these constants are too small; raise --margin above "
            f"{options.margin * constants.worst:.1f}, or use --carry auto, which needs none"
        )
    return dict(constants.constants)


def _calibration_images(folder: Path | None) -> list[NDArray[Any]]:
    from memsr_compiler.images.files import read_images, sample_photographs

    photographs = read_images(folder) if folder is not None else sample_photographs()
    return [pixels[:128, :128] for pixels in photographs]


def _write(net: PlainNet, out: Path, options: ConvertOptions) -> list[Path]:
    from memsr_compiler.plain.write import export_onnx, save_plain

    if out.suffix == ".safetensors":
        save_plain(net, out)
        return [out]
    return list(export_onnx(net, out, dtype=options.dtype).files)


def deviations(
    model: nn.Module, net: PlainNet, out: Path, options: ConvertOptions, input_range: tuple[float, float], talk: Talk
) -> dict[str, float]:
    """The largest deviations from the teacher in float64 on probes: its own in float32, the network's, the file's."""
    place = torch_device(options.device)
    exact = copy_module(model, torch.float64).to(place)
    images = {name: x[:2] for name, x in probe_images(net.info.channels, input_range).items()}
    with torch.no_grad():
        known = {x.shape: exact(x.to(place, copy=True)).cpu() for x in images.values()}

    def exactly(x: Tensor) -> Tensor:
        y: Tensor = known[x.shape]
        return y

    def in_float32(network: nn.Module) -> Network:
        single = copy_module(network, torch.float32).to(place)
        return lambda x: single(x.float().to(place)).cpu()

    others: dict[str, Network] = {"teacher in float32": in_float32(model), "plain in float32": in_float32(net)}
    if out.suffix == ".onnx":
        try:
            others[f"{out.name} in ONNX Runtime ({options.dtype})"] = OrtNetwork(out)
        except MemsrError as error:
            talk.warn(f"{out.name} was not run: {error}")
    with full_float32(place):
        measured = {
            name: check_equivalence(exactly, other, images=images, tolerance=float("inf")).deviation
            for name, other in others.items()
        }
    half = (input_range[1] - input_range[0]) / 510
    for name, value in measured.items():
        if not value <= half:
            talk.warn(
                f"{name} deviates by {value:.2e}, over half a grey level ({half:.2e}); see docs/results/exactness.md"
            )
    return measured


def _write_report(
    path: Path, net: PlainNet, steps: Sequence[tuple[str, ir.Graph]], name: str, cost: Cost, measured: dict[str, float]
) -> None:
    from memsr_compiler.reports.conversion import report_conversion

    rows = {f"deviation of the {k}": f"{v:.2e}" for k, v in measured.items()}
    text = report_conversion(net, steps, teacher_name=name, teacher_cost=cost, measured=rows)
    write_page(path, text)


def _tell(
    net: PlainNet,
    teacher: Cost | None,
    passes: Sequence[PassReport],
    measured: dict[str, float],
    written: Sequence[Path],
    options: ConvertOptions,
    talk: Talk,
) -> None:
    report = net.report
    assert isinstance(report, Report) and report.cost is not None
    plain = report.cost
    talk.json(
        {
            "written": [str(p) for p in written],
            "info": asdict(net.info),
            "widths": net.widths,
            "teacher": asdict(teacher) if teacher else None,
            "plain": asdict(plain),
            "carried": [{**asdict(c), "guarantee": c.guarantee} for c in report.carried],
            "passes": [asdict(p) for p in passes],
            "seconds": report.seconds,
            "deviation": measured,
        }
    )
    if talk.verbose:
        talk.table(
            "Passes",
            ("pass", "ops", "widest", "seconds", "deviation", "bound"),
            [
                (
                    p.name,
                    f"{p.ops_before} -> {p.ops_after}",
                    f"{p.channels_before} -> {p.channels_after}",
                    f"{p.seconds:.3f}",
                    f"{p.deviation:.1e}",
                    f"{p.bound:.1e}",
                )
                for p in passes
            ],
        )
        talk.table(
            "Carried past ReLUs",
            ("tensor", "channels", "as", "layers", "guarantee"),
            [(c.tensor, str(c.channels), c.form, str(c.layers), c.guarantee) for c in report.carried],
        )
        stages = ("trace", "passes", "validation", "build", "certificate")
        talk.table("Seconds", ("stage", "seconds"), [(k, f"{report.seconds[k]:.2f}") for k in stages])
    width, height = options.size
    pairs = [("plain", plain)] if teacher is None else [("teacher", teacher), ("plain", plain)]
    talk.table(
        f"Cost at a {width}x{height} input",
        ("", "parameters", "multiply-adds", "feature maps"),
        [
            (
                n,
                thousands(c.parameters),
                f"{c.macs_per_pixel * width * height / 1e9:,.1f} G",
                mebibytes(c.memory(height, width)),
            )
            for n, c in pairs
        ],
    )
    deviation = [(k, f"{v:.2e}") for k, v in measured.items()]
    talk.table("Largest deviation from the teacher in float64", ("", "deviation"), deviation)
    talk.say(f"widths       {widths_text(net.widths)}")
    talk.say(f"guarantee    {net.info.guarantee}")
    talk.say(f"certificate  checked: every one of {len(net.layers)} layers is what the teacher's weights say")
    talk.say(f"written      {', '.join(map(str, written))}")
