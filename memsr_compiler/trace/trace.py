"""Reading a teacher: any nn.Module -> `Traced`.  The only folder that knows torch.fx, torch.export and ONNX graphs."""

from __future__ import annotations

import logging
import math
import traceback
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.errors import InvalidInput, MemsrError, UnsupportedModel
from memsr_compiler.ir.interpreter import run
from memsr_compiler.torch_helpers import copy_module, one_thread
from memsr_compiler.trace.builder import Builder, Resized
from memsr_compiler.trace.fx_reader import exported, read, symbolic
from memsr_compiler.trace.views import Unreadable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageSkip:
    """The image itself, enlarged, that the network adds at its end: y = plain(x) + resize(x)."""

    mode: str
    factor: int


@dataclass(frozen=True)
class Traced:
    """A teacher as a graph.  `reader`: how it was read.  `image_skip`: what stays outside the graph, if anything."""

    graph: ir.Graph
    reader: str
    image_skip: ImageSkip | None = None


class GraphModule(nn.Module):
    """A graph as a module: what the ONNX reader gives.  (N, C, H, W) -> (N, C', s H, s W)."""

    def __init__(self, graph: ir.Graph, image_skip: ImageSkip | None = None) -> None:
        super().__init__()
        self.graph = graph
        self.image_skip = image_skip

    def forward(self, x: Tensor) -> Tensor:
        y = run(self.graph, x)
        return y if self.image_skip is None else y + enlarged(x, self.image_skip)


def enlarged(x: Tensor, skip: ImageSkip) -> Tensor:
    """The image (N, C, H, W) as an outside image skip adds it."""
    return nn.functional.interpolate(x, scale_factor=skip.factor, mode=skip.mode, align_corners=False)


@one_thread()
@torch.no_grad()
def trace(model: nn.Module, *, input_range: tuple[float, float] = (0.0, 1.0)) -> Traced:
    """Read a network into a graph; the network is not changed.

    model         one image (N, C, H, W) in, one out; in eval mode as far as that makes a difference
    input_range   bounds of its input values

    Raises UnsupportedModel naming the module, the operation, why it cannot be plain and what to do; InvalidInput for
    weights that are NaN or infinite, and for a network in train mode.
    """
    model = copy_module(model, torch.float64)  # weights that are computed from others are then computed exactly
    _check(model)
    if isinstance(model, GraphModule):
        ops = tuple(_with_range(op, input_range) for op in model.graph)
        return _with_convolution(Traced(ir.Graph(ops, model.graph.output), "onnx", model.image_skip))
    problems: list[tuple[str, Exception]] = []
    for reader in ("torch.fx.symbolic_trace", "torch.export"):
        failures: list[Exception] = []
        for channels in _possible_channels(model):
            try:
                traced = _read(model, reader, channels, input_range)
                _compare(traced, model, channels, reader)
                return _with_convolution(traced)
            except UnsupportedModel as error:
                if not isinstance(error, Unreadable) and "channels, is given" not in str(error):
                    raise
                failures.append(error)
            except Exception as error:  # whatever the model's own code, or the tracer, raises
                failures.append(error)
        problems.append((reader, failures[0]))
        log.info("%s does not read it: %s", *problems[-1])
    raise UnsupportedModel(_why(model, problems))


def _read(model: nn.Module, reader: str, channels: int, input_range: tuple[float, float]) -> Traced:
    builder = Builder(channels, *input_range)
    if reader == "torch.export":
        module, constant = exported(model, channels)
        result = read(module, builder, constant)
    else:
        result = read(symbolic(model), builder)
    if not isinstance(result, Resized):
        return Traced(builder.graph(result), reader)
    assert result.body is not None
    return Traced(builder.graph(result.body), reader, ImageSkip(result.mode, result.factor))


def _with_convolution(traced: Traced) -> Traced:
    """Itself, unless there is nothing in it to compile."""
    if not any(isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)) for op in traced.graph):
        raise UnsupportedModel("the network has no convolution, so there is nothing to compile; is this the module?")
    return traced


def _check(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise InvalidInput(
            "TorchScript is not read; give the nn.Module it was made from, or its state dict with --arch"
        )
    for name, module in model.named_modules():
        stateful = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
        if module.training and isinstance(module, stateful):
            raise InvalidInput(
                f"{name or 'the network'}: {type(module).__name__} is in train mode; call model.eval() first"
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InvalidInput(f"{name}: has NaN or infinite values; the checkpoint is damaged or training diverged")


def _with_range(op: ir.Op, input_range: tuple[float, float]) -> ir.Op:
    if isinstance(op, ir.Input):
        return ir.Input(name=op.name, channels=op.channels, low=input_range[0], high=input_range[1])
    return op


def _possible_channels(model: nn.Module) -> list[int]:
    """How many channels the input may have, likeliest first: what the first convolution takes, RGB, grey."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    candidates = [first.in_channels] if first is not None else []
    return list(dict.fromkeys([*candidates, 3, 1]))


def _compare(traced: Traced, model: nn.Module, channels: int, reader: str) -> None:
    """The graph must give what the model gives, in float64: an in-place op misread shows here."""
    reference = copy_module(model, torch.float64)  # it may keep something of what it sees
    read_back = GraphModule(traced.graph, traced.image_skip)
    low, high = traced.graph.input.low, traced.graph.input.high
    low, high = (low, high) if math.isfinite(low) and math.isfinite(high) else (0.0, 1.0)
    generator = torch.Generator().manual_seed(0)
    for size in ((6, 10), (7, 5)):
        x = torch.rand(1, channels, *size, generator=generator, dtype=torch.float64) * (high - low) + low
        with torch.no_grad():
            try:
                expected = reference(x.clone())  # it may change its input in place
            except Exception as error:
                if size == (6, 10):
                    raise
                log.info("the network itself does not take an image of %s: %s", size, error)
                continue
            found = read_back(x)
        if expected.shape != found.shape:
            raise Unreadable(f"read by {reader} it gives {tuple(found.shape)}, the network {tuple(expected.shape)}")
        peak = float(expected.abs().max()) + 1.0
        difference = float((expected - found).abs().max())
        if not difference <= 1e-9 * peak:
            raise Unreadable(f"read by {reader} it differs from the network by {difference:.3g}")


def _why(model: nn.Module, problems: list[tuple[str, Exception]]) -> str:
    """What stopped the last reader, and on which line of the model's code."""
    for _, error in reversed(problems):
        if isinstance(error, UnsupportedModel) and not isinstance(error, Unreadable):
            return str(error)
    reader, error = problems[-1]
    first = problems[0][1]
    if isinstance(error, MemsrError):
        return f"{error} ({reader}); torch.fx.symbolic_trace: {_first_line(first)}"
    return (
        f"neither torch.fx.symbolic_trace nor torch.export can read {type(model).__name__}; "
        f"{_first_line(first)}{_line_of(model, first)}; {_first_line(error)}{_line_of(model, error)}; "
        "rewrite that line without decisions that depend on the image"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def _line_of(model: nn.Module, error: Exception) -> str:
    """' (file:line: code)' of the innermost frame in the model's own code, where there is one."""
    import inspect

    files = set()
    for module in model.modules():
        try:
            files.add(inspect.getfile(type(module)))
        except (TypeError, OSError):
            continue
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if f.filename in files and "/torch/" not in f.filename
    ]
    return f" (at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""
