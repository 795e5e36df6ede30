"""memsrc distill: a student fine-tuned on photographs, under its teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from memsr_compiler.analysis.cost import cost_of_graph
from memsr_compiler.commands.output import Talk, is_first, silenced
from memsr_compiler.commands.student_common import source
from memsr_compiler.commands.teachers import TeacherOptions
from memsr_compiler.commands.training_common import (
    TrainingOptions,
    begin,
    bench,
    check,
    done_before,
    patches,
    recipe,
    shown,
    told,
)
from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.student.crops import batches, default_samples
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.torch_helpers import copy_module
from memsr_compiler.training.losses import Distillation
from memsr_compiler.training.starts import Start, initial_maps, input_means, no_means, random_maps, restart


@dataclass(frozen=True)
class DistillOptions:
    """As given on the command line.

    weight, epsilon   lambda and epsilon of Eq. 14;   maps   "initialised" or "random"
    start             the student's weights: as they are, or new ones;   centred  train them on centred features
    scale             None: the student's
    """

    student: Path
    teacher: TeacherOptions
    training: TrainingOptions
    weight: float
    epsilon: float
    maps: str
    start: Start
    centred: bool
    scale: int | None


def run(options: DistillOptions, talk: Talk) -> None:
    """Read both, train, write the best."""
    talk = silenced(talk)
    training = options.training
    how = recipe(training)
    if not (math.isfinite(options.weight) and options.weight >= 0):
        raise InvalidInput(f"--lambda {options.weight}: want a number from 0 on; 0.3 is the paper's")
    if not 0 < options.epsilon <= 1:
        raise InvalidInput(f"--epsilon {options.epsilon}: want a number above 0, at most 1; 1e-5 is the paper's")
    check(training, how)
    student = load_plain(options.student, require_certificate=False).float()
    student.certificate = None  # it speaks of these weights, and others will come
    model = source(options.teacher, 8, talk)
    input_range = model.shape.input_range
    teacher = LeveledTeacher.of(model.model, input_range)
    info = student.info
    if info.teacher_sha256 != teacher.sha256:
        talk.warn(
            f"{options.student}: was derived from another network than {options.teacher.path} "
            f"({info.teacher_sha256[:12]}, this one is {teacher.sha256[:12]})"
        )
    takes = Takes(info.scale, info.channels, info.input_range)
    if options.scale not in (None, takes.scale):
        raise InvalidInput(f"--scale {options.scale}: the student enlarges by {takes.scale}; leave --scale out")
    if input_range != takes.input_range:
        raise InvalidInput(f"the student takes values in {takes.input_range}, the teacher in {input_range}")
    talk.say(f"teacher      {options.teacher.path}: {model.words}")
    objective = _objective(student, teacher, default_samples(cost_of_graph(teacher.graph).macs_per_pixel), options)
    cut = patches(training, takes, talk)
    judged = bench(training, takes, talk)
    begin(training)
    before = judged.score(load_plain(options.student, require_certificate=False).float())
    from memsr_compiler.training.loop import run as train

    with shown(talk, how.steps, done_before(training.resume)) as on_step:
        outcome = train(
            objective,
            cut,
            how,
            training.out,
            validate=judged.psnr,
            resume=training.resume,
            on_step=on_step,
        )
    if not is_first():
        return
    written = [training.out / "student.safetensors", training.out / "student.onnx"]
    save_plain(student, written[0])
    export_onnx(student, written[1])
    rows = {
        "bicubic": judged.bicubic,
        "teacher": judged.score(copy_module(model.model, torch.float32)),
        "student before": before,
        "student after": judged.score(student),
    }
    told(outcome, rows, judged.words, written, talk)


def _objective(student: PlainNet, teacher: LeveledTeacher, samples: int, options: DistillOptions) -> Distillation:
    info, seed = student.info, options.training.seed
    images = sample_inputs(scale=info.scale, channels=info.channels, input_range=info.input_range)
    crops = batches(images, samples=samples, seed=0)
    random = options.maps == "random"
    maps = random_maps(teacher, student, seed) if random else initial_maps(teacher, student, crops)
    restart(student, options.start, seed)
    means = input_means(student, crops) if options.centred else no_means(student)
    return Distillation(student, teacher, maps, weight=options.weight, epsilon=options.epsilon, means=means)
