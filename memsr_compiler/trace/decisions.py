"""Decisions in a model's code that hang on the size of the image: torch.export reads one way of each, at one size."""

from __future__ import annotations

import ast
import linecache
import os
import traceback
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memsr_compiler.torch_helpers import InFloat64, copy_module
from memsr_compiler.trace.fx_reader import HEIGHT, WIDTH
from memsr_compiler.trace.places import files_of

OTHERS = ((1, 1), (4, 3), (64, 64), (48, 80), (33, 47), (720, 1280), (2160, 3840), (8192, 8192))
"""Sizes that are looked at too: whoever decides, mostly asks whether an image is small, or fits into memory."""


def is_decided(model: nn.Module, problem: Exception) -> bool:
    """Whether torch.fx was stopped by a line of the model's own that does one thing or another.

    A line that does nothing but raise is none: where it does not, the network is the same.
    """
    tracers = ("/torch/fx/", os.path.dirname(__file__))
    frames = [f for f in traceback.extract_tb(problem.__traceback__) if not any(t in f.filename for t in tracers)]
    if not frames:  # the graph was there, and could not be read
        return False
    place = frames[-1]
    decides = isinstance(problem, fx.proxy.TraceError) and "inputs to control flow" in str(problem)
    ours = place.filename in files_of(model) and "/torch/" not in place.filename  # torch's own code is known
    return decides and ours and not _only_raises(place)


def find_other_size(model: nn.Module, channels: int) -> tuple[int, int] | None:
    """A size (H, W) at which the network runs other operations than at that of an export; None where none is found.

    No pixel is computed.  Sizes at which it does not run are passed over.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    copied = copy_module(model, torch.float64)
    with torch.no_grad(), InFloat64(), FakeTensorMode(allow_non_fake_inputs=True):
        _list_operations(copied, channels, (HEIGHT, WIDTH))  # some keep what they make the first time
        exported = _list_operations(copied, channels, (HEIGHT, WIDTH))
        others = ((size, _list_operations(copied, channels, size)) for size in OTHERS)
        return next((size for size, operations in others if exported and operations not in ([], exported)), None)


def _list_operations(model: nn.Module, channels: int, size: tuple[int, int]) -> list[tuple[str, ...]]:
    """Operations that run on an image of this size, in order, with the fractions that they are given; empty: it fails.

    At the end what the result's sides are of the image's: a crop to so many pixels is the same operation.
    """
    recorder = _Recorder()
    try:
        with recorder:
            y: Tensor = model(torch.empty(1, channels, *size, dtype=torch.float64))
        sides = [str(Fraction(large, small)) for large, small in zip(y.shape[2:], size, strict=True)]
    except Exception:  # whatever the model's own code raises
        return []
    return [*recorder.operations, ("", *sides)]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes operations, and numbers among their operands; of whole ones those that are no sizes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[str, ...]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        numbers = [str(a) for a, named in zip(args, func._schema.arguments, strict=False) if _is_number(a, named)]
        fractions = [str(value) for value in tree_leaves((args, kwargs)) if isinstance(value, float)]
        self.operations.append((str(func), *numbers, *fractions))
        return func(*args, **(kwargs or {}))


def _is_number(value: object, argument: Any) -> bool:
    """Whether an operand is a number that pixels are added to or multiplied with, not a size or a place."""
    return isinstance(value, int) and str(argument.type) in ("Tensor", "number")


def _only_raises(place: traceback.FrameSummary) -> bool:
    """Whether a line is of an `assert`, or of an `if` that does nothing but raise."""
    try:
        code = ast.parse("".join(linecache.getlines(place.filename)))
    except SyntaxError:  # of a notebook, say
        return False
    around = [node for node in ast.walk(code) if isinstance(node, ast.stmt) and _has_line(node, place.lineno or 0)]
    last = max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)), default=None)
    if isinstance(last, ast.If):
        return all(isinstance(statement, ast.Raise) for statement in last.body) and not last.orelse
    return isinstance(last, ast.Assert)


def _has_line(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)
