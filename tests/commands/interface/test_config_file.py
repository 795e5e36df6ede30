"""Options from a YAML file: what a word in it means is what it would mean on the command line, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

pytest.importorskip("yaml")

from memsr_compiler import cli
from memsr_compiler.commands.interface.config_file import read_settings
from memsr_compiler.errors import InvalidInput

TRAIN: Any = vars(typer.main.get_command(cli.app))["commands"]["train"]


def read_options(content: str, folder: Path) -> dict[str, Any]:
    """The options of memsrc train with a file of this content."""
    (folder / "a.yaml").write_text(content)
    arguments = ["--scale", "2", "--data", "photographs", "--out", "run", "--config", str(folder / "a.yaml")]
    with TRAIN.make_context("train", arguments) as context:
        parameters: dict[str, Any] = context.params
    return parameters


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("steps: 010", "steps", 10),  # 8 in YAML 1.1
        ("seed: 017", "seed", 17),
        ("precision: no", "precision", "no"),  # false
        ("cache: on", "cache", Path("on")),
        ("quiet: yes", "quiet", True),
        ("overwrite: off", "overwrite", False),
        ("steps: 1e3", "steps", 1000),
        ("rate: 2e-4", "rate", 2e-4),
        ("clip: .5", "clip", 0.5),
        ("seed: -0", "seed", 0),
        ("ema: null", "ema", None),
    ],
)
def test_a_word_means_what_it_means_on_the_command_line(content: str, name: str, value: object, tmp_path: Path) -> None:
    found = read_options(content, tmp_path)[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("content", ["steps: yes", "seed: no", "rate: on", "clip: true", "steps: 1:30", "rate: 1:30.5"])
def test_a_word_is_no_number(content: str, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"valid (integer|number)"):
        read_options(content, tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("steps: 10\nsteps: 20", "steps is given twice"),
        ("warm_up: 0.1\nwarm-up: 0.2", "warm-up: is given twice, under two spellings of its name"),
        ("steps: !!int 010", "int is said of '010'; leave the tag out"),  # 8 in YAML 1.1
        ("steps: !!int 1:30", "int is said of '1:30'"),
        ("steps: !!bool yes", "bool is said of 'yes'"),
        ("config: other.yaml", "config: a file of options reads no other"),
    ],
)
def test_no_line_is_passed_over(content: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_options(content, tmp_path)


def test_what_another_mapping_brings_may_be_said_anew(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("<<: {steps: 3, batch: 4}\nsteps: 5")
    known = {"steps": "steps", "batch": "batch"}
    assert read_settings(tmp_path / "a.yaml", known, "memsrc train") == {"steps": 5, "batch": 4}
