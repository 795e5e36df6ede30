"""Sizes of images that a `.pt2` was exported for: what the network's code does at others, the file does not say."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product
from types import CodeType
from typing import Any

import torch
from torch import Tensor

from memsr_compiler.trace.views import BATCH, tell_other_sizes, tell_sizes

# What torch < 2.11 found out about sizes, "3*L['x'].size()[2] <= 2147483647"; powers could take forever.
# Later ones still say what they round: "2*L['x'].size()[3] == math.trunc(2.0*torch.sym_float(L['x'].size()[3]))".
GUARD = re.compile(
    r"(L\['\w+'\]\.size\(\)\[\d+\]|\d+(\.\d+)?(?![\d.])|[-+/%(), ]|\*(?!\*)|[<>=!]=|[<>]|\b(and|or|not)\b"
    r"|(math\.(trunc|floor|ceil)|torch\.sym_(float|int|max|min)|max|min)(?=\())*"
)
"""Conditions on sizes under which a program is what the network's code does; no other text can be run here."""

_SIZE = re.compile(r"L\['\w+'\]\.size\(\)\[(\d+)\]")
_SIDES = (2, 3, 5, 8, 13, 17, 31, 32, 48, 64, 97, 100, 129, 250, 512, 1021, 2160, 4096)
"""Heights and widths that are tried; torch.export looks at no smaller ones."""
_NAMES = {"__builtins__": {}, "math": math, "torch": torch, "max": max, "min": min}


def say_sizes(program: torch.export.ExportedProgram) -> None:
    """Warn of a program that was exported for some sizes of images."""
    images = frozenset(program.graph_signature.user_inputs)
    image = next((node.meta.get("val") for node in program.graph.nodes if node.name in images), None)
    if not isinstance(image, Tensor) or image.dim() != 4:
        return
    shape = list(image.shape)
    most = [_limits(program, side)[1] for side in shape[2:]]
    tell_sizes(most, fixed=all(isinstance(side, int) for side in shape[2:]))
    if (other := _find_other_size(program, shape)) is not None:
        tell_other_sizes("some sizes, of which {}x{} is none".format(*other))


def _find_other_size(program: torch.export.ExportedProgram, shape: Sequence[Any]) -> tuple[int, int] | None:
    """A height and width that the program was not exported for, though they are none too large; None if there is none.

    shape   of the image, with symbols for sizes that are free
    """
    sides = shape[2:]
    limits = [_limits(program, side) for side in sides]
    tried = [
        (side,) if isinstance(side, int) else [n for n in _SIDES if n <= most]
        for side, (_, most) in zip(sides, limits, strict=True)
    ]
    guards = [_compile(text) for text in program._guards_code if GUARD.fullmatch(text)]
    batch, channels = (n if isinstance(n, int) else BATCH for n in shape[:2])
    for height, width in product(*tried):
        small = height < limits[0][0] or width < limits[1][0]
        size = (batch, channels, height, width)
        if small or not _are_of(sides, (height, width)) or not all(_holds(guard, size) for guard in guards):
            return height, width
    return None


def _are_of(sides: Sequence[Any], size: tuple[int, int]) -> bool:
    """Whether a height and width are of the forms that they were exported as, h and w, 8 h, or both h."""
    known: dict[Any, Any] = {}
    for side, number in zip(sides, size, strict=True):
        if isinstance(side, int):
            continue
        formula = side.node.expr
        symbols = formula.free_symbols
        if len(symbols) != 1:
            continue  # a guard says more of it
        (symbol,) = symbols
        times, rest = formula.coeff(symbol), formula.subs(symbol, 0)
        value, left = divmod(number - rest, times)
        if left or known.setdefault(symbol, value) != value:
            return False
    return True


def _limits(program: torch.export.ExportedProgram, side: Any) -> tuple[float, float]:
    """The least and the largest height or width that a program was exported for."""
    if isinstance(side, int):
        return side, side
    known = program.range_constraints.get(side.node.expr)
    return (0, math.inf) if known is None else (float(known.lower), float(known.upper))


def _compile(guard: str) -> CodeType | None:
    """A guard, made ready to be asked about sizes; None for one that is no condition."""
    try:
        return compile(_SIZE.sub(r"size[\1]", guard), "<guard>", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _holds(guard: CodeType | None, size: tuple[int, ...]) -> bool:
    """Whether a condition, all of whose text `GUARD` knows, is met by an image of this shape."""
    try:
        return guard is not None and bool(eval(guard, {**_NAMES, "size": size}))
    except Exception:  # whatever its arithmetic raises: it is no condition that can be met
        return False
