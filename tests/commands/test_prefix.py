"""--prefix: one network of several in a file, for every command that reads a teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.command_line import Run, must_refuse

from memsr_compiler.teachers.families.edsr import EDSR


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A file with a network of 1 block and one of 2, neither of them trained."""
    torch.manual_seed(0)
    parts = {"student": EDSR(scale=2, blocks=1, channels=4), "generator": EDSR(scale=2, blocks=2, channels=4)}
    state = {f"{name}.{key}": t for name, network in parts.items() for key, t in network.state_dict().items()}
    path = tmp_path / "several.ckpt"
    torch.save({"state_dict": state, "epoch": 3}, path)
    return path


def test_every_command_that_takes_an_architecture_takes_a_prefix() -> None:
    options = json.loads((Path(__file__).parent / "interface" / "options.json").read_text("utf-8"))
    reading = {command for command, names in options.items() if "--allow-pickle" in names}
    assert reading == {command for command, names in options.items() if "--prefix" in names}
    assert {"inspect", "convert", "verify", "shrink", "eval", "bench", "upscale", "distill"} <= reading


def test_the_refusal_names_the_prefixes_and_one_settles_it(run: Run, several: Path, tmp_path: Path) -> None:
    must_refuse(run, tmp_path, ("inspect", several), "student., generator.", "--prefix student.")
    status, out, _ = run("inspect", several, "--prefix", "generator.", "--no-probe")
    assert status == 0 and "blocks=2" in out
    status, out, _ = run("inspect", several, "--prefix", "state_dict.student", "--no-probe")
    assert status == 0 and "blocks=1" in out
    must_refuse(run, tmp_path, ("inspect", several, "--prefix", "net."), "begins no key", "state_dict.")


def test_commands_that_run_networks_take_it_too(run: Run, several: Path, photographs: Path, tmp_path: Path) -> None:
    status, _, err = run("convert", several, "--prefix", "student.", "--no-probe", "--out", tmp_path / "p.onnx")
    assert status == 0, err
    status, out, err = run("verify", several, tmp_path / "p.onnx", "--prefix", "student.", "--no-probe")
    assert status == 0 and "equivalent" in out, err
    status, _, err = run("eval", several, "--prefix", "generator.", "--no-probe", "--data", photographs)
    assert status == 0, err
    must_refuse(run, tmp_path, ("eval", several, "--data", photographs), "--prefix student.")


def test_a_plain_network_has_no_prefixes(run: Run, several: Path, tmp_path: Path) -> None:
    run("convert", several, "--prefix", "student.", "--no-probe", "--out", tmp_path / "p.safetensors")
    must_refuse(run, tmp_path, ("shrink", tmp_path / "p.safetensors", "--width", "8", "--prefix", "a."), "--prefix")
