"""Tables of students that no training has seen: what they count, and PSNR on each test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from memsr_compiler.analysis.counted_run import count_multiply_adds
from memsr_compiler.teachers.teacher import as_teacher
from paper.kept import digest
from paper.pairs import SCALE, find_pair
from paper.quality import derive, list_sets, score_network
from paper.settings import Settings
from paper.table import Cell, Numbers, Row, Table

UNREAD = (
    "**What the paper's table of this number holds we do not know**: its text could not be read, and neither its "
    "abstract nor its authors' code tells. Its Tables 1, 2, 3, 5 and 10 are of ways to train and 4 and 11 of networks "
    "([rows](rows.md)). So this is no copy: under the number that is left stands a choice of the method that no other "
    "table here has. There is no number of the paper's to compare with."
)


def make_table(
    number: int, title: str, words: str, students: Mapping[str, Sequence[str]], settings: Settings
) -> Iterator[Table]:
    """The table after each student, by its name: options of `memsrc shrink`."""
    pair = find_pair(settings)
    width, height = settings.size
    sets = list_sets(settings, SCALE)
    teacher = as_teacher(pair.teacher)
    shape = (1, teacher.takes.channels, height // SCALE, width // SCALE)

    def row(name: str, network: object, key: str) -> Row:
        read = as_teacher(network, plain=True)  # type: ignore[arg-type]
        cells: list[Cell] = [Numbers((sum(p.numel() for p in read.module.parameters()) / 1e3,), digits=0)]
        cells.append(Numbers((count_multiply_adds(read.module, shape) / 1e9,), digits=1))
        scores = [score_network(read.module, teacher.takes, key, folder, settings) for folder in sets.values()]
        return Row(name, (*cells, *(Numbers((score["psnr"],)) for score in scores)))

    rows = [row("the teacher", teacher, digest(pair.teacher))]
    for name, options in students.items():
        rows.append(row(name, *derive(settings, *options)))
        yield Table(
            name=f"table{number}-{settings.pair}",
            title=title,
            columns=("", "parameters, K", "multiply-adds, G", *(f"{name}, PSNR" for name in sets)),
            rows=tuple(rows),
            caption=(
                UNREAD,
                f"{words} The teacher: {pair.words}, x2; students before any training, derived from the photographs "
                f"that ship; multiply-adds for an output of {width}x{height}; PSNR-Y in dB.",
            ),
        )
