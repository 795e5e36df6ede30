"""A sweep's students, derived and scored by many workers, and the curve that they give."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.commands.interface.budgets import name_student, parse_budget
from memsr_compiler.commands.interface.options import PlainOrTeacherOptions, StudentOptions
from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.commands.students.curve import BICUBIC, Row, require_plot_name, write_plot, write_table
from memsr_compiler.distributed.batches import RUN, Batch, column
from memsr_compiler.errors import InvalidInput
from memsr_compiler.locks import claim, share_folder
from memsr_compiler.models.catalogue import find_file

if TYPE_CHECKING:
    from memsr_compiler.commands.students.sweeper import Entry

TEACHER = "teacher"


class DeriveStudents:
    """A worker that derives students of a teacher and scores them, as `memsrc sweep` does.

    A batch has the column "budget": how narrow a student is to be, an option of `memsrc shrink` with its value ("theta
    0.05", "width 16", "max-macs 30G", "width 16 layers 12"); or "teacher" for the teacher itself, "bicubic" for no
    network at all.  The result has it too, the columns of `memsrc sweep --csv`, from "network" to "arithmetic" (0, nan
    and "" for what there is not), "curve", a title, and "error", why there is no such student ("" where there is).

    What is done is kept in a folder that all workers share, and is not done again: a batch that is given to another
    worker after the first has died goes on where that was, no student is derived by two, and a later run with more
    budgets derives only those.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        teacher: str | os.PathLike[str],
        data: str | os.PathLike[str] | None = None,
        threads: int = 1,
        **options: Any,
    ) -> None:
        """Read a teacher and images; the folder, made if need be, is on a file system that all workers share.

        teacher    the file of one, or of a plain network
        data       a folder of images to score on; None: calibration images, those that ship if no others are given
        threads    of the processor, as many as the worker was given
        options    how a teacher is read and all students are derived: those of `memsrc sweep` by their names in Python,
                   as in calibration="photographs", samples=24, refit=0, image_skip="none", arch="edsr"

        Raises InvalidInput for what cannot be read or does not fit, UnsupportedModel as `read_teacher` does,
        ExportError where the folder cannot be made.
        """
        from memsr_compiler.commands.students.common import (
            read_source,  # with torch; workers that enlarge have none
        )
        from memsr_compiler.commands.students.sweeper import Place, Sweeper, describe_work
        from memsr_compiler.torch_helpers import some_threads, torch_device

        reading, student = _sort_options(Path(find_file(os.fspath(teacher))), options)
        torch_device(student.device)  # raises where it is not to be had
        images = None if data is None else Path(data)
        self._threads = threads
        with some_threads(threads):
            source = read_source(reading, student.align, Talk(), student.calibration, own_process=False)
            self._sweeper = Sweeper.open(reading.teacher, source, student, images, Talk())
        self._place = Place.make(Path(folder), describe_work(reading, self._sweeper, images))

    def __call__(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Derive and score a batch's students.

        Raises InvalidInput for a batch without budgets, and where others than such workers are at work in the folder.
        """
        from memsr_compiler.torch_helpers import some_threads

        budgets = [str(budget) for budget in column(batch, "budget")]
        with share_folder(self._place.folder, RUN), some_threads(self._threads):
            told = [self._tell(budget) for budget in budgets]
        return {name: np.array([row[name] for row in told]) for name in told[0]} if told else {}

    def _tell(self, budget: str) -> dict[str, Any]:
        try:
            row, error = self._sweeper.row(self._do(budget)), ""
        except InvalidInput as wrong:
            row, error = Row(budget), str(wrong)
        return {"budget": budget, **asdict(row), "curve": self._sweeper.title, "error": error}

    def _do(self, budget: str) -> Entry:
        name, work = self._plan(budget)
        with claim(self._place.folder, f"piece {name}", wait=True):
            return self._place.do_once(name, work)

    def _plan(self, budget: str) -> tuple[str, Callable[[], Entry]]:
        """A budget's name, and what is to be done for it."""
        if budget == BICUBIC:
            return BICUBIC, self._sweeper.run_bicubic
        if budget == TEACHER:
            return TEACHER, partial(self._sweeper.run_teacher, _be_silent)
        asked = parse_budget(budget)
        return name_student(asked), partial(self._sweeper.run_student, asked, _be_silent)


def write_curve(
    rows: Iterable[Mapping[str, Any]],
    *,
    csv: str | os.PathLike[str] | None = None,
    plot: str | os.PathLike[str] | None = None,
) -> None:
    """Write what `DeriveStudents` gave as `memsrc sweep --csv --plot` does, files that are there already are replaced.

    rows   of one sweep, as they are to stand in the table: there bicubic comes first, the teacher last

    Raises InvalidInput for rows of which one has an error, or that are not all of one curve, and for a plot that is not
    named .svg; ExportError where a file cannot be written.
    """
    told = list(rows)
    for row in told:
        if row["error"]:
            raise InvalidInput(f"{row['budget']}: {row['error']}")
    curves = sorted({row["curve"] for row in told})
    if len(curves) != 1:
        raise InvalidInput(f"the rows are of {len(curves)} curves, want one: {'; '.join(curves) or 'there are none'}")
    curve = [Row(**{field.name: row[field.name] for field in fields(Row)}) for row in told]
    if plot is not None:
        require_plot_name(Path(plot))
    if csv is not None:
        write_table(Path(csv), curve)
    if plot is not None:
        write_plot(Path(plot), curve, curves[0])


def _sort_options(teacher: Path, options: Mapping[str, Any]) -> tuple[PlainOrTeacherOptions, StudentOptions]:
    """Options by what they are for: reading the teacher, or deriving students.  Raises InvalidInput for others."""
    of_reading, of_students = ({f.name for f in fields(kind)} for kind in (PlainOrTeacherOptions, StudentOptions))
    if unknown := sorted({*options} - of_reading - of_students):
        known = ", ".join(sorted(of_reading - {"teacher"} | of_students))
        raise InvalidInput(f"{', '.join(unknown)}: there is no such option; there are {known}")
    reading = {name: value for name, value in options.items() if name in of_reading}
    student = {name: value for name, value in options.items() if name in of_students}
    if student.get("calibration") is not None:
        student["calibration"] = Path(student["calibration"])
    return PlainOrTeacherOptions(teacher=teacher, **reading), StudentOptions(**student)


def _be_silent(what: str) -> None:
    """Say nothing of progress: nobody watches a worker."""
