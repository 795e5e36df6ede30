"""Constants for shift carries: measured on images, widened by a margin, then attacked.

A measured C is a promise about images that nobody has seen yet.  Tried out, 1.01 x the measured maximum failed on more
than half of 400 unseen inputs, 3 x on none; so the margin is 3 unless told, and `worst` says how far an
adversarial search (gradient ascent on the input, inside its range) got: above 1 the constants are broken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from memsr_compiler import ir, passes
from memsr_compiler.checks import require_choice, require_listener, require_number, require_whole
from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.tensors import Images, image_tensors_in_range
from memsr_compiler.ir import names
from memsr_compiler.ir.interpreter import run
from memsr_compiler.lowering.canonical import Tail, canonical
from memsr_compiler.quantities import say_count
from memsr_compiler.teachers.teacher import Range, TeacherLike, as_teacher
from memsr_compiler.torch_helpers import torch_device
from memsr_compiler.trace.trace import trace

MARGIN = 3.0


@dataclass(frozen=True)
class ShiftConstants:
    """Constants for `compile_to_plain(carry="shift", constant=...)`, and how far they were put to the test.

    constants     C by tensor
    margin        C / largest magnitude measured
    images        how many were measured
    worst         largest |t| / C that the adversarial search reached, and for which tensor
    """

    constants: Mapping[str, float]
    margin: float
    images: int
    worst: float
    worst_tensor: str

    def __str__(self) -> str:
        return (
            f"constants from {say_count(self.images, 'image')} times {self.margin:g}; an adversarial search reached "
            f"{self.worst:.2f} of C ({self.worst_tensor})" + ("" if self.worst <= 1 else ": they are broken")
        )


def calibrate(
    model: TeacherLike,
    images: Images,
    *,
    margin: float = MARGIN,
    input_range: Range | None = None,
    tail: Tail = "fold",
    steps: int = 40,
    device: str = "cpu",
    on_step: Callable[[], None] | None = None,
) -> ShiftConstants:
    """Measure the constants that `compile_to_plain(carry="shift", constant=...)` takes.

    model        what `read_teacher` gives, a module, or a file's path
    images       one or several: tensors (N, C, H, W) in the input range, pixels (H, W, C), files; or a folder
    margin       at least 1
    input_range  None: the teacher's own, 0 to 1 for a module of yours
    tail         as it will be compiled
    steps        of the adversarial search
    device       where the network runs, "cpu" or "cuda"
    on_step      is called after each step

    Raises InvalidInput without images, for images of another range, a margin below 1, and a device that is not to be
    had.
    """
    require_number("margin", margin)
    if margin < 1:
        raise InvalidInput(f"margin {margin} is below 1: the measured images themselves would break it; take 3 or more")
    if margin == math.inf:
        raise InvalidInput("margin inf is no number to multiply by; 3 is usual")
    require_whole("steps", steps, 0, f"{steps} steps of search are not possible; 0 is none, 40 usual")
    require_choice("tail", tail, get_args(Tail))
    require_listener("on_step", on_step)
    where = torch_device(device)
    teacher = as_teacher(model, input_range=input_range)
    graphs = _trace_stages(teacher.module, teacher.input_range, tail)
    tensors = image_tensors_in_range(images, channels=graphs[0].input.channels, input_range=teacher.input_range)
    largest: dict[str, float] = {}

    def watch(tensor: str, value: Tensor) -> None:
        largest[tensor] = max(largest.get(tensor, 0.0), float(value.abs().max()))

    with torch.no_grad():
        for x in tensors:
            _run(graphs, x.to(where, torch.float64), watch)
    constants = {t: margin * max(v, 1e-6) for t, v in largest.items()}
    count = sum(len(x) for x in tensors)
    if not constants:
        return ShiftConstants(constants, margin, count, 0.0, "nothing carried")
    crop = tensors[0][:1, :, :24, :24].to(where, torch.float64)
    worst, tensor = _attack(graphs, crop, constants, teacher.input_range, steps, on_step)
    return ShiftConstants(constants, margin, count, worst, tensor)


def _trace_stages(model: torch.nn.Module, input_range: Range, tail: Tail) -> list[ir.Graph]:
    graph = trace(model, input_range=input_range).graph
    return [passes.skip_to_conv(stage.graph, carry="shift") for stage in canonical(graph, tail)]


def _run(graphs: Sequence[ir.Graph], x: Tensor, watch: Callable[[str, Tensor], None]) -> None:
    """Run stage after stage; `watch` sees every carried value under the name of its tensor."""
    for graph in graphs:

        def watch_op(name: str, value: Tensor, graph: ir.Graph = graph) -> None:
            tensor = _carried_tensor(graph, name)
            if tensor is not None:
                watch(tensor, value)

        x = run(graph, x, watch=watch_op)


def _carried_tensor(graph: ir.Graph, name: str) -> str | None:
    op = graph[name]
    if not isinstance(op, ir.Carry):
        return None
    return op.part.tensor if op.part else names.value(name)


def _attack(
    graphs: Sequence[ir.Graph],
    crop: Tensor,
    constants: Mapping[str, float],
    input_range: Range,
    steps: int,
    on_step: Callable[[], None] | None,
) -> tuple[float, str]:
    """The largest |t| / C that signed gradient ascent finds, starting from a crop of an image and from noise."""
    low, high = input_range
    noise = torch.rand(crop.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (high - low) + low
    x = torch.cat([crop, noise.to(crop.device)])
    best, best_tensor = 0.0, ""
    for step in range(steps):
        x = x.detach().requires_grad_()
        ratios: dict[str, Tensor] = {}

        def watch(tensor: str, value: Tensor, into: dict[str, Tensor] = ratios) -> None:
            if tensor not in into:
                into[tensor] = value.abs().amax(dim=(1, 2, 3)) / constants[tensor]

        with torch.enable_grad():
            _run(graphs, x, watch)
            stacked = torch.stack(list(ratios.values()))
            peak = stacked.amax(dim=0)
            (slope,) = torch.autograd.grad(peak.sum(), x)
        reached = stacked.detach().amax(dim=1)
        if float(reached.max()) > best:
            best, best_tensor = float(reached.max()), list(ratios)[int(reached.argmax())]
        size = (high - low) * 0.1 * (1 - step / steps)
        x = (x + size * slope.sign()).clamp(low, high)
        if on_step is not None:
            on_step()
    return best, best_tensor
