"""memsrc similarity: two networks' features, layer by layer."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from memsr_compiler.commands.check_outputs import check_outputs
from memsr_compiler.commands.output import Talk
from memsr_compiler.commands.student_common import Source, StudentOptions, material, source
from memsr_compiler.commands.teachers import TeacherOptions
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.cka import linear_cka
from memsr_compiler.files import atomic_write
from memsr_compiler.plain.read import is_plain
from memsr_compiler.reports.matrix import draw_matrix
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.student.crops import batches
from memsr_compiler.student.levels import LeveledTeacher


@dataclass(frozen=True)
class SimilarityOptions:
    """As given on the command line.  data: images; None: the photographs that ship."""

    networks: tuple[Path, Path]
    teacher: TeacherOptions
    data: Path | None
    samples: int
    csv: Path | None
    plot: Path | None


def run(options: SimilarityOptions, talk: Talk) -> None:
    """Read both, compare, show."""
    if options.plot is not None and options.plot.suffix != ".svg":
        raise InvalidInput(f"{options.plot}: a plot is written as .svg, which browsers show; name it so")
    files = [path for path in (options.csv, options.plot) if path is not None]
    for path in options.networks:
        check_outputs(path, files)
    a, b = (source(_own(options.teacher, path), 8, talk) for path in options.networks)
    values = linear_cka(_levels(a), _levels(b), _images(a, options, talk))
    names = [path.name for path in options.networks]
    if options.csv is not None:
        with atomic_write(options.csv) as file:
            file.write(_table(values).encode())
    if options.plot is not None:
        with atomic_write(options.plot) as file:
            file.write(draw_matrix(values.tolist(), rows=names[0], columns=names[1], label="Linear CKA").encode())
    talk.json({"networks": names, "cka": values.tolist(), "written": [str(path) for path in files]})
    best = [(int(row.argmax()) + 1, f"{float(row.max()):.4f}") for row in values]
    together = len(values) == values.shape[1]
    talk.table(
        f"Linear CKA of the layers' features: {names[0]} and {names[1]}",
        ("layer", *(["same layer, CKA"] if together else []), "most like layer", "its CKA"),
        [
            (f"{i + 1:>2}", *([f"{values[i, i]:.4f}"] if together else []), str(number), value)
            for i, (number, value) in enumerate(best)
        ],
    )
    if together:
        talk.say(f"mean         {float(values.diagonal().mean()):.4f} over layers of the same number")
    if files:
        talk.say(f"written      {', '.join(map(str, files))}")


def _own(options: TeacherOptions, path: Path) -> TeacherOptions:
    """--arch is for what is not plain: a teacher of one's own code, beside its student."""
    return TeacherOptions(path) if is_plain(path) else replace(options, path=path)


def _levels(network: Source) -> LeveledTeacher:
    return LeveledTeacher.of(network.model, network.shape.input_range)


def _images(network: Source, options: SimilarityOptions, talk: Talk) -> list[Tensor]:
    shape = network.shape
    given = material(StudentOptions(calibration=options.data), shape, talk).calibration
    images = given or sample_inputs(scale=shape.scale, channels=shape.channels, input_range=shape.input_range)
    return batches(images, samples=options.samples)


def _table(values: Tensor) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", *range(1, values.shape[1] + 1)])
    for i, row in enumerate(values.tolist(), 1):
        writer.writerow([i, *(f"{value:.6f}" for value in row)])
    return text.getvalue()
