"""memsrc verify: it notices another teacher, and believes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from helpers.command_line import Run

from memsr_compiler import load_plain, save_plain


def test_verify_notices_another_teacher(run: Run, teacher: Path, tmp_path: Path) -> None:
    run("convert", teacher, "--out", tmp_path / "plain.onnx")
    weights = torch.load(teacher, weights_only=True)
    weights["head.0.bias"][0] += 1e-3
    torch.save(weights, tmp_path / "other.pt")
    status, _, err = run("verify", tmp_path / "other.pt", tmp_path / "plain.onnx")
    assert status == 1 and "another teacher" in err and "worst deviation" in err and "channel 2" in err


def test_verify_believes_nothing_that_the_file_says_of_itself(run: Run, teacher: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    run("convert", teacher, "--out", plain, "--carry", "shift", "--constant", "100")
    for change in ({"guarantee": "exact for every image"}, {"image_skip": "bicubic"}, {"input_range": (0.0, 255.0)}):
        net = load_plain(plain)
        net.info = replace(net.info, **change)
        save_plain(net, tmp_path / "lies.safetensors")
        status, out, err = run("verify", teacher, tmp_path / "lies.safetensors")
        assert status == 1 and "equivalent" not in out, (change, out, err)
