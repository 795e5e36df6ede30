"""Who runs float16: a GPU where there is one, else torch with halves between layers; ONNX Runtime's CPU never."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.plain_files import tiny

from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.halves import run_in_halves
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.runtime import float16
from memsr_compiler.runtime.float16 import open_float16
from memsr_compiler.runtime.runners import OrtNetwork


class FakeRuntime:
    """An ONNX Runtime that lists CUDA."""

    @staticmethod
    def get_available_providers() -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return export_onnx(tiny(), tmp_path / "net.onnx", dtype="float16").path


def test_without_a_gpu_halves_are_stored_between_layers(file: Path) -> None:
    network, x = open_float16(file, tiny()), torch.rand(1, 1, 6, 5) * 255
    assert network.arithmetic == "halves stored between layers, sums in float32, by torch on the CPU"
    assert torch.equal(network(x), run_in_halves(tiny(), x))


def test_a_gpu_is_used(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class OnGpu:
        arithmetic = "float16, by ONNX Runtime on the GPU"

        def __init__(self, path: Path, *, provider: str) -> None:
            asked.append((path, provider))

    monkeypatch.setattr(float16, "onnxruntime", FakeRuntime)
    monkeypatch.setattr(float16, "OrtNetwork", OnGpu)
    assert isinstance(open_float16(file, tiny()), OnGpu) and asked == [(file, "cuda")]
    assert "halves" in open_float16(None, tiny()).arithmetic  # no ONNX file


def test_a_gpu_that_is_listed_and_does_not_start_is_not_used(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *, provider: str) -> None:
        raise InvalidInput("CUDA did not start")

    monkeypatch.setattr(float16, "onnxruntime", FakeRuntime)
    monkeypatch.setattr(float16, "OrtNetwork", refuse)
    assert "halves" in open_float16(file, tiny()).arithmetic


def test_onnx_runtime_says_what_it_does_with_float16_on_the_processor(file: Path) -> None:
    assert OrtNetwork(file).arithmetic == "float32 (so it computes float16 files there), by ONNX Runtime on the CPU"
