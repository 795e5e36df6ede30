"""Every option of every command: that it keeps its name, and that a number which is none is refused at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers.command_line import Run

from memsr_compiler import cli
from memsr_compiler.commands.interface.command import PANELS

COMMANDS: dict[str, Any] = dict(sorted(vars(typer.main.get_command(cli.app))["commands"].items()))
PARAMETERS = [(name, parameter) for name, command in COMMANDS.items() for parameter in command.params]
NAMES = Path(__file__).with_name("options.json")

# What has to be there besides the option in question; the files are not.
REQUIRED = {
    "bench": ("a.onnx",),
    "convert": ("teacher.pt", "--out", "plain.onnx"),
    "distill": ("student.safetensors", "--teacher", "teacher.pt", "--data", "photographs", "--out", "run"),
    "eval": ("a.onnx",),
    "inspect": ("teacher.pt",),
    "quantize": ("a.onnx", "--out", "b.onnx"),
    "export": ("a.onnx", "--out", "a.tflite"),
    "shrink": ("teacher.pt", "--out", "student.onnx"),
    "similarity": ("a.onnx", "b.onnx"),
    "sweep": ("teacher.pt",),
    "train": ("--data", "photographs", "--out", "run", "--scale", "2"),
    "upscale": ("a.png", "b.png", "--model", "a.onnx"),
    "verify": ("teacher.pt", "plain.onnx"),
}
NUMBERS = [
    "align",
    "batch",
    "beta",
    "blocks",
    "channels",
    "clip",
    "constant",
    "ema",
    "epsilon",
    "every",
    "lambda",
    "layers",
    "margin",
    "max-latency",
    "max-macs",
    "max-memory",
    "max-params",
    "max-pixels",
    "max-weights",
    "patch",
    "quality",
    "rate",
    "refit",
    "repeats",
    "samples",
    "scale",
    "seed",
    "size",
    "steps",
    "theta",
    "threads",
    "tile",
    "warm-up",
    "width",
    "widths",
    "workers",
]
MAY_BE_ZERO = {"beta", "clip", "ema", "lambda", "quality", "refit", "seed", "workers"}
WRONG = ("nan", "inf", "-inf", "", "many", "1,x", "0x10", "1e999", "-1", "0", "9" * 40)
LARGE = {"batch", "beta", "blocks", "channels", "clip", "constant", "every", "lambda", "margin", "max-weights", "patch"}
LARGE |= {
    "max-latency",
    "max-macs",
    "max-memory",
    "max-params",
    "max-pixels",
    "rate",
    "refit",
    "repeats",
    "samples",
    "steps",
    "width",
}


def name_of(parameter: Any) -> str:
    return str(parameter.opts[0]).removeprefix("--")


def forbid_work(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    module = "evaluate" if command == "eval" else command
    monkeypatch.setitem(sys.modules, f"memsr_compiler.commands.{module}", None)  # importing it fails


def test_options_keep_their_names_and_defaults() -> None:
    """MEMSR_UPDATE=1 writes the file anew: its difference is what users have to change."""
    shown: dict[str, dict[str, str]] = {name: {} for name in COMMANDS}
    for name, p in PARAMETERS:
        default = "required" if p.required else "flag" if getattr(p, "is_flag", False) else str(p.default)
        shown[name][" ".join((*p.opts, *p.secondary_opts))] = default
    if os.environ.get("MEMSR_UPDATE"):
        NAMES.write_text(write_options(shown), "utf-8")
    assert shown == json.loads(NAMES.read_text("utf-8"))
    assert NAMES.read_text("utf-8") == write_options(shown)
    assert write_options(dict(reversed(shown.items()))) == write_options(shown)


def write_options(shown: dict[str, dict[str, str]]) -> str:
    """In alphabetical order, which no move of a line in the code changes."""
    return json.dumps(shown, indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize(
    ("command", "option"), [(command, name_of(p)) for command, p in PARAMETERS if name_of(p) in NUMBERS]
)
def test_a_number_that_is_none_is_refused_before_any_work(
    run: Run, command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    forbid_work(monkeypatch, command)
    for value in WRONG:
        if (value == "0" and option in MAY_BE_ZERO) or (value == "-1" and option == "beta"):
            continue
        if value.startswith("9") and option in LARGE:
            continue
        status, out, err = run(command, *REQUIRED[command], f"--{option}", value)
        assert status == 2 and out == "" and err.count("\n") == 1, (value, err)
        assert f"--{option}" in err and f"{command} --help" in err, (value, err)


@pytest.mark.parametrize(("command", "value"), [(c, v) for c, p in PARAMETERS if name_of(p) == "input-range" for v in (
    ("0", "nan"), ("-inf", "1"), ("1", "0"), ("1", "1"), ("0", "x")
)])  # fmt: skip
def test_an_input_range_that_is_none_is_refused_before_any_work(
    run: Run, command: str, value: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch, command)
    status, _, err = run(command, *REQUIRED[command], "--input-range", *value)
    assert status == 2 and "--input-range" in err and err.count("\n") == 1, err


def test_all_numbers_are_tested() -> None:
    """Whatever the parser gives as a number stands in NUMBERS."""
    numeric = {
        name_of(p) for _, p in PARAMETERS if p.metavar in ("N", "R", "C", "FACTOR", "GIB", "RATE", "PART", "NORM")
    }
    assert numeric <= set(NUMBERS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_panels_and_an_example(run: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run(command, "--help")
    assert status == 0 and f": memsrc {command} " in " ".join(out.split())
    titles = [line.strip("╭╮─ ") for line in out.splitlines() if line.startswith("╭")]
    assert titles[-1] == "Messages"
    assert command == "models" or (titles[0] in ("Arguments", "Network") and len(titles) > 2)
    assert [title for title in PANELS if title in titles] == [title for title in titles if title in PANELS]
    assert max(map(len, out.splitlines())) <= 80


def test_choices_are_shown_and_told(run: Run) -> None:
    _, out, _ = run("convert", "--help")
    assert "<auto|shift|split>" in out
    status, _, err = run("convert", "t.pt", "--out", "p.onnx", "--carry", "never")
    assert status == 2 and "--carry never: want one of auto, shift, split" in err
