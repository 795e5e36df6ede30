"""memsrc distill: a student fine-tuned on photographs, under its teacher."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from memsr_compiler.analysis.cost import cost_of_graph
from memsr_compiler.commands.given.own_code import digest_code
from memsr_compiler.commands.interface.options import QuantizeOptions, ReadingOptions
from memsr_compiler.commands.interface.output import Talk, is_first, silence_others
from memsr_compiler.commands.interface.training_options import DistillOptions
from memsr_compiler.commands.runs.choices import Choices, choose, settle
from memsr_compiler.commands.runs.common import Bench, read_data, recipe, show_progress, tell
from memsr_compiler.commands.runs.run_folder import hold_run, record_of, steps_taken
from memsr_compiler.commands.students.common import Source, read_source, require_relus
from memsr_compiler.errors import InvalidInput
from memsr_compiler.locks import keep_temporary_files
from memsr_compiler.plain.balance import balance_channels
from memsr_compiler.plain.info import Takes, takes_images
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
    from memsr_compiler.evaluation.scores import Score
    from memsr_compiler.training.loop import Outcome
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


@dataclass(frozen=True)
class _Pair:
    """A student and its teacher, of one scale.

    start     the student's numbers as its run begins, but for what is lowered or drawn anew
    teacher   the model, by levels
    """

    student: PlainNet
    start: Mapping[str, Tensor]
    takes: Takes
    model: Source
    teacher: LeveledTeacher

    def run_teacher(self) -> nn.Module:
        """The teacher as it is, in float32, to be run on whole images."""
        return copy_module(self.model.model, torch.float32)


def _distill(
    options: DistillOptions,
    choices: Choices,
    reading: ReadingOptions,
    how: Recipe,
    record: Mapping[str, Any],
    resume: Path | None,
    talk: Talk,
) -> None:
    from memsr_compiler.training.loop import run as train

    pair = _read_pair(options, choices, reading, talk)
    in_floats = None if options.int8 else _objective(pair.student, pair.teacher, options, choices, talk)
    networks = {"student": network_digest(options.student), "teacher": network_digest(options.teacher)}
    code, labeller = digest_code(reading.arch), _labeller(pair, options, choices)
    cut, judged = read_data(options, pair.takes, record, resume, talk, code, networks, labeller, options.zoom)
    before = {"student before": judged.score(_load_student(options))}
    objective: Objective = in_floats or _for_integers(pair.student, cut, options)
    if options.int8:
        before["student before, int8"] = judged.score(objective.network.eval())
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
    if is_first():
        _finish(pair, objective, outcome, before, judged, options, talk)


def _read_pair(options: DistillOptions, choices: Choices, reading: ReadingOptions, talk: Talk) -> _Pair:
    """Raises InvalidInput for two that are not of one kind."""
    student = _load_student(options)
    require_relus(student.info, options.student, "trained")
    student.certificate = None  # it speaks of these weights, and others will come
    if options.centred:
        student = balance_channels(student)
    model = read_source(reading.of(options.teacher), 8, talk)
    teacher = LeveledTeacher.of(model.model, model.takes.input_range, frozen=model.frozen)
    _tell_derived(student.info.teacher_sha256, teacher.sha256, options, talk)
    takes = takes_images(student.info, len(student[-1].weight), student[-1].shuffle, str(options.student))
    _require_alike(takes, model.takes, options, compared=bool(choices.weight) and options.method != "pisr")
    talk.say(f"teacher      {options.teacher}: {model.words}")
    if options.int8:
        require_integers(student)  # at once; the rest waits for the photographs
    return _Pair(student, copy.deepcopy(student.state_dict()), takes, model, teacher)


def _load_student(options: DistillOptions) -> PlainNet:
    return load_plain(options.student, require_certificate=False).float()


def _tell_derived(of: str, teacher: str, options: DistillOptions, talk: Talk) -> None:
    """Say so where the teacher, by its SHA-256, is not the one that the student was derived from."""
    if not of:  # trained from new weights
        talk.warn(f"{options.student}: was derived from no network, or does not say from which")
    elif of != teacher:
        talk.warn(
            f"{options.student}: was derived from another network than {options.teacher} "
            f"({of[:12]}, this one is {teacher[:12]})"
        )


def _require_alike(student: Takes, teacher: Takes, options: DistillOptions, *, compared: bool) -> None:
    """Raises InvalidInput unless both enlarge the same images alike.  compared: their features are, too."""
    if options.scale not in (None, student.scale):
        raise InvalidInput(f"--scale {options.scale}: the student enlarges by {student.scale}; leave --scale out")
    if (teacher.scale, teacher.channels) != (student.scale, student.channels):
        raise InvalidInput(
            f"{options.teacher}: enlarges {say_count(teacher.channels, 'channel')} by {teacher.scale}, the student "
            f"{student.channels} by {student.scale}; a teacher does what its student is to do"
        )
    if compared and teacher.input_range != student.input_range:
        raise InvalidInput(
            f"the student takes values in {student.input_range}, the teacher in {teacher.input_range}: their features "
            "cannot be compared; give --lambda 0"
        )


def _labeller(pair: _Pair, options: DistillOptions, choices: Choices) -> Labeller | None:
    if choices.labels == "photographs":
        return None
    name = _name_outputs(pair.model.model, pair.teacher)
    return Labeller(pair.run_teacher(), pair.model.takes, name, choices.labels, ensemble=options.ensemble)


def _finish(
    pair: _Pair,
    objective: Objective,
    outcome: Outcome,
    before: Mapping[str, Score],
    judged: Bench,
    options: DistillOptions,
    talk: Talk,
) -> None:
    """Write the best student, and say what it is worth; the one that was given where none is better."""
    no_better = outcome.best_step == 0 or outcome.best <= before["student before"].psnr
    as_given = no_better and options.init == "as-is" and not options.int8
    if as_given:  # which is what the run began with, but for rounding, or channels lowered
        pair.student.load_state_dict(pair.start)
    rows = {"bicubic": judged.bicubic, "teacher": judged.score(pair.run_teacher(), pair.model.takes), **before}
    written = [options.out / "student.safetensors"]
    save_plain(pair.student, written[0])
    if isinstance(objective, QuantizationAware):  # in floating point the student is poor: no .onnx of that
        written.append(options.out / "student.int8.onnx")
        write_integers(objective.network, written[1], options.student)
        rows["student after, int8"] = judged.score(objective.network.eval())
    else:
        written.append(options.out / "student.onnx")
        export_onnx(pair.student, written[1])
        rows["student after"] = judged.score(pair.student)
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
    restart(student, options.init, options.seed, from_image=False)
    samples = QuantizeOptions.samples
    crops = [part.float() for part in batches(cut.crops(samples, CROP), samples=samples, seed=0)]
    with keep_temporary_files():  # ONNX Runtime's
        integers = start_integers(student, crops)
    if options.centred:
        integers.centre(crops)
    return QuantizationAware(integers)


def _objective(
    student: PlainNet, teacher: LeveledTeacher, options: DistillOptions, choices: Choices, talk: Talk
) -> CentredStudent:
    """The student under its teacher; the maps of Eq. 12 only where its features count."""
    info, seed = student.info, options.seed
    images = sample_inputs(scale=info.scale, channels=info.channels, input_range=info.input_range)
    crops = batches(images, samples=default_samples(cost_of_graph(teacher.graph).macs_per_pixel), seed=0)
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
