"""Students of one teacher, each derived and scored by itself: by one process after another, or by several.

What several have done they keep in a folder that they share.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from memsr_compiler.analysis.cost import Cost
from memsr_compiler.arithmetic import name_arithmetic
from memsr_compiler.commands.given.material import Material, read_material
from memsr_compiler.commands.given.own_code import digest_code
from memsr_compiler.commands.interface.budgets import name_student
from memsr_compiler.commands.interface.options import StudentOptions, TeacherOptions
from memsr_compiler.commands.interface.output import Step, Talk
from memsr_compiler.commands.students.common import Source, derive
from memsr_compiler.commands.students.curve import BICUBIC, TEACHERS, Row
from memsr_compiler.errors import ExportError
from memsr_compiler.evaluation.image_sets import ImageSet, read_image_set
from memsr_compiler.evaluation.scores import enlarge, enlarge_bicubic, mean_psnr
from memsr_compiler.files import atomic_write
from memsr_compiler.runtime.runners import TorchNetwork
from memsr_compiler.student.report import ShrinkReport
from memsr_compiler.torch_helpers import copy_module
from memsr_compiler.trace.onnx.digest import network_digest
from memsr_compiler.version import VERSION

Budget = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A student as a sweep knows it, or the teacher, or bicubic, which costs nothing."""

    name: str
    psnr: float | None
    cost: Cost | None = None
    widths: Sequence[int] = ()

    @staticmethod
    def read(data: Mapping[str, Any]) -> Entry:
        """The entry that `asdict` and JSON have made this of."""
        cost = data["cost"]
        return Entry(**{**data, "cost": None if cost is None else Cost(**cost)})


@dataclass(frozen=True)
class Sweeper:
    """A teacher that was read, and the images that its students are derived from and scored on."""

    path: Path
    teacher: Source
    options: StudentOptions
    material: Material
    tests: ImageSet

    @staticmethod
    def open(path: Path, teacher: Source, options: StudentOptions, data: Path | None, talk: Talk) -> Sweeper:
        """Read the images; `data`: a folder to score on, None: calibration images.  Raises InvalidInput."""
        material = read_material(options.calibration, teacher.takes, talk)
        if data is None:
            tests = material.tests(teacher.takes)
        else:
            tests = read_image_set(data, teacher.takes.scale, warn=talk.warn)
        return Sweeper(path, teacher, options, material, tests)

    @property
    def own_name(self) -> str:
        """The teacher's name in the curve."""
        return TEACHERS[self.teacher.is_plain]

    @property
    def arithmetic(self) -> str:
        """The arithmetic of networks that are scored, in words."""
        return name_arithmetic("float32", "torch", self.options.device)

    @property
    def title(self) -> str:
        """Which curve this is, in words."""
        where = f"PSNR on {self.tests.words}, protocol edsr; {self.arithmetic}"
        return f"{self.path.name}: {self.options.init} students, {where}"

    def run_bicubic(self) -> Entry:
        """Score bicubic interpolation."""
        return Entry(BICUBIC, mean_psnr(self.tests.images, map(enlarge_bicubic, self.tests.images)))

    def run_teacher(self, step: Step) -> Entry:
        """Score the teacher itself."""
        step("running the teacher")
        return Entry(self.own_name, self._psnr(self.teacher.model), self.teacher.cost)

    def run_student(self, budget: Budget, step: Step) -> Entry:
        """Derive a student and score it.  Raises InvalidInput for a budget that is none, or that none fits."""
        name = name_student(budget)
        net = derive(self.teacher, self.options, budget, self.material, lambda what: step(f"{name}: {what}"))
        step(f"{name}: running it")
        report: object = net.report
        assert isinstance(report, ShrinkReport), "shrink leaves its report with the student"
        return Entry(name, self._psnr(net), report.cost, net.widths)

    def row(self, entry: Entry) -> Row:
        """An entry as a row of the curve."""
        psnr = math.nan if entry.psnr is None else entry.psnr
        if entry.cost is None:
            return Row(entry.name, psnr_y_db=psnr)
        width, height = self.options.size
        return Row(
            entry.name,
            entry.cost.parameters,
            entry.cost.macs_per_pixel * width * height,
            entry.cost.memory(height, width),
            psnr,
            " ".join(map(str, entry.widths)),
            self.arithmetic,
        )

    def _psnr(self, network: nn.Module) -> float | None:
        single = TorchNetwork(copy_module(network, torch.float32), provider=self.options.device)
        takes = self.teacher.takes
        return mean_psnr(self.tests.images, (enlarge(single, takes, image) for image in self.tests.images))


def describe_work(reading: TeacherOptions, sweeper: Sweeper, data: Path | None) -> str:
    """Hash of all that students and their scores depend on, besides budgets.

    The teacher has been read: own code is then imported.  Of images, the pixels that were read: folders lie behind
    links, and files are replaced by others that look like them.
    """
    alike = [(field.name, getattr(sweeper.options, field.name)) for field in fields(StudentOptions)]
    shown = [(image.name, _digest(image.pixels)) for image in sweeper.material.photographs or ()]
    scored = [(image.name, _digest(image.high), _digest(image.low)) for image in sweeper.tests.images]
    said = (VERSION, network_digest(reading.teacher), digest_code(reading.arch), reading, alike, data, shown, scored)
    return hashlib.sha256(repr(said).encode(errors="surrogateescape")).hexdigest()


def _digest(pixels: NDArray[Any]) -> str:
    return hashlib.sha256(f"{pixels.dtype} {pixels.shape} ".encode() + pixels.tobytes()).hexdigest()


@dataclass(frozen=True)
class Place:
    """A folder in which several processes keep what they have done.

    key   of what that depends on, besides its name, by `describe_work`
    """

    folder: Path
    key: str

    @staticmethod
    def make(folder: Path, key: str) -> Place:
        """The folder is made, if it is not there.  Raises ExportError where that cannot be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExportError(f"{folder}: cannot be made a folder ({error.strerror}). Choose another place.") from None
        return Place(folder, key)

    def do_once(self, name: str, work: Callable[[], Entry]) -> Entry:
        """Do a piece of work and keep what it gives, or give what is kept; by one process at a time."""
        kept = self.folder / f"{hashlib.sha256(f'{self.key} {name}'.encode()).hexdigest()[:24]}.json"
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            before = json.loads(kept.read_bytes())
            if before["seal"] == self._seal(name, before["entry"]):
                return Entry.read(before["entry"])
        entry = asdict(work())
        with atomic_write(kept) as file:
            file.write(json.dumps({"seal": self._seal(name, entry), "entry": entry}).encode())
        return Entry.read(entry)

    def forget(self) -> None:
        """Remove what is kept."""
        for kept in self.folder.glob("*.json"):
            kept.unlink(missing_ok=True)

    def _seal(self, name: str, entry: object) -> str:
        """Hash of a piece of work and of what it gave, as JSON has it: numbers that were changed are numbers, too."""
        return hashlib.sha256(f"{self.key} {name} {json.dumps(entry)}".encode()).hexdigest()
