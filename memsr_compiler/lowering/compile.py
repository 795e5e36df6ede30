"""compile_to_plain: read, rewrite, certify.  The order of things; the things themselves are in the passes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from memsr_compiler import ir, passes
from memsr_compiler.analysis.cost import Cost, cost_of_layers, predicted_widths
from memsr_compiler.analysis.schedule import Carrying
from memsr_compiler.errors import InvalidInput, NotEquivalent, UnsupportedModel
from memsr_compiler.ir.pipeline import PassReport, run_passes
from memsr_compiler.ir.rewrite import Pass
from memsr_compiler.ir.validate import receptive_field
from memsr_compiler.passes.split_stages import StageGraph, stages
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.proof import checker
from memsr_compiler.proof.certificate import Certificate, Stage
from memsr_compiler.proof.guarantee import Carried, carried, guarantee
from memsr_compiler.torch_helpers import one_thread
from memsr_compiler.trace.trace import Traced, trace
from memsr_compiler.version import VERSION

Tail = Literal["fold", "keep"]
MAX_WEIGHTS = 4 << 30  # bytes in float32; beyond it the plain form is not built unless told


@dataclass
class Report:
    """What compile_to_plain did.

    reader       which of torch's tracers read the network
    seconds      by stage of the work: trace, passes, validation, build, certificate
    passes       one PassReport a pass (and stage)
    carried      every tensor carried past a ReLU
    rounding     largest rounding of a weight to the stored dtype, in units of half its last place: at most about 1
    cost         parameters, multiply-adds and feature maps of the plain network
    """

    reader: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    passes: list[PassReport] = field(default_factory=list)
    carried: list[Carried] = field(default_factory=list)
    rounding: float = 0.0
    cost: Cost | None = None


class _Clock:
    """Seconds from lap to lap."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self.last
        self.last = now


@one_thread()
def compile_to_plain(
    model: nn.Module,
    *,
    carry: Carrying = "auto",
    constant: float | Mapping[str, float] | None = None,
    tail: Tail = "fold",
    input_range: tuple[float, float] = (0.0, 1.0),
    align: int = 8,
    image_skip: Literal["refuse", "outside"] = "refuse",
    max_weights: int = MAX_WEIGHTS,
    on_pass: Callable[[PassReport], None] | None = None,
    on_graph: Callable[[str, ir.Graph], None] | None = None,
) -> PlainNet:
    """Compile a trained super-resolution network into an equivalent plain network.

    model         (N, C, H, W) -> (N, C', s H, s W); in eval mode where that matters; never modified.  Its weights'
                  dtype is the result's.
    carry         "auto": free where a value is never negative, else split, exact for every input in the range;
                  "split": split; "shift": x + C, exact only while |x| <= C (MemSR, Prop. 3.6)
    constant      C of the shift, in the units of the network's values; one for all, or one a tensor
    tail          "fold": everything at the input's resolution and one pixel shuffle at the end; "keep": a stack of
                  layers for each resolution, a pixel shuffle between
    input_range   the smallest and largest input value: (0, 1) or (0, 255), say
    align         widths are padded to a multiple of it
    image_skip    "outside": an interpolated image added at the very end stays beside the plain network
    max_weights   bytes (float32); a plain form that would be larger is refused before it is built
    on_pass       hears of each pass when it is done
    on_graph      sees the name of each pass and the graph that it made

    Raises UnsupportedModel (module, op, reason, way out), InvalidInput for options that do not fit, NotEquivalent and
    CertificateError if this compiler made a mistake and noticed.
    Source: MemSR (Wu, Lee, Ma, ICML 2022); level scheduling, split carries, folded tails and certificate beyond it.
    """
    _check_options(carry, constant, tail, input_range, align)
    report, clock = Report(), _Clock()
    traced = trace(model, input_range=input_range)
    if traced.image_skip is not None and image_skip == "refuse":
        raise UnsupportedModel(
            f"the image, enlarged by {traced.image_skip.mode} interpolation, is added at the end; a plain network "
            "cannot clamp at the edge as it does; keep it beside the plain network with --image-skip outside"
        )
    report.reader = traced.reader
    clock.lap("trace")
    chains = lower(traced.graph, carry=carry, constant=constant, tail=tail, align=align, max_weights=max_weights,
                   report=report, on_pass=on_pass, on_graph=on_graph)  # fmt: skip
    report.seconds |= {
        "passes": sum(p.seconds for p in report.passes),
        "validation": sum(p.validation_seconds for p in report.passes),
    }
    clock.lap("lower")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    net = _build(chains, traced, carry, input_range, dtype, report)
    clock.lap("build")
    assert net.certificate is not None
    half_ulp = torch.finfo(dtype).eps / 2
    report.rounding = checker.check(traced.graph, net.checkable(), net.certificate) / half_ulp
    clock.lap("certificate")
    report.seconds |= {k: v for k, v in clock.laps.items() if k != "lower"}
    report.cost = cost_of_layers([(layer.weight.shape, layer.shuffle) for layer in net])
    return net


def lower(
    graph: ir.Graph,
    *,
    carry: Carrying,
    constant: float | Mapping[str, float] | None,
    tail: Tail,
    align: int,
    max_weights: int,
    report: Report,
    on_pass: Callable[[PassReport], None] | None = None,
    on_graph: Callable[[str, ir.Graph], None] | None = None,
) -> list[StageGraph]:
    """A traced graph -> one chain of convolutions and ReLUs for each stage, every pass checked."""

    def made(name: str, g: ir.Graph) -> None:  # before the next pass, the first that could take much memory
        if name == passes.CANONICAL[-1].name:
            _refuse_too_large(g, carry, align, max_weights)
        if on_graph is not None:
            on_graph(name, g)

    def run(g: ir.Graph, recipe: Sequence[Pass]) -> ir.Graph:
        try:
            result, reports = run_passes(g, recipe, on_pass=on_pass, on_graph=made)
        except NotEquivalent as error:
            if carry == "shift" and "insert-relu" in str(error):
                raise InvalidInput(
                    f"C is too small: for inputs in {g.input.low:g} to {g.input.high:g} a carried value is larger "
                    f"({error}); raise --constant or --margin, or use --carry auto"
                ) from None
            raise
        report.passes += reports
        return result

    options: dict[str, dict[str, Any]] = {
        "skip-to-conv": {"carry": carry},
        "insert-relu": {"carry": carry, "constant": constant},
        "align-channels": {"multiple": align},
    }
    plain = [p.bind(**options.get(p.name, {})) for p in passes.PLAIN]
    if tail == "fold":  # one recipe: what one pass leaves is what the next starts from, also for the validation
        return [replace(s, graph=run(s.graph, (*passes.CANONICAL, *plain))) for s in stages(graph, tail)]
    local = run(graph, passes.LOCAL)
    return [replace(s, graph=run(s.graph, (*passes.FOLD, *plain))) for s in stages(local, tail)]


def _refuse_too_large(graph: ir.Graph, carry: Carrying, align: int, max_weights: int) -> None:
    widths, kernels = predicted_widths(graph, carry, align)
    size = 4 * sum(a * b * k * k for a, b, k in zip(widths, widths[1:], kernels, strict=False))
    if size > max_weights:
        raise UnsupportedModel(
            f"the plain form would be up to {max(widths)} channels wide and take {size / 2**30:.1f} GiB of weights, "
            f"over the limit of {max_weights / 2**30:.1f} GiB; raise --max-weights"
        )


def _check_options(
    carry: Carrying,
    constant: float | Mapping[str, float] | None,
    tail: Tail,
    input_range: tuple[float, float],
    align: int,
) -> None:
    if carry not in ("auto", "shift", "split"):
        raise InvalidInput(f"carry '{carry}' is none of auto, shift, split")
    if tail not in ("fold", "keep"):
        raise InvalidInput(f"tail '{tail}' is neither fold nor keep")
    if carry == "shift" and constant is None:
        raise InvalidInput("carry 'shift' needs the constant C; give --constant, or measure it with --calibration")
    if carry != "shift" and constant is not None:
        raise InvalidInput(f"a constant is for carry 'shift'; carry is '{carry}'")
    if isinstance(constant, (int, float)) and not (constant > 0 and math.isfinite(constant)):
        raise InvalidInput(f"the constant {constant} is not a positive number")
    low, high = input_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidInput(f"input range {low} {high} is empty or infinite; most networks take 0 1 or 0 255")
    if align < 1:
        raise InvalidInput(f"widths cannot be aligned to {align}; take 1 or more")


def _build(
    chains: Sequence[StageGraph],
    traced: Traced,
    carry: Carrying,
    input_range: tuple[float, float],
    dtype: torch.dtype,
    report: Report,
) -> PlainNet:
    layers: list[PlainLayer] = []
    exact: list[ir.BlockConv2d] = []
    proved: list[Stage] = []
    base = 1
    for stage in chains:
        convs = [op for op in stage.graph if isinstance(op, ir.BlockConv2d)]
        relus = [op for op in stage.graph if isinstance(op, ir.Relu)]
        for conv in convs:
            last = conv is convs[-1]
            shuffle = stage.graph.scale if last else 1
            layers.append(PlainLayer(conv.dense(dtype), conv.bias.to(dtype), relu=not last, shuffle=shuffle))
        start = _side_by_side(traced.graph, stage.starts, 1)
        end = _side_by_side(traced.graph, stage.ends, stage.graph.scale)
        proved.append(Stage(base, (start, *(r.meaning for r in relus), end)))
        exact += convs
        base *= stage.graph.scale
    certificate = Certificate(traced.graph.sha256(), "", input_range, tuple(proved))
    report.carried = carried(certificate, traced.graph)
    info = PlainInfo(
        scale=traced.graph.scale,
        channels=traced.graph.input.channels,
        input_range=input_range,
        carry=carry,
        guarantee=guarantee(report.carried),
        teacher_sha256=certificate.teacher_sha256,
        receptive_field=receptive_field(traced.graph),
        image_skip=traced.image_skip.mode if traced.image_skip else "",
        tool=f"memsr_compiler {VERSION}",
    )
    net = PlainNet(layers, info, None, report, exact).eval()
    net.certificate = replace(certificate, plain_sha256=net.sha256())
    return net


def _side_by_side(teacher: ir.Graph, tensors: Sequence[str], shuffle: int) -> tuple[ir.Meaning, ...]:
    """Whole tensors, folded by the pixel shuffle that follows."""
    meanings, start = [], 0
    for name in tensors:
        width = teacher.type(name).channels * shuffle**2
        meanings.append(ir.Meaning("value", tuple(range(start, start + width)), name, tuple(range(width))))
        start += width
    return tuple(meanings)
