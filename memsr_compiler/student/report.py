"""The report on deriving a student: numbers for tables and pictures, and the maps that distillation starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from memsr_compiler.analysis.cost import Cost
from memsr_compiler.trace.approximate.freeze import Frozen

Mode = Literal["data-aware", "memsr"]
Kernel = tuple[Tensor, Tensor]  # weight (C_out, C_in, k, k), bias (C_out,), float64


@dataclass(frozen=True)
class LayerShrunk:
    """One layer of the student but the last, and the teacher's level that it stands for.

    number            from 1
    holds             the teacher's tensors at this level, by name
    teacher_width     their channels;  width  the student's, alignment included
    relus             of the student's channels, how many are ReLUs of the teacher; the others carry linear directions
    singular_values   (teacher_width,) of the teacher's centred features, largest first, divided by sqrt(samples)
    lost              MemSR Eq. 15: relative Frobenius error of the best features of this width (centred)
    own_error         the same of M_i * (what the student really computes), 0 if nothing is lost
    spans             levels of the teacher that the layer stands for, this one and those below that were left out
    map               M_i (teacher_width, width + 1): the teacher's features from the student's and 1
    """

    number: int
    holds: tuple[str, ...]
    teacher_width: int
    width: int
    relus: int
    singular_values: Tensor
    lost: float
    own_error: float
    map: Tensor
    spans: int = 1


@dataclass(frozen=True)
class LevelsKept:
    """The choice of the teacher's levels that the layers of a shallower student stand for.

    kept, even   numbers of inner levels, from 1: those that were taken, and the even choice beside them
    missed       mean squared error of the output without the ReLUs of each inner level: by these `kept` was proposed
    losses       mean squared difference to the teacher's output of students tried with what was proposed, and with
                 `even`; none where they are the same
    """

    kept: tuple[int, ...]
    even: tuple[int, ...]
    missed: tuple[float, ...]
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Derived:
    """A student and what is to be told of it.

    kernels    of every layer, the last without ReLU;  layers   one for each but the last
    fidelity, seconds, choice, milliseconds   as ShrinkReport has them
    """

    kernels: tuple[Kernel, ...]
    layers: tuple[LayerShrunk, ...]
    fidelity: tuple[float, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    choice: LevelsKept | None = None
    milliseconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ShrinkReport:
    """The report on what `shrink` did.

    mode         "data-aware" or "memsr"
    layers       all but the last
    pixels       of the network's input, that the statistics are of;  images  crops
    fidelity     PSNR in dB of the student's output to the teacher's on some crops, peak = width of the input range;
                 first as derived layer by layer, then on the way of the joint refit and at its end
    cost         of the student;  teacher_cost  of the teacher as it is
    seconds      by stage of the work
    choice       of levels, where the student has fewer layers than its teacher's plain form
    milliseconds that it took where it was timed, for a limit on latency
    frozen       what was replaced of a teacher that has no plain form, to derive the student
    """

    mode: Mode
    layers: tuple[LayerShrunk, ...]
    pixels: int
    images: int
    fidelity: tuple[float, ...]
    cost: Cost
    teacher_cost: Cost
    seconds: Mapping[str, float]
    choice: LevelsKept | None = None
    milliseconds: float | None = None
    frozen: Frozen | None = None

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """Maps M_i of all layers but the last."""
        return tuple(layer.map for layer in self.layers)
