"""Reading a teacher: any nn.Module -> `Traced`.  The only folder that knows torch.fx, torch.export and ONNX graphs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.errors import InvalidInput, UnsupportedModel, first_line
from memsr_compiler.ir.interpreter import run
from memsr_compiler.torch_helpers import compiling_nothing, copy_module, enlarge, one_thread
from memsr_compiler.trace.builder import Builder, Resized
from memsr_compiler.trace.fx.reader import NO_WORD, read, refuse_attention, refuse_impossible, refuse_remembered
from memsr_compiler.trace.fx.tracers import LeavesTorch, export_module, trace_symbolically
from memsr_compiler.trace.kept.held_values import leaving_values
from memsr_compiler.trace.large_constants import require_small_constants
from memsr_compiler.trace.own_code.decisions import find_other_batches, say_decided
from memsr_compiler.trace.own_code.places import place_of
from memsr_compiler.trace.samples import (
    TOGETHER,
    Sample,
    Size,
    differs_by,
    is_same,
    most_off,
    take_sample,
    types_of_weights,
)
from memsr_compiler.trace.subject import (
    Subject,
    observe,
    require_no_value_question,
    require_steady,
    require_usual_tensors,
)
from memsr_compiler.trace.views import DependsOnBatch, DependsOnSize, Unreadable, WrongChannels

log = logging.getLogger(__name__)

SYMBOLIC, EXPORT = "torch.fx.symbolic_trace", "torch.export"  # the readers, the quicker first
_SMALLEST = ((1, 1), (1, 7), (7, 1))  # heights and widths
_LONGEST = ((260, 1), (1, 260))  # few pixels, and longer than what most code takes for small
_LARGER = ((260, 7), (7, 260), (64, 64))
_UNSTEADY = "let it do the same at every size of image, and draw no random numbers"
_IN_TYPES = (
    "its weights are of several types, and where a cast between these gives another tensor, and code writes into that, "
    "is not followed; write z = z * 2 in place of z *= 2"
)


@dataclass(frozen=True)
class ImageSkip:
    """The image itself, enlarged, that the network adds at its end: y = plain(x) + resize(x)."""

    mode: str
    factor: int


@dataclass(frozen=True)
class Traced:
    """A teacher as a graph.

    reader      how it was read
    image_skip  what stays outside the graph, if anything
    assumed     of its code, in words: see `Teacher.assumed`
    """

    graph: ir.Graph
    reader: str
    image_skip: ImageSkip | None = None
    assumed: tuple[str, ...] = ()

    @property
    def module(self) -> GraphModule:
        """The same as a module, which is read at once."""
        return GraphModule(self.graph, self.image_skip, self.reader, self.assumed)


class RefusedModule(nn.Module):
    """A network that its reader has found to have no plain form; it runs all the same."""

    def __init__(self, refusal: UnsupportedModel) -> None:
        super().__init__()
        self.refusal = refusal


class GraphModule(nn.Module):
    """A graph as a module: what the readers of files give.  (N, C, H, W) -> (N, C', s H, s W).

    assumed   of the file, in words: see `Teacher.assumed`
    """

    def __init__(
        self,
        graph: ir.Graph,
        image_skip: ImageSkip | None = None,
        reader: str = "onnx",
        assumed: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.graph = graph
        self.image_skip = image_skip
        self.reader = reader
        self.assumed = assumed

    def forward(self, x: Tensor) -> Tensor:
        y = run(self.graph, x)
        return y if self.image_skip is None else y + enlarge(x, self.image_skip.factor, self.image_skip.mode)


@one_thread()
@compiling_nothing()
@torch.no_grad()
@leaving_values
def trace(model: nn.Module, *, input_range: tuple[float, float] = (0.0, 1.0)) -> Traced:
    """Read a network into a graph; the network is not changed, nor what lies outside of it but by its own code.

    model         one image (N, C, H, W) in, one out; in eval mode as far as that makes a difference
    input_range   bounds of its input values

    Raises UnsupportedModel naming the module, the operation, why it cannot be plain and what to do; InvalidInput for
    weights that are NaN or infinite, and for a network in train mode.
    """
    require_usual_tensors()
    if isinstance(model, GraphModule):
        if (
            type(model) is not GraphModule
            or model._forward_hooks
            or model._forward_pre_hooks
            or "forward" in vars(model)
        ):
            raise InvalidInput(
                "a hook, or a forward of its own, was put on what a file was read into, and is not read; leave it out"
            )
        ops = tuple(_with_range(op, input_range) for op in model.graph)
        graph = ir.Graph(ops, model.graph.output)
        require_small_constants(graph, outside=model.image_skip is not None)
        return require_convolution(Traced(graph, model.reader, model.image_skip, model.assumed))
    if isinstance(model, RefusedModule):
        raise model.refusal
    subject = observe(model, input_range)
    if not subject.samples:
        _attempt(model, SYMBOLIC, dict.fromkeys(subject.errors, ()), input_range)  # its refusal, if any, says more
        raise subject.refuse_to_run()
    traced, stopped = _read_by_either(subject.model, subject.samples, input_range)
    require_small_constants(traced.graph, outside=traced.image_skip is not None)
    if stopped is not None or subject.unknown:
        _compare_batches(subject, traced)
    rounded = require_steady(subject, unheard=bool(subject.unknown) or stopped is not None)
    say_decided(
        subject.model, stopped, traced.graph.input.channels, unheard=bool(subject.unknown), numbers=subject.numbers
    )
    if not subject.of_ours:
        _say_at(subject, traced, (*_SMALLEST, *_LONGEST, *(_LARGER if subject.unknown else ())))
    assumed = subject.tell_assumed(sizes=stopped is not None, channels=traced.graph.input.channels)
    return replace(require_convolution(traced), assumed=(*assumed, *rounded))


def _read_by_either(
    model: nn.Module, samples: Mapping[int, Sequence[Sample]], input_range: tuple[float, float]
) -> tuple[Traced, Exception | None]:
    """The network by the first reader that understands it, and what stopped the other before.

    Raises UnsupportedModel where none does.
    """
    problems: dict[str, Exception] = {}
    for reader in (SYMBOLIC, EXPORT):
        try:
            outcome = _attempt(model, reader, samples, input_range)
        except UnsupportedModel as refusal:
            earlier = problems.get(SYMBOLIC)  # at the exported size, its numbers are there without their reason
            raise earlier if isinstance(earlier, DependsOnSize) else refusal from None
        if isinstance(outcome, Traced):
            return outcome, problems.get(SYMBOLIC)
        if isinstance(outcome, DependsOnBatch):
            raise outcome  # which an export does not show
        problems[reader] = outcome
        log.info("%s does not read it: %s", reader, outcome)
    raise UnsupportedModel(_explain_unread(model, problems))


def _attempt(
    model: nn.Module, reader: str, samples: Mapping[int, Sequence[Sample]], input_range: tuple[float, float]
) -> Traced | Exception:
    """The network as this reader sees it, for the first number of channels for which it is what the samples say; else
    what stopped it for the first.  Raises UnsupportedModel where no reader can help."""
    failures: list[Exception] = []
    for channels, expected in samples.items():
        try:
            traced = _read(model, reader, channels, input_range)
            _compare(model, traced, expected)
            return traced
        except Exception as error:  # whatever the model's own code, or the tracer, raises
            failures.append(error)
        if isinstance(failures[0], UnsupportedModel) and not isinstance(failures[0], (Unreadable, WrongChannels)):
            raise failures[0]
    return failures[0]


def _read(model: nn.Module, reader: str, channels: int, input_range: tuple[float, float]) -> Traced:
    builder = Builder(channels, *input_range)
    if reader == EXPORT:
        module, constant = export_module(model, channels)
        result = read(module, builder, constant)
    else:
        module = trace_symbolically(model, channels)
        images = frozenset(n.name for n in module.graph.nodes if n.op == "placeholder")
        refuse_attention(module.graph, images)
        refuse_remembered(module.graph)
        try:
            result = read(module, builder)
        except Unreadable:
            refuse_impossible(module.graph, images)
            raise
    if not isinstance(result, Resized):
        return Traced(builder.graph(result), reader)
    assert result.body is not None
    return Traced(builder.graph(result.body), reader, ImageSkip(result.mode, result.factor))


def require_convolution(traced: Traced) -> Traced:
    """Itself, unless there is nothing in it to compile."""
    if not any(isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)) for op in traced.graph):
        raise UnsupportedModel("the network has no convolution, so there is nothing to compile; is this the module?")
    return traced


def _with_range(op: ir.Op, input_range: tuple[float, float]) -> ir.Op:
    if isinstance(op, ir.Input):
        return ir.Input(name=op.name, channels=op.channels, low=input_range[0], high=input_range[1])
    return op


def _compare(model: nn.Module, traced: Traced, samples: Sequence[Sample]) -> None:
    """The graph must give what the model gives, in float64: an in-place op misread shows here."""
    module = traced.module
    for image, expected in samples:
        if not isinstance(expected, Tensor):
            raise UnsupportedModel(
                f"the network: output: it returns {type(expected).__name__}, not one image; wrap it in a module that "
                "returns the image only"
            )
        result = module(image)
        several = f" for {len(image)} images at once" if len(image) > 1 else ""
        if expected.shape != result.shape:
            why = TOGETHER if several else _UNSTEADY
            raise Unreadable(
                f"the network: output: read by {traced.reader} it gives {tuple(result.shape)}{several}, and "
                f"itself {tuple(expected.shape)}; {why}",
                located=True,
            )
        difference = float((expected - result).abs().max())
        if not difference <= most_off(expected):
            if not bool(torch.isfinite(expected).all()):
                raise UnsupportedModel(
                    f"{type(model).__name__} itself gives NaN or infinite values for a usual image; its weights are "
                    "damaged, or it divides by 0"
                )
            if not several:
                require_no_value_question(model, [Sample(image, expected)])
            why = (
                TOGETHER
                if several
                else differs_by(
                    copy_module(model, torch.float64),
                    image,
                    _IN_TYPES if len(types_of_weights(model)) > 1 else _UNSTEADY,
                )
            )
            raise Unreadable(
                f"the network: output: read by {traced.reader} it differs from itself by {difference:.3g}{several}; "
                f"{why}",
                located=True,
            )


def _compare_batches(subject: Subject, traced: Traced) -> None:
    """Compare the graph with the network for numbers of images for which that does something else than for a few."""
    network, channels = copy_module(subject.model, torch.float64), traced.graph.input.channels
    generator = torch.Generator().manual_seed(0)
    for count in find_other_batches(network, channels, subject.size, subject.numbers):
        images = torch.rand(count, channels, *subject.size, generator=generator, dtype=torch.float64)
        try:
            sample = take_sample(network, images)
        except Exception as error:  # whatever the model's own code raises
            log.info("the network itself does not take %d images at once: %s", count, error)
            continue
        _compare(subject.model, traced, [sample])


def _say_at(subject: Subject, traced: Traced, sizes: Sequence[Size]) -> None:
    """Warn of a network that is another for images of these heights and widths.

    Sizes at which it does not run are passed over.
    """
    module = traced.module
    for height, width in sizes:
        image = torch.linspace(0, 1, traced.graph.input.channels * height * width, dtype=torch.float64)
        try:
            sample = take_sample(subject.exact, image.view(1, -1, height, width))
        except Exception as error:  # whatever the model's own code raises
            log.info("the network itself does not take an image of %dx%d: %s", height, width, error)
            continue
        if not is_same(sample, module(sample.image)):
            log.warning(
                "%s computes with the size of the image: at %dx%d it gives something else than what was read",
                type(subject.model).__name__,
                height,
                width,
            )
            return


def _explain_unread(model: nn.Module, problems: Mapping[str, Exception]) -> str:
    """The message on what stopped the readers: module, operation or line of the model's code, reason, way out.

    torch.export's reader gets further, and torch.fx's has the names that the model's code uses.
    """
    first, last = problems[SYMBOLIC], problems[EXPORT]
    if isinstance(first, DependsOnSize):
        return str(first)
    if isinstance(last, Unreadable):
        return str(first if _say_the_same(first, last) else last)
    if isinstance(first, Unreadable) and not isinstance(last, LeavesTorch):
        return str(first)
    return f"{place_of(model, last) or place_of(model, first) or type(model).__name__}: {_reason(first, last)}"


def _say_the_same(first: Exception, last: Exception) -> bool:
    """Whether both have no word for an operation, which each calls by its own name."""
    return isinstance(first, Unreadable) and NO_WORD in str(first) and NO_WORD in str(last)


def _reason(first: Exception, last: Exception) -> str:
    """Words on why torch could not follow the model's code, in place of its own, and the way out."""
    for error in (last, first):
        text = str(error)
        if "data-dependent" in text or "control flow" in text:
            return (
                "a decision depends on the image, its values or its size, and a plain network does the same to every "
                "image; rewrite that line without it"
            )
        if isinstance(error, LeavesTorch) or "Proxy" in text or ".numpy()" in text:
            return (
                "the image leaves torch: it is made a Python number, a list or an array of NumPy, or taken apart; "
                "rewrite that line with operations of torch on the whole of it"
            )
    return f"torch cannot follow it ({first_line(last)}); rewrite that line with plain operations of torch"
