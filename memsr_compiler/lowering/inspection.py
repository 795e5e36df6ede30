"""Inspecting a teacher: what is in it, and what its plain form would be, before anything is computed."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.analysis.cost import Cost, cost_of_layers, cost_of_teacher, default_align, planned_widths
from memsr_compiler.analysis.rematerialize import plan
from memsr_compiler.analysis.schedule import Carrying, Schedule
from memsr_compiler.checks import require_align, require_choice
from memsr_compiler.errors import MemsrError
from memsr_compiler.ir import names
from memsr_compiler.lowering.canonical import Tail, canonical
from memsr_compiler.lowering.freezing import trace_once
from memsr_compiler.teachers.teacher import Range, TeacherLike, as_teacher
from memsr_compiler.torch_helpers import list_parameters, one_thread
from memsr_compiler.trace.trace import Traced

CARRYING: tuple[Carrying, ...] = ("auto", "shift", "pass")  # ways of carrying that are predicted
Plan = tuple[ir.Graph, Schedule]

_LARGE = 32 * 2**20  # bytes, of weights that are worth the tenths of a second that it takes to be rid of them at once


@dataclass(frozen=True)
class LayerInfo:
    """One op of the teacher: module path, what it is, its result's channels and resolution, what it reads."""

    name: str
    kind: str
    channels: int
    scale: int
    parameters: int
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """The plain form under one way of carrying: widths from input to output, and what it costs.

    carry   "pass": the PReLU form
    """

    carry: Carrying
    widths: tuple[int, ...]
    cost: Cost


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`.  Where `convertible` is false, `reason` says why and what to do.

    layers       op by op as read; for a network that cannot be read, its modules instead (channels 0)
    teacher      its cost; None if it could not be read
    predictions  for "auto" and "shift", and for the PReLU form, "pass"
    carries      the tensors that skip a ReLU, under "auto", and past how many
    assumed      of the network's code, in words: see `Teacher.assumed`
    """

    convertible: bool
    reason: str
    layers: tuple[LayerInfo, ...]
    scale: int = 0
    channels: int = 0
    teacher: Cost | None = None
    predictions: tuple[Prediction, ...] = ()
    carries: tuple[tuple[str, int], ...] = ()
    assumed: tuple[str, ...] = ()


@one_thread()
def inspect(
    model: TeacherLike,
    *,
    input_range: Range | None = None,
    align: int | None = None,
    tail: Tail = "fold",
) -> Inspection:
    """Read a network and predict its plain form.  Never raises for a network that cannot be converted: it says so.

    model         what `read_teacher` gives, a module, or a file's path
    input_range   of its input values; None: the teacher's own
    align         widths are padded to a multiple of it; None: as `compile_to_plain` has it;   tail   "fold" or "keep"

    Raises InvalidInput for a file that cannot be read, and for options that are none.
    """
    require_choice("tail", tail, get_args(Tail))
    if align is not None:
        require_align(align)
    teacher = as_teacher(model, input_range=input_range)
    try:
        teacher, traced = trace_once(teacher)
    except MemsrError as error:
        return Inspection(False, str(error), _modules(teacher.module))
    return inspect_traced(traced, teacher.module, align=align, tail=tail)


@one_thread()
def inspect_traced(traced: Traced, module: nn.Module, *, align: int | None = None, tail: Tail = "fold") -> Inspection:
    """The same of a network that has been read already.  Never raises."""
    inspection = _describe(traced, module)
    graph = _with_small_kernels(traced.graph, module)
    del traced
    if 8 * sum(parameter.numel() for parameter in list_parameters(module).values()) > _LARGE:
        gc.collect()  # torch.fx's graphs refer to themselves, and what they hold is a copy of all weights in float64
    try:
        forms = {False: [stage.graph for stage in canonical(graph, tail)]}
        bent = any(isinstance(op, ir.PRelu) for op in graph)
        forms[True] = [stage.graph for stage in canonical(graph, tail, keep_prelu=True)] if bent else forms[False]
        plans = {carry: [plan(stage, carry) for stage in forms[carry == "pass"]] for carry in CARRYING}
    except MemsrError as error:
        return replace(inspection, convertible=False, reason=str(error))
    predictions = tuple(
        _predict(planned, carry, default_align(carry) if align is None else align) for carry, planned in plans.items()
    )
    return replace(inspection, predictions=predictions, carries=_carries(plans["auto"]))


def _describe(traced: Traced, module: nn.Module) -> Inspection:
    """The inspection as far as the traced graph alone says it."""
    graph, skip = traced.graph, traced.image_skip
    reason = (
        f"only with --image-skip outside: the image is added, enlarged by {skip.mode} interpolation" if skip else ""
    )
    return Inspection(
        convertible=not reason,
        reason=reason,
        layers=tuple(_layer(graph, op) for op in graph),
        scale=graph.scale,
        channels=graph.input.channels,
        teacher=cost_of_teacher(graph, module),
        assumed=traced.assumed,
    )


def _with_small_kernels(graph: ir.Graph, module: nn.Module) -> ir.Graph:
    """The same graph in less memory: kernels in float32 where it holds them, which the module has already, mostly."""
    own = {names.escape(path.removesuffix(".weight")): p.detach() for path, p in list_parameters(module).items()}
    ops: list[ir.Op] = []
    for op in graph:
        if isinstance(op, ir.Conv2d) and not op.pointwise:
            op = replace(op, weight=_small(op.weight, own.get(op.name)))
        ops.append(op)
    return ir.Graph(tuple(ops), graph.output)


def _small(kernel: Tensor, own: Tensor | None) -> Tensor:
    """The float64 kernel in float32 where that holds it exactly, which is `own` if that is the same."""
    if own is not None and own.dtype == torch.float32 and own.is_cpu and torch.equal(own.double(), kernel):
        return own
    single = kernel.float()
    return single if torch.equal(single.double(), kernel) else kernel


def _predict(planned: Sequence[Plan], carry: Carrying, align: int) -> Prediction:
    widths: list[int] = []
    layers: list[tuple[tuple[int, int, int, int], int]] = []
    for graph, scheduled in planned:
        here, kernels = planned_widths(graph, scheduled, carry, align)
        shapes = [(after, before, k, k) for before, after, k in zip(here, here[1:], kernels, strict=False)]
        layers += [(shape, graph.scale if i == len(shapes) - 1 else 1) for i, shape in enumerate(shapes)]
        widths += here if not widths else here[1:]
    return Prediction(carry, tuple(widths), cost_of_layers(layers))


def _carries(planned: Sequence[Plan]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for _, scheduled in planned:
        for boundary, crossing in enumerate(scheduled.crossing):
            for name in crossing:
                if boundary and scheduled.layer.get(name) != boundary:
                    counts[names.value(name)] = counts.get(names.value(name), 0) + 1
    return tuple(counts.items())


def _layer(graph: ir.Graph, op: ir.Op) -> LayerInfo:
    t = graph.type(op.name)
    held = {name: value for name, value in vars(op).items() if isinstance(value, Tensor)}
    parameters = sum(value.numel() for name, value in held.items() if name != "bias" or value.any())
    return LayerInfo(op.name, type(op).__name__, t.channels, t.scale, parameters, op.inputs)


def _modules(model: nn.Module) -> tuple[LayerInfo, ...]:
    leaves = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    return tuple(
        LayerInfo(name or "(network)", type(m).__name__, 0, 0, sum(p.numel() for p in m.parameters()), ())
        for name, m in leaves
    )
