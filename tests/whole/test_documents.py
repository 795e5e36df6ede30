"""The documents are true: commands exist with these options, files are there, the tutorial runs as it is written."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import Run
from typer.main import get_command

import memsr_compiler
from memsr_compiler import cli
from memsr_compiler.images.files import read_image, sample_photographs, write_image
from memsr_compiler.models.catalogue import find_model

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/MODELS.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
IDS = [path.relative_to(ROOT).as_posix() for path in PAGES]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$|((?:^ {4}[^\n]*\n)+)", re.DOTALL | re.MULTILINE)
QUICK = {"shrink": ["--calibration", "photos", "--refit", "0"]}  # a test need not take the time that a user does


def code(text: str) -> Iterator[str]:
    """What is set as code: `...`, and lines that are indented or fenced; a backslash joins two."""
    for block in BLOCK.finditer(text):
        if (block[1] or "").startswith("{"):
            continue  # a directive to Sphinx
        yield from re.sub(r"\\\n\s*", "", block[2] or block[3]).splitlines()
    yield from (" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", BLOCK.sub("", text)))


def commands(text: str) -> Iterator[list[str]]:
    """The words after memsrc of each command, without its comment."""
    for line in code(text):
        match = re.match(r" *(?:torchrun .* -m memsr_compiler|memsrc) (\w.*)", line)
        if match and "..." not in match[1]:
            yield shlex.split(match[1].replace("|", "/"), comments=True)


def undeclared(words: list[str]) -> list[str]:
    """Options, or the command itself, that memsrc does not know."""
    group: Any = get_command(cli.app)
    command = group.commands.get(words[0])
    if command is None:
        return words[:1]
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    return [word for word in words[1:] if word.startswith("-") and not is_number(word) and word not in known]


def is_number(word: str) -> bool:
    return re.fullmatch(r"-?\d+", word) is not None


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_exists_with_these_options(page: Path) -> None:
    wrong = {" ".join(words): undeclared(words) for words in commands(page.read_text("utf-8"))}
    assert not {command: options for command, options in wrong.items() if options}


def test_there_are_commands_to_check_and_a_wrong_one_is_noticed() -> None:
    assert len(list(commands((ROOT / "docs/tutorial.md").read_text("utf-8")))) >= 7
    assert undeclared(["shrink", "t.pt", "--thet", "0.05"]) == ["--thet"]
    assert undeclared(["shirnk", "t.pt"]) == ["shirnk"]


def test_every_option_that_is_named_is_one_of_some_command() -> None:
    group: Any = get_command(cli.app)
    known = {option for c in group.commands.values() for p in c.params for option in (*p.opts, *p.secondary_opts)}
    known |= {option for param in group.params for option in param.opts} | {"--help", "--install-completion"}
    others = {
        "--constraint",
        "--nproc-per-node",
        "--nnodes",
        "--max-restarts",
        "--memory",
    }  # pip, torchrun, a benchmark
    others |= {
        "--arm",
        "--directory",
        "--biz",
        "--fp16",
    }  # of a benchmark, Python's http.server, MNN (--bizCode, --fp16)
    others |= {
        "--models",
        "--tests",
        "--seeds",
        "--smoke",
        "--runs",
        "--pair",
        "--row",
        "--done",
    }  # of benchmarks.paper
    wrong = []
    for page, name in zip(PAGES, IDS, strict=True):
        lines = code(page.read_text("utf-8"))
        named = {option for line in lines for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", line)}
        wrong += [f"{name}: {option}" for option in sorted(named - known - others)]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    """Of the repository: benchmarks/..., examples/..., passes/..., tests/..., docs/..., memsr_compiler/..."""
    folders = "benchmarks|examples|passes|tests|docs|memsr_compiler"
    named = [path for line in code(page.read_text("utf-8")) for path in re.findall(rf"\b(?:{folders})/[\w./]+\w", line)]
    invented = {"passes/fuse_affine.py", "tests/passes/test_fuse_affine.py"}  # CONTRIBUTING has you write them
    assert not [path for path in named if not (ROOT / path).exists() and path not in invented]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/how_it_works.md", "docs/how-to/convert.md", "docs/how-to/verify.md", "docs/how-to/upscale.md"],
)
def test_the_python_on_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    for place in ("examples/edsr_8x32_x2.pt", "teacher.pt"):
        shutil.copy(ROOT / "examples" / "edsr_8x32_x2.pt", place)
    shutil.copy(find_model("x2-small").path, "student.onnx")
    full, little = memsr_compiler.shrink, [sample_photographs()[0][:96, :96]]
    monkeypatch.setattr(
        memsr_compiler, "shrink", lambda model, **options: full(model, calibration=little, refit=0, **options)
    )
    blocks = [block[2] for block in BLOCK.finditer((ROOT / page).read_text("utf-8")) if block[1] == "python"]
    assert blocks
    small = np.zeros((4, 300, 3), np.uint8)
    for block in blocks:
        block = block.replace("(2000, 300, 3)", "(20, 30, 3)")  # the page has a larger one
        exec(compile(block, page, "exec"), {"__name__": page, "small": small})


def outline(line: str) -> str:
    """A line of output without its numbers and its spaces."""
    return re.sub(r"\d[\d,.]*(e[+-]\d+)?", "#", "".join(line.split()))


def test_the_tutorial_runs_and_prints_what_it_says(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "edsr_8x32_x2.pt", "examples")
    photographs = [image[:96, :96] for image in sample_photographs()[:2]]
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(photographs):
        write_image(tmp_path / "photos" / f"{i}.png", image)
    write_image(tmp_path / "photo.png", photographs[0][:40, :30])

    text = (ROOT / "docs/tutorial.md").read_text("utf-8")
    printed = ""
    for block in BLOCK.finditer(text):
        if block[1] == "python":
            name = re.findall(r"`(\w+\.py)`", text[: block.start()])[-1]
            Path(name).write_text(block[2], "utf-8")
        elif block[1] == "text":
            missing = [line for line in block[2].splitlines() if outline(line) not in outline(printed)]
            assert not missing, printed
        else:
            printed = ""
            for line in (block[3] or "").splitlines():
                printed += execute(line.split(), run)
    assert read_image("large.png").shape == read_image("student.png").shape == (80, 60, 3)


def execute(words: list[str], run: Run) -> str:
    """What a command of the tutorial prints."""
    if words[0] == "python":
        subprocess.run([sys.executable, *words[1:]], check=True)
        return ""
    assert words[0] == "memsrc"
    status, out, err = run(*words[1:], *QUICK.get(words[1], []))
    refused = words[1:] == ["inspect", "my_network.pth"]
    assert status == (2 if refused else 0), err
    return out + err
