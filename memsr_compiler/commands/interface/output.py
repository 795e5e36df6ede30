"""Output of commands: tables and messages on standard output, progress on standard error.

Progress is a bar in a terminal, and elsewhere a line every ten seconds.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from memsr_compiler.errors import escape_controls

EVERY = 10.0  # seconds between two lines of progress

Step = Callable[[str], None]
Done = Callable[[float, str], None]


_WIDEST = 1 << 16  # columns of a table


class ProgressLines:
    """Progress where there is no terminal: what is being done, how far, and since how many seconds.

    total   of whatever is counted; None: nobody knows
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float], total: float | None) -> None:
        self._write, self._clock, self._total = write, clock, total
        self._begun = self._last = clock()
        self._done = 0.0
        self._description = "starting"
        self._lock = threading.Lock()

    def update(self, amount: float, description: str) -> None:
        """Note the amount that is done now, and what comes next."""
        with self._lock:
            self._done, self._description = amount, description
        self.tick()

    def tick(self) -> None:
        """Write a line if ten seconds have passed since the last."""
        with self._lock:
            now = self._clock()
            if now - self._last >= EVERY:
                self._last = now
                far = f"{self._done / self._total:4.0%}  " if self._total else ""
                self._write(f"{now - self._begun:5.0f} s  {far}{self._description}")

    @contextmanager
    def tick_by_itself(self) -> Iterator[None]:
        """Tick by itself while it lasts: a step may take minutes."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(1):
                self.tick()

        thread = threading.Thread(target=watch, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@dataclass
class Talk:
    """A command's output, as loud as its options say.

    quiet: errors only;  verbose: also what each pass did;  as_json: one JSON object and nothing else;  clock: seconds
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    out: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not self.out.is_terminal:
            self.out.width = 160

    @property
    def silent(self) -> bool:
        """Whether nothing is printed but the result."""
        return self.quiet or self.as_json

    def say(self, text: str) -> None:
        """Print a line."""
        if not self.silent:
            self.out.print(text, markup=False, emoji=False)

    def warn(self, text: str) -> None:
        """Print a warning on standard error."""
        if not self.quiet:
            self.err.print(f"warning: {escape_controls(text)}", style="yellow", markup=False, emoji=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table: the first column is text, the others are numbers."""
        if self.silent:
            return
        self.out.print(Text(title, "bold"), soft_wrap=True)  # Table's own folds it to the table's width
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, column in enumerate(columns):
            table.add_column(Text(column), justify="left" if i == 0 else "right", no_wrap=True, header_style="dim")
        for row in rows:
            table.add_row(*(Text(escape_controls(str(cell))) for cell in row))
        whole = self.out.options.update(max_width=_WIDEST)  # else numbers are folded on terminals, and columns left out
        self.out.print(Segments(self.out.render(table, whole)))
        self.out.print()

    def json(self, data: dict[str, Any]) -> None:
        """Print the result as JSON, where that was asked for; it has no infinity: null."""
        if self.as_json:
            self.out.file.write(json.dumps(_without_infinities(data), indent=2, allow_nan=False) + "\n")

    @contextmanager
    def progress(self, total: int | None = None) -> Iterator[Step]:
        """Yield step(description), which shows what is going on until the next step.  total: steps."""
        if self.silent:
            yield lambda description: None
            return
        if not self.err.is_terminal:
            lines, begun = self._lines(total), itertools.count()
            with lines.tick_by_itself():
                yield lambda description: lines.update(next(begun), description)
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task("starting", total=total)

            def step(description: str) -> None:
                bar.update(task, description=description, advance=1)

            yield step

    @contextmanager
    def bar(self, total: float) -> Iterator[Done]:
        """Yield done(amount, description): how much of the total has been done since the last time; time left."""
        if self.silent:
            yield lambda amount, description: None
            return
        if not self.err.is_terminal:
            lines, amounts = self._lines(total), [0.0]

            def add(amount: float, description: str) -> None:
                amounts[0] += amount
                lines.update(amounts[0], description)

            yield add
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task("starting", total=total)

            def done(amount: float, description: str) -> None:
                bar.update(task, description=description, advance=amount)

            yield done

    def _lines(self, total: float | None) -> ProgressLines:
        return ProgressLines(lambda line: self.err.print(line, markup=False, emoji=False), self.clock, total)


def is_first() -> bool:
    """Whether this is the first of several processes, which talks and writes; torchrun and accelerate say so."""
    return os.environ.get("RANK", "0") == "0"


def silence_others(talk: Talk) -> Talk:
    """A command's `Talk`, silent in all processes but the first."""
    return talk if is_first() else Talk(quiet=True)


def finite(value: float | None) -> float | None:
    """The value for JSON, which has no infinity."""
    return value if value is not None and math.isfinite(value) else None


def _without_infinities(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_infinities(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_without_infinities(value) for value in data]
    return finite(data) if isinstance(data, float) else data


def mebibytes(count: float) -> str:
    """1572864 -> '1.5 MiB'."""
    return f"{count / 2**20:,.1f} MiB"


def thousands(count: float) -> str:
    """1234567 -> '1,235 K'."""
    return f"{count / 1e3:,.0f} K"


def widths_text(widths: Sequence[int]) -> str:
    """'3, 128, (192, 256) x 15, 12': numbers that come several times one after the other, or groups of them, once."""
    parts: list[str] = []
    start = 0
    while start < len(widths):
        period, times = repeated_group(widths, start)
        group = widths_text(widths[start : start + period]) if times > 1 else str(widths[start])
        parts.append(f"{f'({group})' if period > 1 else group} x {times}" if times > 1 else group)
        start += period * times
    return ", ".join(parts)


def repeated_group(numbers: Sequence[int], start: int) -> tuple[int, int]:
    """Length of the group that begins at `start`, and how often it comes: of all groups the one that covers most.

    (1, 1) where no group saves two numbers; of groups that cover as much the shortest.
    """
    best = (1, 1)
    for period in range(1, (len(numbers) - start) // 2 + 1):
        times = 1
        while numbers[start : start + period] == numbers[start + times * period : start + (times + 1) * period]:
            times += 1
        if period * (times - 1) >= 2 and period * times > best[0] * best[1]:
            best = period, times
    return best
