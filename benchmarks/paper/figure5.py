"""MemSR's Figure 5: linear CKA of the teacher's layers and three students': direct, initialised, complete."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.cka import linear_cka
from memsr_compiler.images.files import sample_photographs, to_tensor
from memsr_compiler.reports.colours import PAPER
from memsr_compiler.reports.matrix import draw_matrix
from memsr_compiler.student.crops import batches
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.teachers.teacher import as_teacher
from paper import methods
from paper.pairs import SCALE, find_pair
from paper.runs import load_student
from paper.settings import Settings
from paper.table import Cell, Numbers, Row, Table

STUDENTS = {
    "direct": methods.HE[0],
    "initialised": methods.INITIALISED[0],
    "complete": methods.WHOLE[0],
}
SAMPLES = 36  # crops

NOTES = (
    "Direct: new weights (He), no teacher. Initialised: MemSR's first weights, trained on the photographs alone. "
    "Complete: distilled too. As published.",
    "1 for features that are turned or scaled versions of each other, 0 for uncorrelated ones; crops of the "
    "photographs that ship, a sample for each pixel. The columns: a layer of the student and the teacher's of the "
    "same number.",
    "The paper's picture is in no text that we could read.",
)


def make(settings: Settings) -> Iterator[Table]:
    """Figure 5, after each of its students; they are runs of Table 1."""
    pair = find_pair(settings)
    teacher = as_teacher(pair.teacher)
    low, high = teacher.input_range
    images = [to_tensor(image) * (high - low) + low for image in sample_photographs(scale=SCALE)]
    crops = batches(images, samples=4 if settings.smoke else SAMPLES)
    levels = _read_levels(teacher.module, teacher.input_range)
    values: dict[str, Tensor] = {}
    for name, method in STUDENTS.items():
        net = load_student(method, settings.all_seeds[0], settings)
        if net is not None:
            values[name] = linear_cka(levels, _read_levels(net, net.info.input_range), crops, device=settings.device)
            yield _table(values, pair.words, settings)
    if not values:
        raise InvalidInput("figure5: none of its three runs of Table 1 is done; leave --done out")


def _read_levels(network: nn.Module, input_range: tuple[float, float]) -> LeveledTeacher:
    return LeveledTeacher.of(network, input_range)


def _table(values: Mapping[str, Tensor], words: str, settings: Settings) -> Table:
    layers = max(len(matrix.diagonal()) for matrix in values.values())
    title = "Figure 5: how alike teacher and students see"
    return Table(
        name=f"figure5-{settings.pair}",
        title=title,
        columns=("", "mean", *(f"{layer}" for layer in range(1, layers + 1))),
        rows=tuple(_row(name, matrix, layers) for name, matrix in values.items()),
        caption=(
            f"Linear CKA of layers; the teacher: {words}; students after {settings.steps:,} steps of {settings.batch} "
            f"patches of {settings.patch}x{settings.patch} pixels, seed {settings.all_seeds[0]}.",
        ),
        notes=NOTES,
        picture=_join(
            [
                draw_matrix(m.tolist(), rows="the teacher", columns="the student", label=f"Linear CKA: {name}")
                for name, m in values.items()
            ],
            title,
        ),
    )


def _row(name: str, matrix: Tensor, layers: int) -> Row:
    same = matrix.diagonal().tolist()
    cells: tuple[Cell, ...] = tuple(Numbers((value,)) for value in same)
    return Row(name, (Numbers((sum(same) / len(same),)), *cells, *("" for _ in range(layers - len(same)))))


def _join(pictures: list[str], title: str) -> str:
    """Pictures side by side, as one."""
    sizes = [[int(float(n)) for n in re.findall(r'(?:width|height)="([\d.]+)"', text)[:2]] for text in pictures]
    width, height = sum(wide for wide, _ in sizes), max(tall for _, tall in sizes)
    placed, x = [], 0
    for text, (wide, _) in zip(pictures, sizes, strict=True):
        placed.append(text.replace("<svg ", f'<svg x="{x}" ', 1))
        x += wide
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<title>{title}</title><rect width="{width}" height="{height}" fill="{PAPER}"/>{"".join(placed)}</svg>\n'
    )
