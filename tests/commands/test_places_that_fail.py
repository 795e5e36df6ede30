"""Standard output that is full, closed or read by nobody, a folder that is gone: one line, and a status to match."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.command_line import Run
from helpers.user_code import leaving

from memsr_compiler import cli
from memsr_compiler.models.catalogue import find_model

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="takes the devices of Linux")

STUDENT = find_model("x2-small").path
FULL = "memsrc: standard output: No space left on device\n"


def memsrc(words: str, place: Path, ending: str) -> tuple[int, str]:
    """Exit status and standard error of memsrc, started by a shell."""
    command = f"set -o pipefail; {sys.executable} -m memsr_compiler {words} {ending}"
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(
        ["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", ["--version", "--help", "convert --help"])
def test_standard_output_that_takes_nothing(words: str, tmp_path: Path) -> None:
    assert memsrc(words, tmp_path, "> /dev/full") == (2, FULL)
    assert memsrc(words, tmp_path, "| true") == (141, "")
    assert memsrc(words, tmp_path, ">&-") == (0, "")


@pytest.mark.parametrize("words", ["", "--json"])
def test_an_error_that_cannot_be_printed(words: str, tmp_path: Path) -> None:
    """The status says it still; of JSON, standard error has the words."""
    missing = f"upscale none.png out.png --model {STUDENT} {words}"
    for ending in ("> /dev/full", ">&-"):
        status, err = memsrc(missing, tmp_path, ending)
        assert status == 2 and err.startswith("memsrc: none.png: ") and err.count("\n") == 1
    for ending in ("2> /dev/full", "2>&-", "> /dev/full 2> /dev/full", ">&- 2>&- <&-"):
        assert memsrc(missing, tmp_path, ending) == (2, "")


@pytest.mark.parametrize("words", ["", "--json"])
def test_a_result_that_cannot_be_printed(words: str, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    command = f"upscale a.png b.png --overwrite --model {STUDENT} {words}"
    assert memsrc(command, tmp_path, "> /dev/full") == (2, FULL)
    assert memsrc(command, tmp_path, "| true") == (141, "")
    assert memsrc(command, tmp_path, ">&-") == (0, "")


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = f"cd gone; rmdir ../gone; {sys.executable} -m memsr_compiler inspect a.pt"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "memsrc: the current folder is not there any more; change to another one\n",
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "there is not enough memory (MemoryError); "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes\nmore"), "there is not enough memory (Defa"),
        (RecursionError("maximum depth"), "something in a file is nested too deeply (maximum depth); "),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_no_command_has_an_answer_to(
    error: BaseException, words: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    status, out, err = run("inspect")
    assert (status, out) == (130 if words == "interrupted" else 2, "")
    assert err.startswith(f"memsrc: {words}") and err.count("\n") == 1


def test_a_mistake_of_our_own_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python itself would end with status 1, which means that networks differ."""

    def fail(**_: object) -> None:
        raise ValueError

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["memsrc", "verify"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"memsrc: {cli.BUG}, ValueError: ValueError; please report it with what `memsrc --traceback ...` prints\n"
    )


def test_an_interrupt_in_the_first_moments_is_one_line() -> None:
    program = (
        "import os, signal, sys, memsr_compiler.__main__ as start\n"
        "class Slow:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'memsr_compiler.cli':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "start.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "memsrc: interrupted\n")


@pytest.mark.parametrize("words", [(errno.ENOSPC, "No space left on device"), ("No usable temporary directory found",)])
def test_a_temporary_file_is_not_called_standard_output(
    words: tuple[object, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors that name no file, while standard output takes everything."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(*words)

    monkeypatch.setenv("TMPDIR", "/there/is/none")
    monkeypatch.setattr(cli, "app", fail)
    status, out, err = run("convert", "t.pt")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("memsrc: a temporary file (in /there/is/none; ") and str(words[-1]) in err


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("upscale", "", "out.png"), ""),
        (("upscale", "a.png", ""), ""),
        (("convert", "a.pt", "--out", ""), " for --out"),
        (("convert", "a.pt", "--out="), " for --out"),
        (("eval", "a.onnx", "--data", ""), " for --data"),
    ],
)
def test_an_empty_argument_is_not_the_current_folder(words: tuple[str, ...], where: str, tmp_path: Path) -> None:
    """As `memsrc upscale "$FILMS" out/` of a shell that knows no FILMS."""
    command = [sys.executable, "-m", "memsr_compiler", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (
        2,
        f"memsrc: an argument{where} is empty: a variable of the shell that is not set, perhaps; give it, or leave it "
        f"out (memsrc {words[0]} --help)\n",
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "network"), [("inspect", "leaving"), ("convert", "leaving"), ("inspect", "quitting")]
)
def test_a_network_that_ends_the_process_is_named(command: str, network: str, run: Run, tmp_path: Path) -> None:
    """Its status was that of memsrc, 0 even, and nothing was said."""
    torch.save(leaving().state_dict(), tmp_path / "a.pth")
    status, _, err = run(command, tmp_path / "a.pth", "--arch", f"helpers.user_code:{network}")
    assert status == 2
    assert re.search(r"memsrc: 1 \(.*user_code\.py:\d+\) ends the process by sys\.exit\(0\); take that out", err)
