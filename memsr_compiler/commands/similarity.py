"""memsrc similarity: two networks' features, layer by layer."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from torch import Tensor

from memsr_compiler.arithmetic import FULL_FLOAT32, name_arithmetic
from memsr_compiler.commands.given.material import read_material
from memsr_compiler.commands.interface.check_outputs import check_outputs, write_page
from memsr_compiler.commands.interface.options import ReadingOptions, SimilarityOptions, TeacherOptions
from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.commands.students.common import Source, read_source
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.cka import linear_cka
from memsr_compiler.files import atomic_write
from memsr_compiler.plain.read import is_plain
from memsr_compiler.reports.matrix import draw_matrix
from memsr_compiler.student.crops import batches
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.torch_helpers import torch_device


def run(options: SimilarityOptions, reading: ReadingOptions, talk: Talk) -> None:
    """Read both networks, compare, show."""
    torch_device(options.device)  # raises where it is not to be had
    if options.plot is not None and options.plot.suffix != ".svg":
        raise InvalidInput(f"{options.plot}: a plot is written as .svg, which browsers show; name it so")
    files = [path for path in (options.csv, options.plot) if path is not None]
    networks = (options.first, options.second)
    check_outputs(files, reads=networks, images=[options.data], overwrite=options.overwrite)
    a, b = (read_source(_own(reading, path), 8, talk) for path in networks)
    values = linear_cka(_levels(a), _levels(b), _images(a, options, talk), device=options.device)
    names = [path.name for path in networks]
    if options.csv is not None:
        with atomic_write(options.csv) as file:
            file.write(_table(values).encode())
    if options.plot is not None:
        picture = draw_matrix(values.tolist(), rows=names[0], columns=names[1], label="Linear CKA")
        write_page(options.plot, picture)
    arithmetic = name_arithmetic(FULL_FLOAT32, "torch", options.device)
    written = [str(path) for path in files]
    talk.json({"networks": names, "cka": values.tolist(), "written": written, "arithmetic": arithmetic})
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
    talk.say(f"computed in  {arithmetic}; covariances in float64")
    if files:
        talk.say(f"written      {', '.join(written)}")


def _own(reading: ReadingOptions, path: Path) -> TeacherOptions:
    """Ways to read one of the files: --arch is for the one that is not plain, a teacher of one's own code."""
    return TeacherOptions(teacher=path) if is_plain(path) else reading.of(path)


def _levels(network: Source) -> LeveledTeacher:
    return LeveledTeacher.of(network.model, network.takes.input_range, frozen=network.frozen)


def _images(network: Source, options: SimilarityOptions, talk: Talk) -> list[Tensor]:
    images = read_material(options.data, network.takes, talk).inputs(network.takes)
    return batches(images, samples=options.samples)


def _table(values: Tensor) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", *range(1, values.shape[1] + 1)])
    for i, row in enumerate(values.tolist(), 1):
        writer.writerow([i, *(f"{value:.6f}" for value in row)])
    return text.getvalue()
