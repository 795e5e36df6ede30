"""A table of the paper as a value: our numbers, the paper's in brackets, what they were measured with."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memsr_compiler.files import atomic_write

UNKNOWN = "?"
"""In place of a number that the paper has and we do not know."""


@dataclass(frozen=True)
class Numbers:
    """A cell.

    values   ours, one for each seed; none: not measured
    paper    the paper's as it is printed there; UNKNOWN; empty where the paper has none
    digits   behind the point
    """

    values: tuple[float, ...]
    paper: str = ""
    digits: int = 3

    def words(self) -> str:
        """'31.452 ± 0.013 (31.61)': the mean, half of the distance from the lowest to the highest, the paper's."""
        ours = "-"
        if self.values:
            ours = f"{sum(self.values) / len(self.values):,.{self.digits}f}"
        if len(self.values) > 1:
            ours += f" ± {(max(self.values) - min(self.values)) / 2:,.{self.digits}f}"
        return f"{ours} ({self.paper})" if self.paper else ours


Cell = str | Numbers


@dataclass(frozen=True)
class Row:
    """A row: its name, and a cell for each column but the first."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table, or the numbers of a figure.

    name      of its files: table1-small
    title     its heading
    columns   headings; the first is that of the rows' names
    caption   paragraphs above it: what it is, machine, data, steps, seeds
    notes     lines below it
    picture   SVG; empty where it is no figure
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: tuple[str, ...]
    notes: tuple[str, ...] = ()
    picture: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row.cells) == len(self.columns) - 1, f"{self.name}: {row.name} has {len(row.cells)} cells"

    def to_markdown(self) -> str:
        """The table as a page."""
        lines = [_join(self.columns), "|" + "---|" * len(self.columns)]
        lines += [_join((row.name, *(_words(cell) for cell in row.cells))) for row in self.rows]
        picture = [f"![{self.title}]({self.name}.svg)"] if self.picture else []
        notes = ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n\n".join([f"# {self.title}", *self.caption, *picture, "\n".join(lines), *notes]) + "\n"

    def to_csv(self) -> str:
        """A line for each number: row, column, which of our runs (0, 1, ...), the number, the paper's."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", "column", "run", "value", "paper"])
        for row in self.rows:
            for column, cell in zip(self.columns[1:], row.cells, strict=True):
                values: Sequence[float | str] = (cell,) if isinstance(cell, str) else cell.values
                paper = "" if isinstance(cell, str) else cell.paper
                writer.writerows([row.name, column, run, value, paper] for run, value in enumerate(values))
        return text.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """Write it as .md and .csv, and the picture as .svg.  Raises ExportError where that fails."""
        folder.mkdir(parents=True, exist_ok=True)
        contents = {".md": self.to_markdown(), ".csv": self.to_csv()} | ({".svg": self.picture} if self.picture else {})
        for suffix, content in contents.items():
            with atomic_write(folder / f"{self.name}{suffix}") as file:
                file.write(content.encode())
        return [folder / f"{self.name}{suffix}" for suffix in contents]


def _words(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.words()


def _join(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
