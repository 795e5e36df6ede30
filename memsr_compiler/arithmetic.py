"""Words on how numbers were computed: what stands beside every deviation and every PSNR that is printed.

The same file gives other numbers elsewhere.  ONNX Runtime computes float16 files in float32 on a processor, and cuDNN
convolves in TF32, with 10 bits of each factor: a deviation means something only together with its arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Engine = Literal["torch", "ONNX Runtime", "LiteRT", "NumPy"]

HALVES = "halves stored between layers, sums in float32"
FULL_FLOAT32 = "float32 without TF32"
INTEGERS = "8-bit integers, float32 between them"
INTEGERS_ALONE = "8-bit integers"


def name_arithmetic(numbers: str, engine: Engine, device: str = "cpu") -> str:
    """Words on an arithmetic: "float32, by torch on the CPU".

    numbers   what is computed with: a dtype, "float32" say, FULL_FLOAT32, HALVES, INTEGERS or INTEGERS_ALONE
    device    "cpu", else a GPU: "cuda", or "tensorrt"
    """
    if device == "cpu" and numbers == FULL_FLOAT32:
        numbers = "float32"
    if device == "cpu" and engine in ("ONNX Runtime", "LiteRT") and numbers == "float16":
        numbers = "float32 (so it computes float16 files there)"
    elif device != "cpu" and numbers == "float32":
        numbers = "float32 with convolutions in TF32"
    return f"{numbers}, by {engine} on the {'CPU' if device == 'cpu' else 'GPU'}"


def join_arithmetics(networks: Mapping[str, str]) -> str:
    """Arithmetics by network as one text: said once where it is the same for all."""
    if len({*networks.values()}) == 1:
        return next(iter(networks.values()))
    return "; ".join(f"{name}: {arithmetic}" for name, arithmetic in networks.items())
