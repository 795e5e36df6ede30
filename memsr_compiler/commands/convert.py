"""memsrc convert: a teacher in, an equivalent plain network out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from torch import nn

from memsr_compiler import ir
from memsr_compiler.commands.given.default_files import name_beside
from memsr_compiler.commands.given.material import read_material
from memsr_compiler.commands.given.teachers import describe, read
from memsr_compiler.commands.interface.check_outputs import check_outputs, write_page
from memsr_compiler.commands.interface.options import ConvertOptions, TeacherOptions
from memsr_compiler.commands.interface.output import Talk, mebibytes, thousands, widths_text
from memsr_compiler.commands.results.approximation import frozen_data, tell_frozen
from memsr_compiler.commands.results.deviations import Deviation, measure_deviations, require_accepted, tell_far
from memsr_compiler.errors import CertificateError, ExportError, InvalidInput
from memsr_compiler.ir.pipeline import PassReport
from memsr_compiler.lowering.compile import Report, compile_to_plain
from memsr_compiler.lowering.freezing import trace_once, trace_or_freeze
from memsr_compiler.lowering.stopwatch import Stopwatch
from memsr_compiler.lowering.verify import check_certificate
from memsr_compiler.plain.halves import LARGEST, LayerPeak
from memsr_compiler.plain.load import load_plain
from memsr_compiler.quantities import say_count
from memsr_compiler.teachers.teacher import Teacher
from memsr_compiler.tflite.write import import_schema
from memsr_compiler.torch_helpers import one_thread, torch_device
from memsr_compiler.trace.trace import Traced

if TYPE_CHECKING:
    from memsr_compiler.plain.network import PlainNet


@one_thread()
def run(teacher_options: TeacherOptions, options: ConvertOptions, talk: Talk) -> None:
    """Read a teacher, compile it, write the plain network, and run that beside the teacher."""
    out = options.out or name_beside(teacher_options.teacher, ".plain.onnx")
    if out.suffix not in (".onnx", ".safetensors", ".tflite"):
        raise InvalidInput(f"{out}: a plain network is written as .onnx, .safetensors or .tflite; name it so")
    if out.suffix == ".tflite":
        _require_tflite(options.dtype)
    if out.suffix == ".safetensors" and options.dtype != "float32":
        raise InvalidInput(f"--dtype {options.dtype} is for .onnx files; .safetensors keep the teacher's own precision")
    _check_calibration(options)
    torch_device(options.device)
    files = [out, out.with_suffix(".cert.json"), *([options.report] if options.report else [])]
    check_outputs(files, reads=[teacher_options.teacher], images=[options.calibration], overwrite=options.overwrite)
    teacher, input_range = read(teacher_options, talk)
    talk.say(f"{teacher_options.teacher}: {describe(teacher, input_range)}")
    watch = Stopwatch()
    with talk.progress() as step:
        step("reading the network")
        if options.approximate:
            teacher, traced = trace_or_freeze(
                teacher, lambda takes: read_material(options.calibration, takes, talk).inputs(takes), step
            )
        else:
            teacher, traced = trace_once(teacher)
    watch.lap("trace")
    steps: list[tuple[str, ir.Graph]] = []
    passes: list[PassReport] = []
    with talk.progress() as step:
        constant = _constants(traced.module, options, input_range, talk, step)

        def on_pass(report: PassReport) -> None:
            passes.append(report)
            step(f"{report.name} done")

        net = compile_to_plain(
            teacher,
            carry=options.carry,
            activation=options.activation,
            constant=constant,
            tail=options.tail,
            align=options.align,
            image_skip=options.image_skip,
            max_weights=int(options.max_weights * 2**30),
            on_pass=on_pass,
            on_graph=(lambda name, graph: steps.append((name, graph))) if options.report else None,
        )
        step(f"running it beside the teacher, and writing {out}")
        judge = Judge(teacher, traced, out, options, input_range, talk.warn)
        written = _write(net, judge)
    if options.report is not None:
        _write_report(options.report, net, steps, teacher_options.teacher.name, judge)
        written.append(options.report)
    _tell(net, passes, judge, written, watch.seconds, talk)


def _require_tflite(dtype: str) -> None:
    """Raise InvalidInput for what `convert` does not write as TFLite, MemsrError where nothing writes it."""
    if dtype != "float32":
        raise InvalidInput(
            f"--dtype {dtype}: of .tflite files memsrc export writes these, from the .onnx file; leave --dtype out"
        )
    import_schema()


def _check_calibration(options: ConvertOptions) -> None:
    """Raise InvalidInput for options that say how constants are measured where none are, and for a missing folder."""
    if options.calibration is not None and not options.calibration.is_dir():
        raise InvalidInput(f"--calibration {options.calibration}: is no folder; give one with PNG or JPEG files")
    if options.carry == "shift" and options.constant is None:
        return
    why = f"--constant {options.constant:g} is given" if options.carry == "shift" else f"carry is '{options.carry}'"
    for name, value, default in (
        ("--calibration", None if options.approximate else options.calibration, None),
        ("--margin", options.margin, ConvertOptions.margin),
    ):
        if value != default:
            raise InvalidInput(
                f"{name} {value}: constants are measured for --carry shift without --constant; {why}. Leave {name} out"
            )


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


@dataclass
class Judge:
    """The measurement of a network that is about to be written; it raises ExportError where that must not be.

    traced     what the teacher, or the frozen network that stands for it, was read into
    measured   deviations, once they are known;   peaks   of a float16 file: the largest values of its layers
    """

    teacher: Teacher
    traced: Traced
    out: Path
    options: ConvertOptions
    input_range: tuple[float, float]
    warn: Callable[[str], None]
    measured: Sequence[Deviation] = ()
    peaks: Sequence[LayerPeak] = ()

    def __call__(self, staged: Path | None, net: PlainNet, peaks: Sequence[LayerPeak]) -> None:
        """Measure and judge.  staged: the ONNX model where it lies until it gets its name."""
        self.peaks = peaks
        model = self.teacher.convertible
        self.measured = measure_deviations(model, net, self.out, staged, self.options, self.input_range, self.warn)
        require_accepted(self.measured, net, self.out, self.input_range)
        self._require_certified(load_plain(staged) if staged is not None else net)
        tell_far(self.measured, self.input_range, self.warn)

    def _require_certified(self, stored: PlainNet) -> None:
        """Raise ExportError for what `verify` would not accept: too much is lost to large constants or few digits."""
        frozen = self.teacher.frozen is not None  # its certificate tells what was replaced of the teacher itself
        teacher = self.teacher.module if frozen else self.traced.module
        try:
            check_certificate(teacher, stored, input_range=self.input_range)
        except CertificateError as error:
            raise ExportError(f"{self.out}: is not written. {error}") from None


def _write(net: PlainNet, judge: Judge) -> list[Path]:
    """Write the network, if the judge allows it."""
    from memsr_compiler.plain.tflite_model import export_tflite
    from memsr_compiler.plain.write import export_onnx, save_plain

    if judge.out.suffix == ".onnx":
        return list(export_onnx(net, judge.out, dtype=judge.options.dtype, judge=judge).files)
    if judge.out.suffix == ".tflite":
        export_tflite(net, judge.out, judge=judge)
    else:
        save_plain(net, judge.out, judge=judge)
    return [judge.out]


def _write_report(path: Path, net: PlainNet, steps: Sequence[tuple[str, ir.Graph]], name: str, judge: Judge) -> None:
    """The page on what each pass made."""
    from memsr_compiler.reports.conversion import report_conversion

    rows = {f"deviation, {d.name}": f"{d.value:.2e}, {d.arithmetic}" for d in judge.measured}
    if judge.peaks:
        rows["largest value"] = say_peaks(judge.peaks)
        rows["largest value, layer by layer"] = ", ".join(f"{peak.value:.4g}" for peak in judge.peaks)
    text = report_conversion(net, steps, teacher_name=name, measured=rows)
    write_page(path, text)


def say_peaks(peaks: Sequence[LayerPeak]) -> str:
    """The largest value of all layers in words, and what was done about it."""
    layer = max(range(len(peaks)), key=lambda i: peaks[i].value)
    scaled = sum(peak.scaled for peak in peaks)
    are = "is" if scaled == 1 else "are"
    done = f"; {say_count(scaled, 'channel')} {are} stored as a smaller power of two" if scaled else ""
    return (
        f"{peaks[layer].value:,.4g} in layer {layer + 1} of {len(peaks)}, on probes and photographs; float16 ends at "
        f"{LARGEST:,.0f}{done}"
    )


def _tell(
    net: PlainNet,
    passes: Sequence[PassReport],
    judge: Judge,
    written: Sequence[Path],
    seconds: Mapping[str, float],
    talk: Talk,
) -> None:
    report = net.report
    assert isinstance(report, Report), "compile_to_plain made it"
    teacher, plain = report.teacher_cost, report.cost
    seconds = {**report.seconds, **seconds}
    talk.json(
        {
            "written": [str(p) for p in written],
            "info": asdict(net.info),
            "widths": net.widths,
            "teacher": asdict(teacher),
            "plain": asdict(plain),
            "carried": [{**asdict(c), "guarantee": c.guarantee} for c in report.carried],
            "passes": [asdict(p) for p in passes],
            "seconds": seconds,
            "approximation": frozen_data(report.frozen),
            "deviation": {d.name: d.value for d in judge.measured},
            "deviation_explained": {d.name: d.explained for d in judge.measured},
            "deviation_accepted": {d.name: d.accepted for d in judge.measured},
            "arithmetic": {d.name: d.arithmetic for d in judge.measured},
            "largest_values": [peak.value for peak in judge.peaks],
            "scaled_channels": [peak.scaled for peak in judge.peaks],
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
        if judge.peaks:
            talk.table(
                "Largest value that each layer reaches, on probes and photographs",
                ("layer", "value", "channels stored as a smaller power of two"),
                [(str(i), f"{peak.value:.4g}", str(peak.scaled)) for i, peak in enumerate(judge.peaks, 1)],
            )
        stages = ("trace", "passes", "validation", "build", "certificate")
        talk.table("Seconds", ("stage", "seconds"), [(k, f"{seconds[k]:.2f}") for k in stages])
    tell_frozen(report.frozen, talk)
    width, height = judge.options.size
    name = "teacher" if report.frozen is None else "frozen network"
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
            for n, c in ((name, teacher), ("plain", plain))
        ],
    )
    talk.table(
        f"Largest deviation from the {name} in float64",
        ("", "deviation", "allowed", "computed in"),
        [(d.name, f"{d.value:.2e}", f"{d.allowed:.1e}", d.arithmetic) for d in judge.measured],
    )
    if judge.peaks:
        talk.say(f"largest      {say_peaks(judge.peaks)}")
    talk.say(f"widths       {widths_text(net.widths)}")
    talk.say(f"guarantee    {net.info.guarantee}")
    of = "teacher" if report.frozen is None else "frozen network"
    talk.say(f"certificate  checked: every one of {say_count(len(net.layers), 'layer')} is what the {of}'s weights say")
    if report.frozen is not None:
        talk.say("approximate  this is not the teacher; memsrc verify says so too, and ends with exit status 4")
    elif judge.options.approximate:
        talk.say("approximate  nothing had to be replaced: this is the teacher")
    talk.say(f"written      {', '.join(map(str, written))}")
