"""Whole numbers that a network's code has at hand: if it decides by a size, then mostly by one of these."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice, pairwise
from types import CodeType, FrameType
from typing import Any, TypeAlias

from torch import nn

Group: TypeAlias = tuple[int, ...]
"""Numbers that stand together: in one tuple, in one text ("720x1280"), or in one function."""
_MOST = 256  # numbers of one table
_SIDES = range(2, 2**15)
_AREA = 2**40


def numbers_at_hand(frame: FrameType) -> frozenset[Group]:
    """Numbers in a function that is called: written into it, given to it, around it, or global and of its names."""
    code = frame.f_code
    around = [frame.f_globals[name] for name in code.co_names if name in frame.f_globals]
    written = [value for value in code.co_consts if not isinstance(value, CodeType)]
    return frozenset(_groups_in([*written, *frame.f_locals.values(), *around]))


def numbers_of_modules(model: nn.Module, codes: Iterable[CodeType]) -> frozenset[Group]:
    """Numbers in attributes of modules that code asks for by their names."""
    names = {name for code in codes for name in code.co_names}
    found = set[Group]()
    for module in model.modules():
        own: Iterable[Mapping[str, Any]] = (vars(module), *(vars(kind) for kind in type(module).__mro__))
        held = chain.from_iterable(values.items() for values in own)
        found.update(_groups_in([value for name, value in held if name in names]))
    return frozenset(found)


def sides_to_look_at(groups: Iterable[Group]) -> list[tuple[int, int]]:
    """Heights and widths at which code that knows these numbers may do something else, the likeliest first."""
    groups = sorted(groups, key=lambda group: (-max(group, default=0), group))
    pairs = [pair for group in groups for pair in pairwise(group) if all(n in _SIDES for n in pair)]
    numbers = list(dict.fromkeys(n for group in groups for n in sorted(group, reverse=True)))
    sides = [n for n in numbers if n in _SIDES]
    areas = [math.isqrt(n) + 1 for n in numbers if _SIDES.stop <= n <= _AREA]
    beside = [m for n in sides for m in (n + 1, n - 1) if m in _SIDES]
    squares = [(n, n) for n in (*sides, *areas, *beside)]
    return list(dict.fromkeys(chain(pairs, squares)))


def counts_to_look_at(groups: Iterable[Group], most: int) -> list[int]:
    """Numbers of images, at most so many, for which code that knows these numbers may do something else."""
    numbers = {n + step for group in groups for n in group for step in (0, 1)}
    return sorted(n for n in numbers if 2 <= n <= most)


def _groups_in(values: Iterable[Any], depth: int = 3) -> Iterator[Group]:
    """Numbers of all values together, and of each text and table among them."""
    alone: list[int] = []
    for value in values:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            alone += [int(value)] if math.isfinite(value) and value == int(value) else []
        elif isinstance(value, str):
            yield from _only_some([int(digits) for digits in re.findall(r"\d{1,9}", value[:_MOST])])
        elif isinstance(value, (tuple, list, set, frozenset)) and depth:
            yield from _groups_in(islice(value, _MOST), depth - 1)
        elif isinstance(value, dict) and depth:
            yield from _groups_in(islice(value.keys(), _MOST), depth - 1)
            yield from _groups_in(islice(value.values(), _MOST), depth - 1)
    yield from _only_some(alone)


def _only_some(numbers: list[int]) -> Iterator[Group]:
    some = tuple(abs(n) for n in numbers if abs(n) >= _SIDES.start)
    if some:
        yield some
