"""How the commands talk: tables and messages on standard output, progress on standard error."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table


@dataclass
class Talk:
    """quiet: errors only;  verbose: also what each pass did;  as_json: one JSON object and nothing else."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    out: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    def __post_init__(self) -> None:
        if not self.out.is_terminal:
            self.out.width = 160

    @property
    def silent(self) -> bool:
        return self.quiet or self.as_json

    def say(self, text: str) -> None:
        if not self.silent:
            self.out.print(text, markup=False)

    def warn(self, text: str) -> None:
        if not self.quiet:
            self.err.print(f"warning: {text}", style="yellow", markup=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """The first column is text, the others are numbers."""
        if self.silent:
            return
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
        )
        for i, column in enumerate(columns):
            name = i == 0  # whole and on one line, for searching and copying
            table.add_column(
                column, justify="left" if name else "right", overflow="fold", no_wrap=name, header_style="dim"
            )
        for row in rows:
            table.add_row(*(str(cell).replace("[", "\\[") for cell in row))
        self.out.print(table)
        self.out.print()

    def json(self, data: dict[str, Any]) -> None:
        if self.as_json:
            self.out.file.write(json.dumps(data, indent=2) + "\n")

    @contextmanager
    def progress(self, total: int | None = None) -> Iterator[Any]:
        """Yields step(description): shows what is going on until the next step."""
        if self.silent or not self.err.is_terminal:
            yield lambda description: None
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task("starting", total=total)

            def step(description: str) -> None:
                bar.update(task, description=description, advance=1)

            yield step

    @contextmanager
    def bar(self, total: float) -> Iterator[Any]:
        """Yields done(amount, description): how much of the total has been done since the last time; time left."""
        if self.silent or not self.err.is_terminal:
            yield lambda amount, description: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task("starting", total=total)

            def done(amount: float, description: str) -> None:
                bar.update(task, description=description, advance=amount)

            yield done


def is_first() -> bool:
    """Of several processes the first one talks and writes; torchrun and accelerate say which it is."""
    return os.environ.get("RANK", "0") == "0"


def silenced(talk: Talk) -> Talk:
    return talk if is_first() else Talk(quiet=True)


def finite(value: float | None) -> float | None:
    """The value for JSON, which has no infinity."""
    return value if value is not None and math.isfinite(value) else None


def mebibytes(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB"


def thousands(count: float) -> str:
    """1234567 -> '1,235 K'."""
    return f"{count / 1e3:,.0f} K"


def widths_text(widths: Sequence[int]) -> str:
    """'3, 128, (192, 256) x 15, 12': repeats of one, two or four numbers are counted."""
    parts: list[str] = []
    i = 0
    while i < len(widths):
        for period in (1, 2, 4):
            unit = tuple(widths[i : i + period])
            times = 1
            while tuple(widths[i + times * period : i + (times + 1) * period]) == unit:
                times += 1
            if times > 2:
                text = ", ".join(map(str, unit))
                parts.append(f"{f'({text})' if period > 1 else text} x {times}")
                i += times * period
                break
        else:
            parts.append(str(widths[i]))
            i += 1
    return ", ".join(parts)
