"""memsrc sweep: what students of several widths cost and give; several processes share them out."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memsr_compiler.analysis.cost import Cost
from memsr_compiler.arithmetic import name_arithmetic
from memsr_compiler.commands.approximation import frozen_data, tell_frozen
from memsr_compiler.commands.check_outputs import check_outputs, write_page
from memsr_compiler.commands.material import Material, read_material
from memsr_compiler.commands.options import StudentOptions, SweepOptions, TeacherOptions
from memsr_compiler.commands.output import Talk, finite, is_first, silence_others, widths_text
from memsr_compiler.commands.student_common import (
    Source,
    cost_cells,
    cost_data,
    derive,
    read_source,
)
from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.evaluation.image_sets import ImageSet, read_image_set
from memsr_compiler.evaluation.scores import enlarge, enlarge_bicubic, mean_psnr
from memsr_compiler.files import atomic_write
from memsr_compiler.reports.text import format_decibels
from memsr_compiler.reports.tradeoff import Point, draw_tradeoff
from memsr_compiler.runtime.runners import Provider, TorchNetwork
from memsr_compiler.sharing import Launch, Team
from memsr_compiler.student.report import ShrinkReport
from memsr_compiler.torch_helpers import copy_module, torch_device
from memsr_compiler.trace.onnx.digest import network_digest
from memsr_compiler.version import VERSION


@dataclass(frozen=True)
class Entry:
    """One line of the curve: a student, the teacher, or bicubic, which costs nothing."""

    name: str
    psnr: float | None
    cost: Cost | None = None
    widths: Sequence[int] = ()


def run(teacher_options: TeacherOptions, options: SweepOptions, talk: Talk) -> None:
    """Derive a student for every budget, score it, and show the curve."""
    launch = Launch.find()
    if launch is not None and options.device != "cpu":
        launch.take_gpu()
    talk = silence_others(talk)
    torch_device(options.device)  # raises where it is not to be had
    if options.plot is not None and options.plot.suffix != ".svg":
        raise InvalidInput(f"{options.plot}: a plot is written as .svg, which browsers show; name it so")
    files = [path for path in (options.csv, options.plot) if path is not None]
    if launch is not None and not files:
        raise InvalidInput("several processes share a sweep out in the folder of its results: give --csv or --plot")
    check_outputs(files, reads=[teacher_options.teacher], overwrite=options.overwrite)
    teacher = read_source(teacher_options, options.align, talk, options.calibration)
    talk.say(f"{teacher_options.teacher}: {teacher.words}\n")
    material = read_material(options.calibration, teacher.takes, talk)
    if options.data is None:
        tests = material.tests(teacher.takes)
    else:
        tests = read_image_set(options.data, teacher.takes.scale, warn=talk.warn)
    with talk.progress() as step:

        def run_teacher() -> Entry:
            step("running the teacher")
            psnr = _psnr(teacher.model, tests, teacher, options.device)
            return Entry("plain" if teacher.is_plain else "teacher", psnr, teacher.cost)

        work: list[Callable[[], Entry]] = [run_teacher]
        work += [partial(_student, teacher, options, budget, material, tests, step) for budget in options.budgets]
        if launch is None:
            itself, *students = [each() for each in work]
        else:
            place = files[0].parent / f".memsrc-sweep-{files[0].name}"
            itself, *students = _share(work, place, _describe_work(teacher_options, options), launch)
    if not is_first():
        return
    tell_frozen(teacher.frozen, talk)
    arithmetic = name_arithmetic("float32", "torch", options.device)
    bicubic = Entry("bicubic", mean_psnr(tests.images, map(enlarge_bicubic, tests.images)))
    size = options.size
    if options.csv is not None:
        with atomic_write(options.csv) as file:
            file.write(table([bicubic, *students, itself], size, arithmetic).encode())
    if options.plot is not None:
        where = f"PSNR on {tests.words}, protocol edsr; {arithmetic}"
        title = f"{teacher_options.teacher.name}: {options.init} students, {where}"
        write_page(options.plot, _plot(students, itself, bicubic, size, title))
    talk.json(
        {
            "written": [str(path) for path in files],
            "psnr_on": tests.words,
            "protocol": "edsr",
            "arithmetic": arithmetic,
            "size": list(size),
            "mode": options.init,
            "approximation": frozen_data(teacher.frozen),
            "bicubic": _data(bicubic, size),
            itself.name: _data(itself, size),
            "students": [{"name": entry.name, **_data(entry, size)} for entry in students],
        }
    )
    talk.table(
        f"Costs at a {size[0]}x{size[1]} input; PSNR on {tests.words}, protocol edsr",
        ("", "parameters", "multiply-adds", "feature maps", "PSNR-Y", "widths"),
        [
            (entry.name, *cost_cells(entry.cost, size), format_decibels(entry.psnr), widths_text(entry.widths))
            for entry in (bicubic, *students, itself)
        ],
    )
    talk.say(f"computed in  {arithmetic}")
    if files:
        talk.say(f"written      {', '.join(map(str, files))}")


def _share(work: Sequence[Callable[[], Entry]], place: Path, key: str, launch: Launch) -> list[Entry]:
    """Do pieces of work together with the other processes of the launch, in a folder that is gone at the end.

    What is done stays in it, under its key, until all is done: the same sweep goes on with it.
    """
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise ExportError(f"{place.parent}: cannot be written ({error.strerror}). Choose another folder.") from None

    def do(piece: str) -> dict[str, Any]:
        kept = place / f"{piece}.json"
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            before = json.loads(kept.read_bytes())
            if before["key"] == _seal(key, before["entry"]):
                return dict(before["entry"])
        entry = asdict(work[int(piece)]())
        with atomic_write(kept) as file:
            file.write(json.dumps({"key": _seal(key, entry), "entry": entry}).encode())
        return entry

    pieces = [str(i) for i in range(len(work))]
    with Team.join(place, launch) as team:
        for notes in team.each(pieces, do):
            entries = [notes.get(piece) for piece in pieces]
    if launch.rank == 0:
        for piece in pieces:
            (place / f"{piece}.json").unlink(missing_ok=True)
    with suppress(OSError):  # others are still in it, the last of them removes it; or the first has died
        place.rmdir()
    return [Entry(**{**entry, "cost": Cost(**entry["cost"])}) for entry in entries if entry is not None]


def _seal(key: str, entry: object) -> str:
    """Hash of a piece of work and of what it gave, as JSON has it: numbers that were changed are numbers, too."""
    return hashlib.sha256(f"{key} {json.dumps(entry)}".encode()).hexdigest()


def _describe_work(teacher: TeacherOptions, options: SweepOptions) -> str:
    """Hash of all that students and their scores depend on; of folders, names, sizes and times of what is in them."""
    states = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for folder in (options.calibration, options.data)
        if folder is not None
        for path in sorted(folder.rglob("*"))
    ]
    alike = replace(options, csv=None, plot=None, overwrite=False)
    said = (VERSION, network_digest(teacher.teacher), teacher, alike, states)
    return hashlib.sha256(repr(said).encode(errors="surrogateescape")).hexdigest()


def _student(
    teacher: Source,
    options: StudentOptions,
    budget: Mapping[str, Any],
    material: Material,
    tests: ImageSet,
    step: Callable[[str], None],
) -> Entry:
    name = " ".join(f"{key} {value}" for key, value in budget.items())
    net = derive(teacher, options, budget, material, lambda what: step(f"{name}: {what}"))
    step(f"{name}: running it")
    report: object = net.report
    assert isinstance(report, ShrinkReport), "shrink leaves its report with the student"
    return Entry(name, _psnr(net, tests, teacher, options.device), report.cost, net.widths)


def _psnr(network: nn.Module, tests: ImageSet, teacher: Source, device: Provider) -> float | None:
    single = TorchNetwork(copy_module(network, torch.float32), provider=device)
    return mean_psnr(tests.images, (enlarge(single, teacher.takes, image) for image in tests.images))


def _data(entry: Entry, size: tuple[int, int]) -> dict[str, Any]:
    cost = cost_data(entry.cost, size) if entry.cost is not None else {}
    return {"psnr": finite(entry.psnr), **cost, **({"widths": list(entry.widths)} if entry.widths else {})}


def table(entries: Sequence[Entry], size: tuple[int, int], arithmetic: str) -> str:
    """The curve as CSV, one line an entry, costs for an input of `size` (width, height).

    arithmetic   of the networks, in words
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["network", "parameters", "multiply_adds", "feature_map_bytes", "psnr_y_db", "widths", "arithmetic"]
    )
    for entry in entries:
        cost = cost_data(entry.cost, size) if entry.cost is not None else {}
        numbers = [cost.get(key, "") for key in ("parameters", "macs", "feature_map_bytes")]
        score = "" if entry.psnr is None else f"{entry.psnr:.4f}"
        of_entry = "" if entry.cost is None else arithmetic  # bicubic is no network
        writer.writerow([entry.name, *numbers, score, " ".join(map(str, entry.widths)), of_entry])
    return text.getvalue()


def _plot(students: Sequence[Entry], itself: Entry, bicubic: Entry, size: tuple[int, int], title: str) -> str:
    levels = [] if bicubic.psnr is None else [(bicubic.name, bicubic.psnr)]
    return draw_tradeoff([_point(s, size) for s in students], [_point(itself, size)], levels, label=title)


def _point(entry: Entry, size: tuple[int, int]) -> Point:
    assert entry.cost is not None, f"{entry.name} has a cost"
    width, height = size
    psnr = math.nan if entry.psnr is None else entry.psnr
    return Point(entry.name, entry.cost.macs_per_pixel * width * height, entry.cost.memory(height, width), psnr)
