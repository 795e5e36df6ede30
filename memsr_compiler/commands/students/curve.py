"""The curve that a sweep gives, a row for each network, as a table and as a plot."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from memsr_compiler.commands.interface.check_outputs import write_page
from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import atomic_write
from memsr_compiler.reports.tradeoff import Point, draw_tradeoff

BICUBIC = "bicubic"
TEACHERS = ("teacher", "plain")  # what the network is called that students are derived from


@dataclass(frozen=True)
class Row:
    """A network of the curve: a student, the teacher, or bicubic, which costs nothing.

    The names of the fields are those of the table's columns, and of the columns of `distributed.DeriveStudents`.

    multiply_adds, feature_map_bytes   for an input of the sweep's size
    psnr_y_db    nan where no image was scored;   widths   with blanks between
    arithmetic   of the network, in words; none for bicubic
    """

    network: str
    parameters: int = 0
    multiply_adds: int = 0
    feature_map_bytes: int = 0
    psnr_y_db: float = math.nan
    widths: str = ""
    arithmetic: str = ""


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the curve as CSV."""
    with atomic_write(path) as file:
        file.write(table(rows).encode(errors="backslashreplace"))  # names of files are any bytes


def table(rows: Sequence[Row]) -> str:
    """The curve as CSV, one line a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Row)])
    for row in rows:
        name, *costs, psnr, widths, arithmetic = astuple(row)
        writer.writerow([name, *(["", "", ""] if name == BICUBIC else costs), f"{psnr:.4f}", widths, arithmetic])
    return text.getvalue()


def require_plot_name(path: Path) -> None:
    """Raise InvalidInput for a file that is not named like a plot of ours."""
    if path.suffix != ".svg":
        raise InvalidInput(f"{path}: a plot is written as .svg, which browsers show; name it so")


def write_plot(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw the curve: students as a line, their teacher as a point, bicubic as a level."""
    students = [_point(row) for row in rows if row.network not in (BICUBIC, *TEACHERS)]
    others = [_point(row) for row in rows if row.network in TEACHERS]
    levels = [(row.network, row.psnr_y_db) for row in rows if row.network == BICUBIC]
    write_page(path, draw_tradeoff(students, others, levels, label=title))


def _point(row: Row) -> Point:
    return Point(row.network, row.multiply_adds, row.feature_map_bytes, row.psnr_y_db)
