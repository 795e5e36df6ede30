"""Plain networks in float16, run so that what float16 does is seen: on a GPU, or with halves stored between layers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from torch import Tensor

from memsr_compiler.arithmetic import HALVES, name_arithmetic
from memsr_compiler.errors import MemsrError
from memsr_compiler.plain.halves import run_in_halves
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime.ort import onnxruntime
from memsr_compiler.runtime.runners import OrtNetwork


class Named(Protocol):
    """A network, and the arithmetic in which it is computed, in words."""

    @property
    def arithmetic(self) -> str: ...

    def __call__(self, x: Tensor, /) -> Tensor: ...


class Halves:
    """A plain network with halves stored between layers, by torch on the CPU: see `run_in_halves`."""

    arithmetic = name_arithmetic(HALVES, "torch")

    def __init__(self, net: PlainNet) -> None:
        self._net = net

    def __call__(self, x: Tensor) -> Tensor:
        return run_in_halves(self._net, x)


def open_float16(path: Path | None, net: PlainNet) -> Named:
    """A float16 network made ready to run: its ONNX file by ONNX Runtime where that has CUDA, else `Halves`.

    Never by ONNX Runtime on the CPU, which computes float16 files in float32 and hides what leaves float16's range.
    """
    with contextlib.suppress(MemsrError):  # no ONNX Runtime, or a provider that is listed and does not start
        if path is not None and "CUDAExecutionProvider" in onnxruntime().get_available_providers():
            return OrtNetwork(path, provider="cuda")
    return Halves(net)
