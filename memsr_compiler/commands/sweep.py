"""memsrc sweep: what students of several widths cost and give; several processes share them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from memsr_compiler.commands.interface.budgets import name_student
from memsr_compiler.commands.interface.check_outputs import check_outputs
from memsr_compiler.commands.interface.options import SweepOptions, TeacherOptions
from memsr_compiler.commands.interface.output import Talk, finite, is_first, silence_others, widths_text
from memsr_compiler.commands.results.approximation import frozen_data, tell_frozen
from memsr_compiler.commands.students.common import cost_cells, cost_data, read_source
from memsr_compiler.commands.students.curve import require_plot_name, write_plot, write_table
from memsr_compiler.commands.students.sweeper import Entry, Place, Sweeper, describe_work
from memsr_compiler.errors import InvalidInput
from memsr_compiler.reports.text import format_decibels
from memsr_compiler.sharing import Launch, Team
from memsr_compiler.torch_helpers import torch_device


def run(teacher_options: TeacherOptions, options: SweepOptions, talk: Talk) -> None:
    """Derive a student for every budget, score it, and show the curve."""
    launch = Launch.find()
    if launch is not None and options.device != "cpu":
        launch.take_gpu()
    talk = silence_others(talk)
    torch_device(options.device)  # raises where it is not to be had
    if options.plot is not None:
        require_plot_name(options.plot)
    files = [path for path in (options.csv, options.plot) if path is not None]
    if launch is not None and not files:
        raise InvalidInput("several processes share a sweep out in the folder of its results: give --csv or --plot")
    check_outputs(
        files, reads=[teacher_options.teacher], images=[options.calibration, options.data], overwrite=options.overwrite
    )
    if options.data is not None and not options.data.is_dir():
        raise InvalidInput(f"--data {options.data}: is no folder; give one with PNG or JPEG files")
    teacher = read_source(teacher_options, options.align, talk, options.calibration)
    talk.say(f"{teacher_options.teacher}: {teacher.words}\n")
    sweeper = Sweeper.open(teacher_options.teacher, teacher, options, options.data, talk)
    own, names = sweeper.own_name, [name_student(budget) for budget in options.budgets]
    with talk.progress() as step:
        work: dict[str, Callable[[], Entry]] = {own: partial(sweeper.run_teacher, step)}
        for name, budget in zip(names, options.budgets, strict=True):
            work[name] = partial(sweeper.run_student, budget, step)
        if launch is None:
            done = {name: each() for name, each in work.items()}
        else:
            hidden = files[0].parent / f".memsrc-sweep-{files[0].name}"
            place = Place.make(hidden, describe_work(teacher_options, sweeper, options.data))
            done = _share(work, place, launch)
    if not is_first():
        return
    tell_frozen(teacher.frozen, talk)
    bicubic, students, itself = sweeper.run_bicubic(), [done[name] for name in names], done[own]
    rows = [sweeper.row(entry) for entry in (bicubic, *students, itself)]
    if options.csv is not None:
        write_table(options.csv, rows)
    if options.plot is not None:
        write_plot(options.plot, rows, sweeper.title)
    size = options.size
    talk.json(
        {
            "written": [str(path) for path in files],
            "psnr_on": sweeper.tests.words,
            "protocol": "edsr",
            "arithmetic": sweeper.arithmetic,
            "size": list(size),
            "mode": options.init,
            "approximation": frozen_data(teacher.frozen),
            "bicubic": _data(bicubic, size),
            own: _data(itself, size),
            "students": [{"name": entry.name, **_data(entry, size)} for entry in students],
        }
    )
    talk.table(
        f"Costs at a {size[0]}x{size[1]} input; PSNR on {sweeper.tests.words}, protocol edsr",
        ("", "parameters", "multiply-adds", "feature maps", "PSNR-Y", "widths"),
        [
            (entry.name, *cost_cells(entry.cost, size), format_decibels(entry.psnr), widths_text(entry.widths))
            for entry in (bicubic, *students, itself)
        ],
    )
    talk.say(f"computed in  {sweeper.arithmetic}")
    if files:
        talk.say(f"written      {', '.join(map(str, files))}")


def _share(work: Mapping[str, Callable[[], Entry]], place: Place, launch: Launch) -> dict[str, Entry]:
    """Do pieces of work together with the other processes of the launch, in a folder that is gone at the end.

    What is done stays in it until all is done: the same sweep goes on with it.
    """
    with Team.join(place.folder, launch) as team:
        for notes in team.each(list(work), lambda name: asdict(place.do_once(name, work[name]))):
            done = {name: Entry.read(notes[name]) for name in work if name in notes}
    if launch.rank == 0:
        place.forget()
    with suppress(OSError):  # others are still in it, the last of them removes it; or the first has died
        place.folder.rmdir()
    return done


def _data(entry: Entry, size: tuple[int, int]) -> dict[str, Any]:
    cost = cost_data(entry.cost, size) if entry.cost is not None else {}
    return {"psnr": finite(entry.psnr), **cost, **({"widths": list(entry.widths)} if entry.widths else {})}
