"""The order of things in `compile_to_plain`: read, rewrite, certify.  The things themselves are in the passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from numbers import Real
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from memsr_compiler import ir, passes
from memsr_compiler.analysis.cost import Cost, cost_of_layers, cost_of_teacher, default_align, predicted_widths
from memsr_compiler.analysis.schedule import Carrying
from memsr_compiler.checks import require_align, require_choice, require_listener
from memsr_compiler.errors import InvalidInput, NotEquivalent, UnsupportedModel
from memsr_compiler.images.tensors import Images, image_tensors_in_range
from memsr_compiler.ir.approximation import Replacement
from memsr_compiler.ir.pipeline import PassReport, run_passes
from memsr_compiler.ir.rewrite import Pass
from memsr_compiler.ir.validate import receptive_field
from memsr_compiler.lowering.canonical import Tail, canonical
from memsr_compiler.lowering.freezing import trace_once, trace_or_freeze
from memsr_compiler.lowering.image_aside import set_image_aside
from memsr_compiler.lowering.stopwatch import Stopwatch
from memsr_compiler.passes.split_stages import StageGraph
from memsr_compiler.plain.info import PlainInfo, Takes
from memsr_compiler.plain.network import ExactLayer, PlainLayer, PlainNet
from memsr_compiler.proof import checker
from memsr_compiler.proof.certificate import Certificate, Stage
from memsr_compiler.proof.guarantee import Carried, list_carried, state_guarantee
from memsr_compiler.teachers.teacher import Range, Teacher, TeacherLike, as_teacher
from memsr_compiler.torch_helpers import list_parameters, one_thread
from memsr_compiler.trace.approximate.freeze import Frozen
from memsr_compiler.trace.trace import Traced
from memsr_compiler.version import VERSION

Activation = Literal["relu", "prelu"]

MAX_WEIGHTS = 4 << 30  # bytes in float32; beyond it the plain form is not built unless told


@dataclass(frozen=True, kw_only=True)
class Report:
    """Account of one run of compile_to_plain.

    reader       which of torch's tracers read the network
    seconds      by stage of the work: trace, passes, validation, build, certificate
    passes       one PassReport a pass (and stage)
    carried      every tensor carried past a ReLU
    rounding     largest rounding of a weight to the stored dtype, in units of half its last place: at most about 1
    cost         parameters, multiply-adds and feature maps of the plain network;   teacher_cost   of the teacher
    frozen       what was replaced of a teacher that has no plain form, and at what cost; None where nothing was
    """

    reader: str
    seconds: Mapping[str, float]
    passes: tuple[PassReport, ...]
    carried: tuple[Carried, ...]
    rounding: float
    cost: Cost
    teacher_cost: Cost
    frozen: Frozen | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices that decide what the plain network looks like: see `compile_to_plain`."""

    carry: Carrying
    constant: float | Mapping[str, float] | None
    tail: Tail
    align: int | None
    max_weights: int
    activation: Activation = "relu"

    @property
    def carrying(self) -> Carrying:
        """Way in which values cross levels: in the PReLU form all pass as they are."""
        return "pass" if self.activation == "prelu" else self.carry

    @property
    def multiple(self) -> int:
        """Multiple that widths are padded to."""
        return default_align(self.carrying) if self.align is None else self.align

    def check(self) -> None:
        """Raises InvalidInput for a choice that is none, or that does not fit another."""
        carry, constant = self.carry, self.constant
        require_choice("carry", carry, ("auto", "shift", "split"))
        require_choice("activation", self.activation, ("relu", "prelu"))
        if self.activation == "prelu" and carry != "auto":
            raise InvalidInput(
                f"carry '{carry}' is for activation relu; with prelu every value passes in one channel; leave it out"
            )
        require_choice("tail", self.tail, get_args(Tail))
        if carry == "shift" and constant is None:
            raise InvalidInput("carry 'shift' needs the constant C; give --constant, or measure it with --calibration")
        if carry != "shift" and constant is not None:
            raise InvalidInput(f"a constant is for carry 'shift'; carry is '{carry}'")
        constants: list[object] = [*constant.values()] if isinstance(constant, Mapping) else [constant]
        for value in constants:
            if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
                raise InvalidInput(f"the constant {value!r} is a {type(value).__name__}, not a number")
        if isinstance(constant, (int, float)) and not (constant > 0 and math.isfinite(constant)):
            raise InvalidInput(f"the constant {constant} is not a positive number")
        require_align(self.multiple)
        most = cast(object, self.max_weights)  # in Python it may be anything
        if not isinstance(most, Real) or not float(most) > 0:
            raise InvalidInput(f"max_weights {self.max_weights!r}: want a number of bytes above 0")


@torch.inference_mode(False)  # whose tensors do not tell whether they were written to
@one_thread()
def compile_to_plain(
    model: TeacherLike,
    *,
    carry: Carrying = "auto",
    constant: float | Mapping[str, float] | None = None,
    activation: Activation = "relu",
    tail: Tail = "fold",
    input_range: Range | None = None,
    align: int | None = None,
    image_skip: Literal["refuse", "outside"] = "refuse",
    max_weights: int = MAX_WEIGHTS,
    approximate: Images | None = None,
    on_pass: Callable[[PassReport], None] | None = None,
    on_graph: Callable[[str, ir.Graph], None] | None = None,
) -> PlainNet:
    """Compile a trained super-resolution network into an equivalent plain network.

    One that has no plain form is refused, or approximated on request: what is compiled is then a frozen network.

    model         what `read_teacher` gives, a module (N, C, H, W) -> (N, C', s H, s W), or a file's path; in eval mode
                  where that matters; never modified.  Its weights' dtype is the result's.
    carry         "auto": free where a value is never negative, else split, exact for every input in the range;
                  "split": split; "shift": x + C, exact only while |x| <= C (MemSR, Prop. 3.6)
    constant      C of the shift, in the units of the network's values; one for all, or one a tensor
    activation    "relu": convolutions and ReLUs, MemSR's form; "prelu": after a convolution a PReLU, whose slope, one a
                  channel, is 0 (ReLU), the teacher's own, or 1: every value is carried in one channel, for every input
    tail          "fold": everything at the input's resolution and one pixel shuffle at the end; "keep": a stack of
                  layers for each resolution, a pixel shuffle between
    input_range   the smallest and largest input value: (0, 1) or (0, 255), say; None: the teacher's own, (0, 1) of a
                  module of yours
    align         widths are padded to a multiple of it; None: 8, or 4 for "prelu"
    image_skip    "outside": an image that is enlarged and added at the very end stays beside the plain network;
                  "refuse": one that is repeated pixel by pixel is carried inside, an interpolated one refused
    max_weights   bytes (float32); a plain form that would be larger is refused before it is built
    approximate   images, tensors (N, C, H, W) in the input range, pixels (H, W, C), files, a folder: where the network
                  has no plain form, its gates are frozen at their means on these, and smooth activations replaced by
                  straight pieces where their inputs lie; the certificate names each and is of the frozen network
    on_pass       hears of each pass when it is done
    on_graph      sees the graph "as read", then the name of each pass and the graph that it made

    Raises UnsupportedModel (module, op, reason, way out), InvalidInput for options that do not fit and files that
    cannot be read, NotEquivalent and CertificateError if this compiler made a mistake and noticed.
    Source: MemSR (Wu, Lee, Ma, ICML 2022), Sec. 3.2; schedule, split carries, folded tails and certificate beyond it.
    """
    options = Options(
        carry=carry, constant=constant, tail=tail, align=align, max_weights=max_weights, activation=activation
    )
    options.check()
    require_listener("on_pass", on_pass, "a report")
    require_listener("on_graph", on_graph, "a name", "a graph")
    require_choice("image_skip", image_skip, ("refuse", "outside"))
    teacher = as_teacher(model, input_range=input_range)
    watch = Stopwatch()
    teacher, traced = _trace(teacher, approximate)
    replacements = teacher.frozen.replacements if teacher.frozen else ()
    teacher_cost = cost_of_teacher(traced.graph, teacher.convertible)
    if on_graph is not None:
        on_graph("as read", traced.graph)
    if image_skip == "outside" and tail == "fold":  # with more than one shuffle there is no place to repeat pixels
        traced = set_image_aside(traced)
    if traced.image_skip is not None and image_skip == "refuse":
        raise UnsupportedModel(
            f"the image, enlarged by {traced.image_skip.mode} interpolation, is added at the end; a plain network "
            "cannot clamp at the edge as it does; keep it beside the plain network with --image-skip outside"
        )
    watch.lap("trace")
    stages, reports = lower(traced.graph, options, on_pass=on_pass, on_graph=on_graph)
    watch.lap("lower")
    dtype = next((p.dtype for p in list_parameters(teacher.module).values() if p.is_floating_point()), torch.float32)
    certificate = _claim(stages, traced.graph, teacher.input_range, replacements)
    layers, exact = _layers(stages, dtype)
    tensors = tuple(list_carried(certificate, traced.graph, [layer.for_checker().slopes for layer in layers]))
    info = _info(traced, certificate, options.carrying, tensors, (*teacher.assumed, *traced.assumed))
    net = PlainNet(layers, info, exact=exact).eval()
    net.certificate = certificate = replace(certificate, plain_sha256=net.sha256())
    watch.lap("build")
    checked = checker.check(traced.graph, net.checkable(), certificate)
    watch.lap("certificate")
    net.report = Report(
        reader=traced.reader,
        seconds={
            "trace": watch.seconds["trace"],
            "passes": sum(p.seconds for p in reports),
            "validation": sum(p.validation_seconds for p in reports),
            "build": watch.seconds["build"],
            "certificate": watch.seconds["certificate"],
        },
        passes=tuple(reports),
        carried=tensors,
        rounding=checked.rounding,
        cost=cost_of_layers([(layer.weight.shape, layer.shuffle) for layer in net]),
        teacher_cost=teacher_cost,
        frozen=teacher.frozen,
    )
    return net


def _trace(teacher: Teacher, approximate: Images | None) -> tuple[Teacher, Traced]:
    """Read a teacher, frozen where that is asked for and has to be."""
    if approximate is not None or teacher.frozen is not None:
        return trace_or_freeze(
            teacher, lambda takes: _images_taken(approximate if approximate is not None else (), takes)
        )
    return trace_once(teacher)


def _images_taken(images: Images, takes: Takes) -> list[Tensor]:
    return image_tensors_in_range(images, channels=takes.channels, input_range=takes.input_range)


def lower(
    graph: ir.Graph,
    options: Options,
    *,
    on_pass: Callable[[PassReport], None] | None = None,
    on_graph: Callable[[str, ir.Graph], None] | None = None,
) -> tuple[list[StageGraph], list[PassReport]]:
    """A traced graph -> one chain of convolutions and activations for each stage, every pass checked and reported."""
    reports: list[PassReport] = []

    def see(name: str, after: ir.Graph) -> None:  # before the next pass, the first that could take much memory
        if name == passes.CANONICAL[-1].name:
            _refuse_too_large(after, options)
        if on_graph is not None:
            on_graph(name, after)

    def apply(before: ir.Graph, recipe: Sequence[Pass]) -> ir.Graph:
        try:
            after, of_recipe = run_passes(before, recipe, on_pass=on_pass, on_graph=see)
        except NotEquivalent as error:
            if error.clipped and error.pass_name in ("insert-relu", ""):
                raise InvalidInput(
                    f"C is too small: for inputs in {before.input.low:g} to {before.input.high:g} a carried value, "
                    f"{error.clipped}, is larger ({error}); raise --constant or --margin, or use --carry auto"
                ) from None
            raise
        reports.extend(of_recipe)
        return after

    bound: dict[str, dict[str, Any]] = {
        "skip-to-conv": {"carry": options.carrying},
        "insert-relu": {"carry": options.carrying, "constant": options.constant},
        "align-channels": {"multiple": options.multiple},
    }
    plain = [step.bind(**bound.get(step.name, {})) for step in passes.PLAIN]
    keep_prelu = options.activation == "prelu"
    return canonical(graph, options.tail, keep_prelu=keep_prelu, further=plain, apply=apply), reports


def _refuse_too_large(graph: ir.Graph, options: Options) -> None:
    widths, kernels = predicted_widths(graph, options.carrying, options.multiple)
    size = 4 * sum(a * b * k * k for a, b, k in zip(widths, widths[1:], kernels, strict=False))
    if size > options.max_weights:
        raise UnsupportedModel(
            f"the plain form would be up to {max(widths)} channels wide and take {size / 2**30:.1f} GiB of weights, "
            f"over the limit of {options.max_weights / 2**30:.1f} GiB; raise --max-weights"
        )


def _layers(stages: Sequence[StageGraph], dtype: torch.dtype) -> tuple[list[PlainLayer], list[ExactLayer]]:
    """The layers in this dtype, and those of which they are the rounded numbers."""
    layers: list[PlainLayer] = []
    exact: list[ExactLayer] = []
    for stage in stages:
        convs = [op for op in stage.graph if isinstance(op, ir.BlockConv2d)]
        ends = [op for op in stage.graph if isinstance(op, ir.ACTIVATIONS)]
        for conv, end in zip_longest(convs, ends):
            relu, slope = isinstance(end, ir.Relu), None
            if isinstance(end, ir.PRelu) and bool((end.slope != 1).any()):
                slope = end.slope[:, None, None]
            numbers = [conv.dense(dtype), conv.bias.to(dtype)]
            shuffle = stage.graph.scale if end is None else 1
            stored = None if slope is None else slope.to(dtype)
            layers.append(PlainLayer(*numbers, relu=relu, shuffle=shuffle, slope=stored))
            exact.append(ExactLayer(conv, slope))
    return layers, exact


def _claim(
    stages: Sequence[StageGraph], teacher: ir.Graph, input_range: Range, replacements: tuple[Replacement, ...]
) -> Certificate:
    """The certificate of these stages, before the weights have a hash that it could name."""
    proved: list[Stage] = []
    base = 1
    for stage in stages:
        relus = [op for op in stage.graph if isinstance(op, ir.ACTIVATIONS)]
        start = _side_by_side(teacher, stage.starts, 1)
        end = _side_by_side(teacher, stage.ends, stage.graph.scale)
        proved.append(Stage(base, (start, *(r.meaning for r in relus), end)))
        base *= stage.graph.scale
    return Certificate(teacher.sha256(), "", input_range, tuple(proved), replacements)


def _info(
    traced: Traced, certificate: Certificate, carry: Carrying, tensors: Sequence[Carried], assumed: tuple[str, ...]
) -> PlainInfo:
    return PlainInfo(
        scale=traced.graph.scale,
        channels=traced.graph.input.channels,
        input_range=certificate.input_range,
        carry=carry,
        guarantee=state_guarantee(tensors, certificate.approximation),
        teacher_sha256=certificate.teacher_sha256,
        receptive_field=receptive_field(traced.graph),
        image_skip=traced.image_skip.mode if traced.image_skip else "",
        tool=f"memsr_compiler {VERSION}",
        assumed=assumed,
    )


def _side_by_side(teacher: ir.Graph, tensors: Sequence[str], shuffle: int) -> tuple[ir.Meaning, ...]:
    """The meanings of whole tensors, folded by the pixel shuffle that follows."""
    meanings, start = [], 0
    for name in tensors:
        width = teacher.type(name).channels * shuffle**2
        meanings.append(ir.Meaning("value", tuple(range(start, start + width)), name, tuple(range(width))))
        start += width
    return tuple(meanings)
