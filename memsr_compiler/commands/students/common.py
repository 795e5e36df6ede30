"""The common part of `shrink` and `sweep`: a student derived as its options say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import nn

from memsr_compiler.analysis.cost import Cost, cost_of_layers, cost_of_teacher
from memsr_compiler.commands.given.material import Material, read_material
from memsr_compiler.commands.given.teachers import describe, read, set_up
from memsr_compiler.commands.interface.options import StudentOptions, TeacherOptions
from memsr_compiler.commands.interface.output import Talk, mebibytes, thousands
from memsr_compiler.errors import InvalidInput, escape_controls
from memsr_compiler.lowering.freezing import trace_or_freeze
from memsr_compiler.lowering.inspection import inspect_traced
from memsr_compiler.plain.info import PlainInfo, Takes
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.read import is_plain
from memsr_compiler.quantities import say_count
from memsr_compiler.student.paper.options import parse_paper_options
from memsr_compiler.student.shrink import shrink
from memsr_compiler.teachers.teacher import Teacher
from memsr_compiler.trace.approximate.freeze import Frozen
from memsr_compiler.trace.trace import Traced

_MAKER = 80  # letters of what a plain file says it was made by


@dataclass(frozen=True)
class Source:
    """A teacher, or a plain network that was made of one, and what it is.

    plain    cost of its plain form, predicted for a teacher;   cost   its own
    frozen   what stands for a teacher that has no plain form; costs are then of that
    traced   the teacher as it was read, or what stands for it
    assumed  what its file does not say
    """

    model: nn.Module
    takes: Takes
    words: str
    cost: Cost
    plain: Cost | None
    assumed: tuple[str, ...] = ()
    frozen: Frozen | None = None
    traced: Traced | None = None

    @property
    def teacher(self) -> Teacher:
        """The network as functions take it."""
        return Teacher(
            module=self.model,
            input_range=self.takes.input_range,
            assumed=self.assumed,
            frozen=self.frozen,
            traced=self.traced,
        )

    @property
    def is_plain(self) -> bool:
        return isinstance(self.model, PlainNet)


def read_source(
    options: TeacherOptions, align: int, talk: Talk, calibration: Path | None = None, *, own_process: bool = True
) -> Source:
    """Read a teacher, or a plain network of ours.

    calibration   photographs on which a teacher is frozen that has no plain form; None: those that ship
    own_process   this process is the command's own, and is set up as it needs it
    """
    if is_plain(options.teacher):
        if own_process:
            set_up(options, talk)
        return _plain_source(options)
    teacher, input_range = read(options, talk, own_process=own_process)
    with talk.progress() as step:
        teacher, traced = trace_or_freeze(
            teacher, lambda takes: read_material(calibration, takes, talk).inputs(takes), on_step=step
        )
    inspection = inspect_traced(traced, teacher.convertible, align=align)
    graph = traced.graph
    predicted = inspection.predictions[0].cost if inspection.predictions else None
    channels = graph.input.channels
    if channels not in (1, 3):
        raise InvalidInput(
            f"the network takes {say_count(channels, 'channel')}, and photographs have 3, or 1 for Y; use "
            "shrink from Python, "
            "with tensors"
        )
    takes = Takes(graph.scale, channels, input_range)
    words, cost = describe(teacher, input_range), cost_of_teacher(graph, teacher.convertible)
    return Source(teacher.module, takes, words, cost, predicted, teacher.assumed, teacher.frozen, traced)


def _plain_source(options: TeacherOptions) -> Source:
    if options.arch is not None or options.arch_args or options.prefix or options.scale is not None:
        raise InvalidInput(
            f"{options.teacher}: is a plain network, which tells all about itself; leave --arch, --arch-args, "
            "--prefix, --scale out"
        )
    net = load_plain(options.teacher, require_certificate=False)
    if options.input_range not in (None, net.info.input_range):
        low, high = net.info.input_range
        raise InvalidInput(f"{options.teacher}: its input values are {low:g} to {high:g}; leave --input-range out")
    cost = cost_of_layers([(tuple(layer.weight.shape), layer.shuffle) for layer in net])
    maker = shorten(escape_controls(net.info.tool), _MAKER, placeholder="...")  # as a foreign file says
    words = f"a plain network of {say_count(len(net.layers), 'layer')}, made by {maker}"
    takes = Takes(net.info.scale, net.info.channels, net.info.input_range)
    return Source(net, takes, words, cost, cost, net.info.assumed)


def require_relus(info: PlainInfo, path: Path, what: str) -> None:
    """Raise InvalidInput for a network in the PReLU form, which is run and shrunk, and nothing else.

    what   is not done with it
    """
    if info.carry == "pass":
        raise InvalidInput(
            f"{path}: is in the PReLU form, which is not {what}; give a student that memsrc shrink derives of it, or "
            "convert the teacher with --activation relu"
        )


def derive(
    teacher: Source,
    options: StudentOptions,
    budget: Mapping[str, Any],
    material: Material,
    on_step: Callable[[str], None] | None = None,
) -> PlainNet:
    """Derive a student by `shrink`, with one budget: {"theta": 0.05}, say; layers in it are for this student alone."""
    chosen: dict[str, Any] = {"samples": options.samples, "refit": options.refit, "layers": options.layers, **budget}
    if options.paper and options.init != "memsr":
        raise InvalidInput("--paper is for --init memsr; the default mode is not the paper's")
    return shrink(
        teacher.teacher,
        **{name: value for name, value in chosen.items() if value is not None},
        size=options.size,
        image_skip=options.image_skip,
        calibration=material.calibration,
        init=options.init,
        mean_shift=options.mean_shift,
        paper=parse_paper_options(options.paper or ()),
        seed=options.seed,
        align=options.align,
        device=options.device,
        on_step=on_step,
    )


def cost_cells(cost: Cost | None, size: tuple[int, int]) -> tuple[str, str, str]:
    """Parameters, multiply-adds and feature maps for an input of `size` (width, height), for a table."""
    if cost is None:
        return "", "", ""
    width, height = size
    macs = cost.macs_per_pixel * width * height
    return thousands(cost.parameters), f"{macs / 1e9:,.1f} G", mebibytes(cost.memory(height, width))


def cost_data(cost: Cost, size: tuple[int, int]) -> dict[str, int]:
    """Costs for an input of `size`, for JSON."""
    width, height = size
    return {
        **asdict(cost),
        "macs": cost.macs_per_pixel * width * height,
        "feature_map_bytes": cost.memory(height, width),
    }
