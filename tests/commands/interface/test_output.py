"""Output of commands: progress where there is no terminal, and when there is none."""

from __future__ import annotations

import io
import json
import math
import time

import pytest
from rich.console import Console

from memsr_compiler.commands.interface import output
from memsr_compiler.commands.interface.output import ProgressLines, Talk, widths_text


class Clock:
    """Seconds, as the test says."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def talk(clock: Clock, *, quiet: bool = False, as_json: bool = False) -> tuple[Talk, io.StringIO]:
    """A talk that is no terminal's, and what it writes to standard error."""
    err = io.StringIO()
    return Talk(quiet=quiet, as_json=as_json, err=Console(file=err, width=40), clock=clock), err


def test_a_line_every_ten_seconds(clock: Clock) -> None:
    written: list[str] = []
    lines = ProgressLines(written.append, clock, total=4)
    for done, name in enumerate(("reading", "running a teacher", "writing", "telling")):
        lines.update(done, name)
        clock.now += 4
    assert written == ["   12 s   75%  telling"]


def test_a_step_of_minutes_is_told_without_another_step(clock: Clock) -> None:
    speaker, err = talk(clock)
    with speaker.progress() as step:
        step("a long one")
        clock.now += 61
        deadline = time.monotonic() + 20
        while not err.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert err.getvalue() == "   61 s  a long one\n"


def test_how_much_of_a_total_is_done(clock: Clock) -> None:
    speaker, err = talk(clock)
    with speaker.bar(200) as done:
        for _ in range(10):
            clock.now += 3
            done(15, "a.png")
    assert err.getvalue().splitlines() == ["   12 s   30%  a.png", "   24 s   60%  a.png"]


@pytest.mark.parametrize("how", [{"quiet": True}, {"as_json": True}])
def test_no_progress_where_only_the_result_is_wanted(clock: Clock, how: dict[str, bool]) -> None:
    speaker, err = talk(clock, **how)
    with speaker.progress() as step, speaker.bar(10) as done:
        clock.now += 1000
        step("a")
        done(5, "b")
    assert err.getvalue() == ""


def test_what_is_quick_says_nothing(clock: Clock) -> None:
    speaker, err = talk(clock)
    with speaker.progress() as step:
        step("a")
        clock.now += output.EVERY - 0.5
        step("b")
    assert err.getvalue() == ""


def test_repeats_of_widths_are_counted() -> None:
    assert widths_text([3, 8, 8, 8, 12]) == "3, 8 x 3, 12"
    assert widths_text([3, 9, 5, 9, 5, 9, 5, 12]) == "3, (9, 5) x 3, 12"


NAMES = ["a [red] b", "[/red]", "\\[red]c", ":cat:", "x\n\x1b[2Jy"]


def test_names_are_printed_as_they_are(clock: Clock) -> None:
    """And not as rich's markup or emoji, nor to move a terminal's cursor."""
    out = io.StringIO()
    speaker = Talk(out=Console(file=out, width=200), err=Console(file=out, width=200), clock=clock)
    for name in NAMES:
        speaker.say(f"said {name}")
        speaker.warn(name)
        speaker.table(f"of {name}", ("", name), [(name, "1")])
    told = out.getvalue()
    for name in NAMES[:-1]:
        assert told.count(name) == 5 * sum(name in other for other in NAMES), name
    assert "warning: x\\n\\x1b[2Jy" in told


@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_terminals_bar(clock: Clock, name: str) -> None:
    err = io.StringIO()
    speaker = Talk(err=Console(file=err, width=200, force_terminal=True), clock=clock)
    with speaker.bar(1) as done, speaker.progress() as step:
        done(1, name)
        step(name)
    assert "100%" in err.getvalue()


@pytest.mark.parametrize("width", [10, 40])
def test_tables_keep_their_numbers_whole_on_narrow_terminals(clock: Clock, width: int) -> None:
    """Numbers were folded, and columns left out."""
    out = io.StringIO()
    speaker = Talk(
        out=Console(file=out, width=width, force_terminal=True, soft_wrap=True, color_system=None), clock=clock
    )
    speaker.table("of numbers", ("network", *(f"column {i}" for i in range(9))), [("x2-tiny", *["36.395"] * 9)])
    lines = out.getvalue().splitlines()
    assert [line.split() for line in lines if "36" in line] == [["x2-tiny", *["36.395"] * 9]]
    assert "column 8" in lines[-3] and lines[-1] == ""


def test_json_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    Talk(as_json=True).json({"a": [math.inf, (1.5, -math.inf)], "b": {"c": math.nan, "d": None, "e": True, "f": 3}})
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told == {"a": [None, [1.5, None]], "b": {"c": None, "d": None, "e": True, "f": 3}}
