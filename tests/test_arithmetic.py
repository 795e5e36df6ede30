"""Arithmetics in words: what is said beside a deviation or a PSNR."""

from __future__ import annotations

import pytest

from memsr_compiler.arithmetic import HALVES, INTEGERS, INTEGERS_ALONE, Engine, name_arithmetic


@pytest.mark.parametrize(
    ("numbers", "engine", "device", "words"),
    [
        ("float64", "torch", "cpu", "float64, by torch on the CPU"),
        ("float32", "ONNX Runtime", "cpu", "float32, by ONNX Runtime on the CPU"),
        ("float32", "torch", "cuda", "float32 with convolutions in TF32, by torch on the GPU"),
        ("float16", "ONNX Runtime", "tensorrt", "float16, by ONNX Runtime on the GPU"),
        ("float16", "ONNX Runtime", "cpu", "float32 (so it computes float16 files there), by ONNX Runtime on the CPU"),
        (HALVES, "torch", "cpu", "halves stored between layers, sums in float32, by torch on the CPU"),
        ("float16", "LiteRT", "cpu", "float32 (so it computes float16 files there), by LiteRT on the CPU"),
        (INTEGERS_ALONE, "LiteRT", "cpu", "8-bit integers, by LiteRT on the CPU"),
        (INTEGERS, "ONNX Runtime", "cpu", "8-bit integers, float32 between them, by ONNX Runtime on the CPU"),
    ],
)
def test_numbers_engine_and_place(numbers: str, engine: Engine, device: str, words: str) -> None:
    assert name_arithmetic(numbers, engine, device) == words
