"""memsrc as a whole: output for programs, wrong command lines, help, interruption."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import Run
from torch import Tensor

from memsr_compiler import cli


def test_json_is_json_and_quiet_is_quiet(run: Run, teacher: Path, tmp_path: Path) -> None:
    _, out, _ = run("convert", teacher, "--out", tmp_path / "plain.safetensors", "--json")
    assert json.loads(out)["info"]["scale"] == 2
    _, out, err = run("convert", teacher, "--out", tmp_path / "plain.safetensors", "--quiet")
    assert (out, err) == ("", "")
    _, out, _ = run("inspect", teacher, "--json")
    assert json.loads(out)["convertible"] is True
    _, out, _ = run("verify", teacher, tmp_path / "plain.safetensors", "--json")
    assert json.loads(out)["equivalent"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("quantize", "n.onnx"), ("'--out'", "memsrc quantize --help")),
        (("convert", "t.pt", "--out", "p.onnx", "--nope"), ("--nope", "memsrc convert --help")),
        (("convert", "t.pt", "--out", "p.onnx", "--align", "zero"), ("'--align'", "integer")),
        (("convert", "t.pt", "--out", "p.onnx", "--margin", "0.5"), ("--margin: want 1 or more; see",)),
        (("convert", "t.pt", "--align", "1025"), ("--align: want 1024 or less; see",)),
        (("inspect", "t.pt", "--arch"), ("'--arch' requires an argument", "--help")),
        (("inspect", "t.pt", "u.pt"), ("u.pt", "memsrc inspect --help")),
        (("inspect",), ("TEACHER",)),
        (("invent",), ("'invent'", "memsrc --help")),
        (("--nope",), ("--nope",)),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(run: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    status, out, err = run(*arguments)
    assert status == 2 and out == ""
    assert err.startswith("memsrc: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, err
    status, out, err = run(*arguments, "--json")
    assert status == 2 and json.loads(out)["exit_status"] == 2 and err.count("\n") == 1


def test_without_arguments_the_help_is_printed(run: Run) -> None:
    status, out, err = run()
    assert status == 2 and "convert" in out and "Exit status" in out and err == ""


def test_help_is_quick_and_has_examples(run: Run) -> None:
    for command in ("convert", "inspect", "verify"):
        status, out, _ = run(command, "--help")
        assert status == 0 and f"Example: memsrc {command}" in out
    code = "import sys, memsr_compiler.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, "help must not wait for torch"


def test_garbage_is_collected_once_a_command_is_imported() -> None:
    """All commands that work are handed what they talk with."""
    code = (
        "import gc, sys, memsr_compiler.__main__ as entry\n"
        "sys.argv = ['memsrc', 'models', '--quiet']\n"
        "try:\n    entry.main()\nfinally:\n    assert gc.isenabled()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    source = inspect.getsource(cli)
    assert source.count("    run(") == source.count("import run\n") == source.count("_begin(talk))")


def test_interruption_leaves_nothing(run: Run, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(tmp_path.iterdir())

    def interrupted(*_: object) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    status, _, err = run("convert", teacher, "--out", tmp_path / "plain.onnx")
    assert status == 130, err
    assert sorted(tmp_path.iterdir()) == before
