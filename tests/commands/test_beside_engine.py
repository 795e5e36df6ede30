"""Commands refuse an ONNX file that is read as another network than ONNX Runtime makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.command_line import Run, must_refuse
from torch import Tensor, nn

from memsr_compiler import read_teacher
from memsr_compiler.errors import MemsrError
from memsr_compiler.runtime import beside_engine
from memsr_compiler.teachers import load


class _Brighter(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x)
        return y * 1.05


@pytest.mark.parametrize("command", ["convert", "verify", "inspect", "shrink"])
def test_what_is_read_wrong_is_refused(
    command: str, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = read_teacher(model, probe=False)
    monkeypatch.setattr(load, "read_teacher", lambda *_, **__: replace(teacher, module=_Brighter(teacher.module)))
    out = ("--out", tmp_path / "out.onnx")
    rest = {"convert": out, "verify": (model,), "inspect": (), "shrink": ("--width", 8, *out)}
    words = "is read as another network than ONNX Runtime makes of it"
    if command == "shrink":  # which knows a plain network of ours by its metadata
        monkeypatch.setattr("memsr_compiler.commands.students.common.is_plain", lambda _: False)
    assert words in must_refuse(run, tmp_path, (command, model, *rest[command]), str(model)).replace("\n", " ")


def test_without_the_engine_that_is_said(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemsrError("ONNX Runtime is not installed")

    monkeypatch.setattr(beside_engine, "OrtNetwork", refuse)
    command = ("convert", model, "--out", tmp_path / "plain.safetensors", "--no-probe", "--overwrite")
    status, _, err = run(*command)
    assert status == 0 and f"{model}: was not compared with ONNX Runtime: ONNX Runtime is not installed" in err
    assert "was not compared" not in run(*command, "--quiet")[2]
