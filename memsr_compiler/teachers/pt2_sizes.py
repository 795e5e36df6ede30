"""Sizes of images that a `.pt2` was exported for: what the network's code does at others, the file does not say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from memsr_compiler.trace.fx.guards import AXES, tell_exported
from memsr_compiler.trace.views import ANY, USUAL_LEAST

# What torch < 2.11 found out about sizes, "3*L['x'].size()[2] <= 2147483647"; powers could take forever.
# Later ones still say what they round: "2*L['x'].size()[3] == math.trunc(2.0*torch.sym_float(L['x'].size()[3]))".
# Of forward(*args) they say "L['args'][0].size()[2] <= 100".
GUARD = re.compile(
    r"(L\['\w+'\](\[\d+\])?\.size\(\)\[\d+\]|\d+(\.\d+)?(?![\d.])|[-+/%(), ]|\*(?!\*)|[<>=!]=|[<>]|\b(and|or|not)\b"
    r"|(math\.(trunc|floor|ceil)|torch\.sym_(float|int|max|min)|max|min)(?=\())*"
)
"""Conditions on sizes under which a program is what the network's code does; other text is told of like code."""


def say_sizes(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Warn of a program that was exported for some images; words on what is assumed of it: see `Teacher.assumed`."""
    images = frozenset(program.graph_signature.user_inputs)
    image = next((node.meta.get("val") for node in program.graph.nodes if node.name in images), None)
    if not isinstance(image, Tensor) or image.dim() != len(AXES):
        return ()
    limits = (limit for axis, size in zip(AXES, image.shape, strict=True) for limit in _limits(program, axis, size))
    return tell_exported(image.shape, [*limits, *program._guards_code])


def _limits(program: torch.export.ExportedProgram, axis: str, size: Any) -> Iterator[str]:
    """The least and the largest size of an axis that a program was exported for, as conditions."""
    if isinstance(size, int):
        yield f"{axis} == {size}"
        return
    known = program.range_constraints.get(size.node.expr)
    least, most = (0.0, math.inf) if known is None else (float(known.lower), float(known.upper))
    if least > USUAL_LEAST:
        yield f"{axis} >= {least:.0f}"
    if most < ANY:  # code that decides at a larger size leaves a guard, too
        yield f"{axis} <= {most:.0f}"
