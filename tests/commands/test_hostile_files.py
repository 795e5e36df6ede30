"""Files that are no files, and options that are no options: one line says so, and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.command_line import Run

from memsr_compiler.models.catalogue import find_model

pytest.importorskip("yaml")

MANY = ",".join(["*{0}"] * 9)
BOMB = "steps: &a [1,1,1,1,1,1,1,1,1]\nbatch: &b [" + MANY.format("a") + "]\npatch: &c [" + MANY.format("b") + "]\n"


@pytest.mark.parametrize("option", ["--config", "--resume"])
@pytest.mark.parametrize("what", ["/dev/zero", "pipe", "folder", "link", "none"])
def test_options_are_read_from_files_alone(option: str, what: str, run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("link")
    refuse(run, "train", option, tmp_path / what, named=what)


@pytest.mark.parametrize("what", ["/dev/zero", "pipe", "link", "folder", "none"])
@pytest.mark.parametrize(
    "command",
    [
        "inspect WHAT",
        "convert WHAT",
        "shrink WHAT --theta 0.1",
        "sweep WHAT --theta 0.1",
        "verify WHAT NETWORK",
        "verify NETWORK WHAT",
        "similarity WHAT WHAT",
        "eval WHAT",
        "bench WHAT",
        "quantize WHAT --out q.onnx",
        "upscale IMAGE out.png --model WHAT",
        "upscale WHAT out.png --model NETWORK",
        "distill WHAT --teacher NETWORK --data . --out run",
    ],
)
def test_networks_and_images_are_read_from_files_alone(
    command: str, what: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("link").symlink_to("link")
    network = find_model("x2-small").path
    words = {"WHAT": what, "NETWORK": network, "IMAGE": "image.png"}
    before = sorted(tmp_path.iterdir())
    refuse(run, *(words.get(word, word) for word in command.split()), named="")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[" * 5000, "is no YAML (nested too deeply)"),
        ("".join(" " * i + "a:\n" for i in range(700)), "is no YAML (nested too deeply)"),
        ("- " * 5000, "is no YAML (nested too deeply)"),
        ("steps: " + "9" * 6000, "is no YAML (Exceeds the limit"),
        (BOMB, "batch: want a word, a number or a list of them"),
        ("steps: &a {b: *a}", "steps: want a word"),
        ("steps: 2001-99-99", "is no YAML (month must be in 1..12)"),
        ("out: 2001-01-01", "out: want a word, a number or a list of them (a date in quotes)"),
        ("steps: !!int many", "is no YAML"),
        ("steps: !!bool many", "is no YAML"),
        ("steps: !!timestamp many", "is no YAML"),
        ('steps: "\\UFFFFFFFF"', "is no YAML"),
        ("steps: !!python/object/apply:os.getcwd []", "is no YAML"),
        ('out: "a\\0b"', "out: want a word"),
        ('out: "\\ud800"', "out: want a word"),
        ('"a\\nb\\e[31m": 1', "no option of memsrc train is called a\\nb\\x1b[31m"),
        ("#" * 300_000, "has more than 262,144 bytes"),
        (f"steps: {10**30}", "--steps 1000000000000000000000000000000: want a number below 2^63"),
        (f"seed: {10**400}", "want a number below 2^63"),
    ],
)
def test_options_that_are_none(content: str, reason: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(content)
    arguments = ["--arch", "edsr", "--scale", "2", "--data", tmp_path, "--out", tmp_path / "run"]
    if "out:" in content:
        arguments = arguments[:-2]
    if "seed" not in content and "steps" not in content:
        arguments += ["--steps", "1"]
    err = refuse(run, "train", "--config", tmp_path / "a.yaml", *arguments, named="")
    assert reason in err
    assert not (tmp_path / "run").exists()


def refuse(run: Run, *arguments: object, named: str) -> str:
    """What a command says that is to end with status 2 and one line."""
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1) and named in err, err
    return err
