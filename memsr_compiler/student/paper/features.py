"""The teacher's features in float64, level by level, and their moments: what a carried value is, is not done again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.ir.interpreter import evaluate
from memsr_compiler.student.levels import Level, LeveledTeacher, Values
from memsr_compiler.student.statistics.float64_conv import COLUMNS, convolve
from memsr_compiler.student.statistics.moments import Moments, pixels


def advance(teacher: LeveledTeacher, level: Level, below: Values) -> Values:
    """Compute the level's values, by name, each (N, C, H, W), from those of the level below.

    As `LeveledTeacher.advance` does, several times quicker in float64.
    """
    known = dict(below)
    for op in map(teacher.graph.__getitem__, level.ops):
        how = {"convolve": convolve} if isinstance(op, ir.Conv2d) else {}
        known[op.name] = evaluate(op, *(known[name] for name in op.inputs), **how)
    return {name: known[name] for name in level.held}


def columns(level: Level, values: Values) -> Iterator[Tensor]:
    """Yield the level's features (C, pixels), some pixels at a time."""
    parts = [torch.split(pixels(values[name]), COLUMNS, dim=1) for name in level.held]
    return (torch.cat(pieces) for pieces in zip(*parts, strict=True))


def measure_moments(teacher: LeveledTeacher, level: Level, batches: Iterable[Values], below: Moments) -> Moments:
    """Moments of the level's features over all batches.

    below   moments of the level below, some of whose values may be held on: those are not multiplied out again
    """
    at = _places(teacher, level.held)
    held_on = _held_on(teacher, level)
    new = [name for name in level.held if name not in held_on]
    total, products = below.total.new_zeros(level.channels), below.total.new_zeros(level.channels, level.channels)
    count = 0
    for values in batches:
        features = {name: pixels(values[name]) for name in level.held}
        count += features[level.held[0]].shape[1]
        for i, name in enumerate(new):
            total[at[name]] += features[name].sum(1).cpu()
            for other in (*held_on, *new[i:]):
                products[at[name], at[other]] += (features[name] @ features[other].T).cpu()
    for name in new:
        products[:, at[name]] = products[at[name]].T.clone()
    if held_on:
        was = _places(teacher, teacher.levels[level.number - 2].held)
        here, there = _channels(at, held_on), _channels(was, held_on.values())
        total[here] = below.total[there]
        products[here[:, None], here] = below.products[there[:, None], there]
    return Moments(count, total, products)


def _held_on(teacher: LeveledTeacher, level: Level) -> Mapping[str, str]:
    """Values of the level that are values of the level below, by its name for them."""
    if level.number == 1:
        return {}
    below = teacher.levels[level.number - 2].held
    ops = {name: teacher.graph[name] for name in level.held}
    return {name: op.inputs[0] for name, op in ops.items() if isinstance(op, ir.Carry) and op.inputs[0] in below}


def _places(teacher: LeveledTeacher, held: Iterable[str]) -> dict[str, slice]:
    """Place of each value among the level's channels."""
    places, start = {}, 0
    for name in held:
        places[name] = slice(start, start + teacher.graph.type(name).channels)
        start = places[name].stop
    return places


def _channels(places: Mapping[str, slice], names: Iterable[str]) -> Tensor:
    return torch.cat([torch.arange(places[name].start, places[name].stop) for name in names])
