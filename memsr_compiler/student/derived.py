"""What both ways of deriving a student give: its kernels, and what each layer stands for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from memsr_compiler.student.report import LayerShrunk

Kernel = tuple[Tensor, Tensor]  # weight (C_out, C_in, k, k), bias (C_out,), float64


@dataclass(frozen=True)
class Derived:
    """kernels   of every layer, the last without ReLU;  layers   one for each but the last"""

    kernels: tuple[Kernel, ...]
    layers: tuple[LayerShrunk, ...]
