"""memsrc distill: a student fine-tuned on photographs, under its teacher."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from memsr_compiler.analysis.cost import cost_of_graph
from memsr_compiler.commands.options import QuantizeOptions, ReadingOptions
from memsr_compiler.commands.output import Talk, is_first, silence_others
from memsr_compiler.commands.own_code import digest_code
from memsr_compiler.commands.run_folder import hold_run, record_of, steps_taken
from memsr_compiler.commands.student_common import read_source, require_relus
from memsr_compiler.commands.training_choices import Choices, choose, settle
from memsr_compiler.commands.training_common import read_data, recipe, show_progress, tell
from memsr_compiler.commands.training_options import DistillOptions
from memsr_compiler.errors import InvalidInput
from memsr_compiler.locks import keep_temporary_files
from memsr_compiler.plain.balance import balance_channels
from memsr_compiler.plain.info import takes_images
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.read import read_plain_file
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.quantities import say_count
from memsr_compiler.quantization.simulate import require_integers
from memsr_compiler.quantization.start_integers import start_integers
from memsr_compiler.quantization.write_integers import write_integers
from memsr_compiler.sharing import count_processes
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.student.crops import CROP, batches, default_samples
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.lower import Lowered, lower_channels
from memsr_compiler.student.statistics.survey import require_finite
from memsr_compiler.torch_helpers import copy_module
from memsr_compiler.trace.onnx.digest import network_digest
from memsr_compiler.training.labels import Labeller
from memsr_compiler.training.losses import CentredStudent, Distillation, Objective, QuantizationAware
from memsr_compiler.training.methods.comparison import DISTANCES, Comparison
from memsr_compiler.training.methods.pisr import Privileged
from memsr_compiler.training.patches import Patches
from memsr_compiler.training.revive import revive
from memsr_compiler.training.starts import initial_maps, input_means, match_levels, no_means, random_maps, restart

if TYPE_CHECKING:
    from memsr_compiler.training.recipe import Recipe


def run(options: DistillOptions, reading: ReadingOptions, talk: Talk) -> None:
    """Read teacher and student, train, write the best."""
    talk = silence_others(talk)
    choices = choose(options, _count_layers(options))
    _check_method(options, choices)
    options = settle(options, choices)
    _check_labels(options, choices)
    how = recipe(options, choices)
    record = record_of(options, reading)
    with hold_run(options, how, record, talk) as resume:
        _distill(options, choices, reading, how, record, resume, talk)


def _count_layers(options: DistillOptions) -> int:
    """Layers of the student, where a default depends on them; else 0.  Raises InvalidInput for a file that is none."""
    if options.rate is not None or options.init != "as-is":
        return 0
    return len(read_plain_file(options.student, require_certificate=False).manifest.layers)


def _check_method(options: DistillOptions, choices: Choices) -> None:
    """Raises InvalidInput for what a method cannot be trained with."""
    method = options.method
    if method == "memsr":
        if options.int8 and choices.weight:
            raise InvalidInput("--int8 with --lambda: features are compared in floating point; give --lambda 0")
        return
    if options.int8:
        raise InvalidInput(f"--int8 with --method {method}: features are compared in floating point; leave one out")
    if method == "pisr" and choices.labels == "teacher":
        raise InvalidInput("--method pisr: learns from photographs; leave --labels out")
    if method == "pisr" and options.zoom in ("in", "both"):
        raise InvalidInput(
            f"--method pisr with --zoom {options.zoom}: learns from photographs, and of one that is zoomed into there "
            "is none so large; give --zoom out, or none"
        )
    if method == "pisr" and count_processes() > 1:
        raise InvalidInput("--method pisr: trains parts that change on the way, which only one process can")


def _check_labels(options: DistillOptions, choices: Choices) -> None:
    """Raises InvalidInput for what asks for the teacher's output where the student is not to give it."""
    if choices.labels != "photographs":
        return
    asked = {f"--zoom {options.zoom}": options.zoom in ("in", "both"), "--self-ensemble": options.ensemble}
    for option in (name for name, given in asked.items() if given):
        raise InvalidInput(
            f"{option}: needs the teacher's output, and the student is to learn from photographs alone; give --labels "
            f"both, or leave {option.split()[0]} out"
        )


def _distill(
    options: DistillOptions,
    choices: Choices,
    reading: ReadingOptions,
    how: Recipe,
    record: Mapping[str, Any],
    resume: Path | None,
    talk: Talk,
) -> None:
    student = load_plain(options.student, require_certificate=False).float()
    require_relus(student.info, options.student, "trained")
    student.certificate = None  # it speaks of these weights, and others will come
    if options.centred:
        student = balance_channels(student)
    start = copy.deepcopy(student.state_dict())
    model = read_source(reading.of(options.teacher), 8, talk)
    code = digest_code(reading.arch)
    input_range = model.takes.input_range
    teacher = LeveledTeacher.of(model.model, input_range, frozen=model.frozen)
    info = student.info
    if not info.teacher_sha256:  # trained from new weights
        talk.warn(f"{options.student}: was derived from no network, or does not say from which")
    elif info.teacher_sha256 != teacher.sha256:
        talk.warn(
            f"{options.student}: was derived from another network than {options.teacher} "
            f"({info.teacher_sha256[:12]}, this one is {teacher.sha256[:12]})"
        )
    takes = takes_images(info, len(student[-1].weight), student[-1].shuffle, str(options.student))
    if options.scale not in (None, takes.scale):
        raise InvalidInput(f"--scale {options.scale}: the student enlarges by {takes.scale}; leave --scale out")
    if (model.takes.scale, model.takes.channels) != (takes.scale, takes.channels):
        raise InvalidInput(
            f"{options.teacher}: enlarges {say_count(model.takes.channels, 'channel')} by "
            f"{model.takes.scale}, the student "
            f"{takes.channels} by {takes.scale}; a teacher does what its student is to do"
        )
    if choices.weight and options.method != "pisr" and input_range != takes.input_range:
        raise InvalidInput(
            f"the student takes values in {takes.input_range}, the teacher in {input_range}: their features cannot be "
            "compared; give --lambda 0"
        )
    talk.say(f"teacher      {options.teacher}: {model.words}")
    samples = default_samples(cost_of_graph(teacher.graph).macs_per_pixel)
    if options.int8:
        require_integers(student)  # at once; the rest waits for the photographs
    in_floats = None if options.int8 else _objective(student, teacher, samples, options, choices, talk)
    networks = {"student": network_digest(options.student), "teacher": network_digest(options.teacher)}
    labeller = None
    if choices.labels != "photographs":
        name = _name_outputs(model.model, teacher)
        labeller = Labeller(
            copy_module(model.model, torch.float32), model.takes, name, choices.labels, ensemble=options.ensemble
        )
    cut, judged = read_data(options, takes, record, resume, talk, code, networks, labeller, options.zoom)
    rows = {"student before": judged.score(load_plain(options.student, require_certificate=False).float())}
    objective: Objective = in_floats or _for_integers(student, cut, options)
    if options.int8:
        rows["student before, int8"] = judged.score(objective.network.eval())
    from memsr_compiler.training.loop import run as train

    with show_progress(talk, how.steps, steps_taken(resume)) as on_step:
        outcome = train(
            objective,
            cut,
            how,
            options.out,
            validate=judged.psnr,
            judged=judged.key,
            resume=resume,
            on_step=on_step,
        )
    if not is_first():
        return
    no_better = outcome.best_step == 0 or outcome.best <= rows["student before"].psnr
    as_given = no_better and options.init == "as-is" and not options.int8
    if as_given:
        student.load_state_dict(start)  # what the run began with is that but for rounding, or channels lowered
    others = {"bicubic": judged.bicubic, "teacher": judged.score(copy_module(model.model, torch.float32), model.takes)}
    written = [options.out / "student.safetensors"]
    save_plain(student, written[0])
    if isinstance(objective, QuantizationAware):  # in floating point the student is poor: no .onnx of that
        written.append(options.out / "student.int8.onnx")
        write_integers(objective.network, written[1], options.student)
        rows["student after, int8"] = judged.score(objective.network.eval())
    else:
        written.append(options.out / "student.onnx")
        export_onnx(student, written[1])
        rows["student after"] = judged.score(student)
    rows = {**others, **rows}
    tell(outcome, rows, judged, written, talk)
    if as_given:
        where = "" if options.val is not None else " on the photographs that ship, by which shrink derives: see --val"
        talk.say(f"kept         the student as it was given: no step was better{where}")


def _tell_lowered(lowered: Sequence[Lowered], options: DistillOptions, talk: Talk) -> None:
    """Say how many channels were lowered, where the run begins."""
    if lowered and options.resume is None:
        channels, layers = sum(x.channels for x in lowered), say_count(len(lowered), "layer")
        most = max(x.most for x in lowered)
        talk.say(f"lowered      {say_count(channels, 'channel')} of {layers}, never below zero, by up to {most:.3g}")


def _name_outputs(model: nn.Module, teacher: LeveledTeacher) -> str:
    """SHA-256 of what a network makes of images: labels are kept by it.

    That of a plain network is of its layers alone, and its teacher's is another network's; that of a graph tells its
    range too, but not an image that is added outside.
    """
    if isinstance(model, PlainNet):
        told = f"{model.sha256()} {model.info.input_range} {model.info.image_skip}"
    elif teacher.image_skip is not None:
        told = f"{teacher.sha256} {teacher.image_skip}"
    else:
        return teacher.sha256
    return hashlib.sha256(told.encode()).hexdigest()


def _for_integers(student: PlainNet, cut: Patches, options: DistillOptions) -> QuantizationAware:
    """The student in 8 bits, as `memsrc quantize` makes it on parts of the photographs that it is trained on.

    Of others validation would tell too much good: the default of --val is what `quantize` calibrates on.
    """
    restart(student, options.init, options.seed)
    samples = QuantizeOptions.samples
    crops = [part.float() for part in batches(cut.crops(samples, CROP), samples=samples, seed=0)]
    with keep_temporary_files():  # ONNX Runtime's
        integers = start_integers(student, crops)
    if options.centred:
        integers.centre(crops)
    return QuantizationAware(integers)


def _objective(
    student: PlainNet, teacher: LeveledTeacher, samples: int, options: DistillOptions, choices: Choices, talk: Talk
) -> CentredStudent:
    """The student under its teacher; the maps of Eq. 12 only where its features count."""
    info, seed = student.info, options.seed
    images = sample_inputs(scale=info.scale, channels=info.channels, input_range=info.input_range)
    crops = batches(images, samples=samples, seed=0)
    require_finite(teacher, crops[0], str(options.teacher))
    if options.centred and options.init == "as-is":
        revive(student, crops, seed)
        _tell_lowered(lower_channels(student, crops), options, talk)
    maps: tuple[Tensor, ...] = ()
    if choices.weight and options.method != "pisr":
        teacher = match_levels(teacher, student)
    if choices.weight and options.method == "memsr":
        random = options.maps == "random"
        maps = random_maps(teacher, student, seed) if random else initial_maps(teacher, student, crops)
    restart(student, options.init, seed)
    if options.centred and options.init != "as-is":
        student.load_state_dict(balance_channels(student).state_dict())
    means = input_means(student, crops) if options.centred else no_means(student)
    weight, epsilon = choices.weight, choices.epsilon
    if options.method == "memsr":
        return Distillation(student, teacher, maps, weight=weight, epsilon=epsilon, means=means)
    if options.method == "pisr":
        return Privileged(student, weight=weight, epsilon=epsilon, means=means, seed=seed)
    return Comparison(student, teacher, DISTANCES[options.method], weight=weight, epsilon=epsilon, means=means)
