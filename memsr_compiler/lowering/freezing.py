"""Teachers that have no plain form, and the frozen networks that stand for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.plain.info import Takes
from memsr_compiler.teachers.teacher import Teacher
from memsr_compiler.trace.approximate.freeze import find_places, freeze
from memsr_compiler.trace.trace import Traced, trace

SHOWN = 3  # names of gates in a message


def trace_once(teacher: Teacher) -> tuple[Teacher, Traced]:
    """The teacher, which from then on is not read again, and the graph that it was read into.

    Raises UnsupportedModel where it has no plain form, with the way out that `trace_or_freeze` is.
    """
    if teacher.traced is not None:
        return teacher, teacher.traced
    try:
        return _trace(teacher)
    except UnsupportedModel as refusal:
        raise UnsupportedModel(f"{refusal}{_name_way_out(teacher)}") from None


def trace_or_freeze(
    teacher: Teacher, images: Callable[[Takes], Sequence[Tensor]], on_step: Callable[[str], None] | None = None
) -> tuple[Teacher, Traced]:
    """The teacher, with a frozen network that stands for it where it has no plain form, and what is to be compiled.

    images   gives calibration images, (N, C, H, W) in its range, for what it takes; asked only where it is frozen

    Raises UnsupportedModel where freezing gates and bending activations is not enough.
    """
    if teacher.frozen is not None:
        return teacher, teacher.frozen.traced
    if teacher.traced is not None:
        return teacher, teacher.traced
    try:
        return _trace(teacher)
    except UnsupportedModel as refusal:
        if not find_places(teacher.module, teacher.input_range):
            raise
        try:
            inputs = images(teacher.takes)
            frozen = freeze(teacher.module, inputs, input_range=teacher.input_range, on_step=on_step)
        except UnsupportedModel as error:
            raise UnsupportedModel(f"{error}; nor can it be approximated") from refusal
        return replace(teacher, frozen=frozen), frozen.traced


def _trace(teacher: Teacher) -> tuple[Teacher, Traced]:
    traced = trace(teacher.module, input_range=teacher.input_range)
    return replace(teacher, traced=traced), traced


def _name_way_out(teacher: Teacher) -> str:
    """Words on what `convert --approximate` would do with a teacher that was refused; "" where it would not help."""
    places = find_places(teacher.module, teacher.input_range)
    if not places:
        return ""
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return (
        f"; or use convert --approximate, which puts numbers in place of {', '.join(places[:SHOWN])}{more}, and "
        "converts what is then no longer this network; memsrc shrink takes it as it is"
    )
